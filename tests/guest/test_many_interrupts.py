# SPDX-License-Identifier: MIT
"""Interrupts raised by a second thread at full speed: none lost, no status bit missed, nothing hangs."""

from __future__ import annotations

import asyncio
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from tests.guest.support import PATIENCE, kernel_agrees, kernel_count, wait_until

BITS = 32


class Raiser:
    """Raises one status bit after the other in a thread of its own, each again only when it was acknowledged."""

    def __init__(self, card: Edu, number: int) -> None:
        self._card = card
        self._number = number
        self.acknowledged = [0] * BITS
        self.raised = [0] * BITS
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in range(self._number):
            bit = number % BITS
            while self.acknowledged[bit] != self.raised[bit]:
                pass
            self.raised[bit] += 1
            self._card.registers.raise_interrupt.write(1 << bit)

    def __enter__(self) -> Raiser:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    @property
    def done(self) -> bool:
        return sum(self.acknowledged) == self._number

    def acknowledge(self) -> None:
        """What a driver's handler does: read what was raised, acknowledge exactly that, and count it."""
        bits = self._card.interrupt_status()
        self._card.acknowledge(bits)
        for bit in range(BITS):
            if bits >> bit & 1:
                self.acknowledged[bit] += 1


def by_read(device: pyuio.Device, raiser: Raiser) -> int:
    total = 0
    while not raiser.done:
        total += device.interrupt.read(20)
        raiser.acknowledge()
    return total


def by_epoll(device: pyuio.Device, raiser: Raiser) -> int:
    total = 0
    interrupt = device.interrupt
    with select.epoll() as poller:
        poller.register(interrupt, select.EPOLLIN)
        while not raiser.done:
            try:
                while True:
                    total += interrupt.read(0)
                    raiser.acknowledge()
            except BlockingIOError:
                assert raiser.done or poller.poll(20), "hangs"
    return total


def by_asyncio(device: pyuio.Device, raiser: Raiser) -> int:
    async def main() -> int:
        total = 0
        while not raiser.done:
            total += await device.interrupt.read_async(20)
            raiser.acknowledge()
        return total

    return asyncio.run(main())


@pytest.fixture
def brisk() -> Iterator[None]:
    """Threads take turns every 0.1 ms: with Python's 5 ms the test would measure that, and take minutes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("number", [2_000, pytest.param(100_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("consume", [by_read, by_epoll, by_asyncio])
def test_at_full_speed(
    consume: Callable[[pyuio.Device, Raiser], int],
    device: pyuio.Device,
    number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    card = Edu(device)
    before = kernel_count(device)
    with Raiser(card, number) as raiser:
        total = consume(device, raiser)
    # What fired between the last acknowledgement and now had nothing to say, but counts.
    while device.interrupt.pending:
        total += device.interrupt.read(0)
    assert total == device.interrupt.total
    assert kernel_agrees(device, before, total)
    assert raiser.acknowledged == raiser.raised
    assert sum(raiser.raised) == number
    assert card.interrupt_status() == 0
    assert caplog.records == [], "each interrupt was acknowledged"


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_one_by_one(device: pyuio.Device, count: int) -> None:
    card = Edu(device)
    before = kernel_count(device)
    for number in range(count):
        card.raise_interrupt(1 << number % BITS)
        assert device.interrupt.read(5) == 1
        assert card.interrupt_status() == 1 << number % BITS
        card.acknowledge()
    assert device.interrupt.total == count
    assert kernel_agrees(device, before, count)


def test_reading_threads_share_them(device: pyuio.Device) -> None:
    """Each interrupt is counted in one read only, whichever thread has it."""
    card = Edu(device)
    counted = kernel_count(device)
    counts: list[int] = []

    def consume() -> None:
        try:
            while True:
                counts.append(device.interrupt.read())
                card.acknowledge()
        except pyuio.ClosedError:
            pass

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(250):
        before = sum(counts)
        while sum(counts) == before:
            card.raise_interrupt()  # again, because a thread may just acknowledge this one with one that it had taken
            time.sleep(0)
    card.acknowledge()
    interrupt = device.interrupt
    wait_until(lambda: sum(counts) == interrupt.total and kernel_agrees(device, counted, interrupt.total))
    # One that is not acknowledged yet fires again for another thread that waits.
    assert sum(counts) >= 250
    device.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
