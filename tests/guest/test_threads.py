# SPDX-License-Identifier: MIT
"""Threads use one open card in every way at once, until it is closed in the middle of that."""

from __future__ import annotations

import contextlib
import faulthandler
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.dma.allocator import ALL_ADDRESSES
from pyuio.kernel.drivers import bound_driver
from pyuio.pci import Command
from tests.guest.support import EDU, Cards, kernel_agrees, kernel_count, wait_until

LIMIT = 30  # seconds; a thread that still runs then never ends
# The errors in the docstrings. DeviceBusyError: the device is open, or a native service has the interrupt.
DOCUMENTED = (
    pyuio.ClosedError,
    pyuio.DeviceTimeoutError,
    pyuio.WouldBlockError,
    pyuio.DeviceBusyError,
)


class Round:
    """One opening of the card, with a thread for each use of it; each thread repeats its use."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.card = Edu.open(address)
        self.device = self.card.device
        self.interrupt = self.device.interrupt
        self.before = kernel_count(self.device)
        self.taken: list[int] = []  # interrupts of each read
        self.served: list[int] = []  # interrupts of each event of a service
        self.raising = threading.Event()
        self.raising.set()
        self.waiting = threading.Event()  # set: threads may wait for an interrupt
        self.waiting.set()
        self.stop = threading.Event()
        self.wrong: list[BaseException] = []
        self.done: Counter[str] = Counter()
        uses = (
            self.raise_and_acknowledge,
            self.read,
            self.read,
            self.read_what_is_there,
            self.poll,
            self.wait,
            self.mask,
            self.look,
            self.change_command,
            self.allocate,
            self.map,
            self.open_again,
            self.serve,
        )
        self.threads = [threading.Thread(target=self.run, args=(use,), name=use.__name__) for use in uses]
        for thread in self.threads:
            thread.start()

    def run(self, use: Callable[[], object]) -> None:
        while not self.stop.is_set() and not self.wrong:
            try:
                use()
                self.done[use.__name__] += 1
            except DOCUMENTED as error:
                if isinstance(error, pyuio.ClosedError) and not self.device.closed:
                    self.wrong.append(error)
            except BaseException as error:
                self.wrong.append(error)

    def raise_and_acknowledge(self) -> None:
        if self.raising.is_set():
            self.card.raise_interrupt(random.randrange(1, 1 << 32))
        self.card.acknowledge()
        time.sleep(0.001)

    def read(self) -> None:
        self.waiting.wait(1)
        self.taken.append(self.interrupt.read(random.choice((0.001, 0.01, 0.1))))

    def read_what_is_there(self) -> None:
        self.taken.append(self.interrupt.read(0))

    def poll(self) -> None:
        self.waiting.wait(1)
        self.interrupt.poll(0.01)

    def wait(self) -> None:
        self.waiting.wait(1)
        pyuio.wait([self.interrupt], 0.01)

    def mask(self) -> None:
        random.choice((self.interrupt.mask, self.interrupt.unmask))()
        time.sleep(0.0005)

    def look(self) -> None:
        assert self.interrupt.masked in (True, False)
        assert self.interrupt.pending in (True, False)
        assert self.interrupt.fileno() > 2
        assert self.device.config.vendor_id == 0x1234

    def change_command(self) -> None:
        self.device.config.change_command(set=Command.SERR_ENABLE)
        self.device.config.change_command(clear=Command.SERR_ENABLE)

    def allocate(self) -> None:
        with self.device.dma.alloc(4096, mask=ALL_ADDRESSES) as buffer:  # no transfer uses it
            buffer[:] = b"\x5a" * 4096
            assert bytes(buffer) == b"\x5a" * 4096

    def map(self) -> None:
        bar = self.device.bar(0)
        assert bar.read32(0) & 0xFFFF == 0x00ED
        self.device.bar(0, endian="big").close()

    def open_again(self) -> None:
        with pyuio.open(self.address, bind=True):
            assert self.device.closed

    def serve(self) -> None:
        time.sleep(0.05)
        self.waiting.clear()  # otherwise a thread waits nearly all the time, and a service is refused
        time.sleep(random.choice((0, 0.01, 0.11)))
        self.waiting.set()
        with pyuio.Service(self.interrupt, self.card.acknowledge_program()) as service:
            time.sleep(0.02)
            service.stop()
            with contextlib.suppress(pyuio.ClosedError):  # raised when all events were read
                while True:
                    self.served += [event.count for event in service.read(0)]

    def count_all(self) -> None:
        """Stop raising interrupts, and wait until the interrupts that were read equal those that the kernel counted."""
        wait_until(lambda: self.interrupt.total > 0)  # a round may end before its threads have begun
        self.raising.clear()
        time.sleep(0.01)
        try:
            wait_until(lambda: self.counted() and sum(self.taken) + sum(self.served) == self.interrupt.total)
        except AssertionError as error:
            read = f"{sum(self.taken)} were taken and {sum(self.served)} served of {self.interrupt.total}"
            kernel = "the same" if self.counted() else "another number"
            raise AssertionError(f"{read}, and the kernel counted {kernel}; {self.wrong}") from error
        self.raising.set()

    def counted(self) -> bool:
        return kernel_agrees(self.device, self.before, self.interrupt.total)

    def end(self) -> None:
        for thread in self.threads:
            thread.join(LIMIT)
        if alive := [thread.name for thread in self.threads if thread.is_alive()]:
            faulthandler.dump_traceback()
            raise AssertionError(f"they never ended: {alive}")


def rounds(address: str, seconds: float) -> Counter[str]:
    done: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        one = Round(address)
        try:
            time.sleep(random.uniform(0, 1))
            if not one.wrong and random.random() < 0.5:
                one.count_all()
                time.sleep(random.uniform(0, 0.2))
        finally:
            one.card.close()
            time.sleep(0.02)  # meanwhile the threads use the closed card
            one.stop.set()
            one.end()
        if one.wrong:
            raise one.wrong[0]  # with its traceback
        assert bound_driver(address) is None
        done += one.done
    return done


def test_everything_at_once(cards: Cards) -> None:
    done = rounds(cards(EDU)[0], 1.5)
    assert done["allocate"] > 0


@pytest.mark.long
def test_everything_at_once_for_a_minute(cards: Cards) -> None:
    print(dict(rounds(cards(EDU)[0], 60)))
