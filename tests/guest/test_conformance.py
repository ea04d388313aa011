# SPDX-License-Identifier: MIT
"""The rows of the patch's semantics, each on every kind of masking: one test a row, named after it."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio import binding
from pyuio.interrupt import Interrupt
from pyuio.sysfs import PCI_DRIVERS
from tests.guest.support import INTERRUPT_DISABLE, Later, command_register, interrupts_of_line, wait_until

KINDS = ("uio_pci_generic", "igb_uio-legacy", "igb_uio-msi")


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kernel driver, loaded, and the way in which it delivers interrupts."""
    driver, _, mode = str(request.param).partition("-")
    if mode:
        subprocess.run(["modprobe", "uio"], check=True)
        module: Path = request.getfixturevalue("igb_uio")
        subprocess.run(["insmod", module, f"intr_mode={mode}"], check=True)
    yield str(request.param)
    if mode:
        subprocess.run(["rmmod", driver], check=True)


@pytest.fixture
def bound(kind: str, edu: str) -> Iterator[str]:
    """An edu card bound to the kernel driver."""
    done = binding.bind(edu, kind.partition("-")[0])
    yield edu
    done.undo()


@pytest.fixture
def card(bound: str) -> Iterator[Edu]:
    with pyuio.open(bound) as device:
        yield Edu(device)


@pytest.fixture
def interrupt(card: Edu) -> Interrupt:
    return card.device.interrupt


@pytest.fixture
def is_masked(kind: str, bound: str) -> Callable[[], bool] | None:
    """Whether the line is masked, as seen from outside pyuio; None where the kernel driver cannot mask (edu's MSI)."""
    if kind == "igb_uio-msi":
        return None
    return lambda: bool(command_register(bound) & INTERRUPT_DISABLE)


def raise_and_wait(card: Edu, bits: int = 1) -> None:
    """Raise an interrupt and wait until the kernel has counted it."""
    before = card.device.uio.event_count
    card.raise_interrupt(bits)
    wait_until(lambda: card.device.uio.event_count != before)


def test_read_returns_the_interrupts_since_the_last_read(card: Edu, interrupt: Interrupt) -> None:
    card.raise_interrupt()
    assert interrupt.read(5) == 1
    card.acknowledge()
    for count in (1, 7):
        for _ in range(count):
            interrupt.unmask()
            raise_and_wait(card)
            card.acknowledge()
        assert interrupt.read(5) == count
    assert interrupt.total == 9


def test_a_blocking_read_blocks_until_there_is_one(card: Edu, interrupt: Interrupt, later: Later) -> None:
    counts: list[int] = []
    thread = later(lambda: counts.append(interrupt.read()))
    time.sleep(0.1)
    assert counts == []
    card.raise_interrupt()
    thread.join(10)
    assert counts == [1]
    card.acknowledge()


def test_nonblocking_with_none_pending_would_block_and_leaves_it_unmasked(
    card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None
) -> None:
    with pytest.raises(BlockingIOError) as caught:
        interrupt.read(0)
    assert caught.value.errno == errno.EAGAIN
    assert is_masked is None or not is_masked()
    with pytest.raises(TimeoutError):
        interrupt.read(0.01)
    assert is_masked is None or not is_masked()
    raise_and_wait(card)
    assert interrupt.read(0) == 1
    card.acknowledge()


def test_some_pending_is_returned_at_once_without_unmasking(
    card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None
) -> None:
    interrupt.unmask()
    raise_and_wait(card)
    assert interrupt.pending
    assert interrupt.read() == 1
    assert interrupt.masked
    assert is_masked is None or is_masked()
    card.acknowledge()


def test_masked_by_the_handler_and_unmasked_while_a_thread_is_in_read_or_poll(
    card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None, later: Later
) -> None:
    waits: list[Callable[[], object]] = [interrupt.read, lambda: interrupt.poll(None), lambda: pyuio.wait([interrupt])]
    for wait in waits:
        assert interrupt.masked
        thread = later(wait)
        if is_masked is not None:
            assert interrupt.masked or not is_masked()
            wait_until(lambda: not is_masked())
        card.raise_interrupt()
        thread.join(10)
        assert is_masked is None or is_masked()
        card.acknowledge()
        if interrupt.pending:
            interrupt.read(0)


def test_mask_and_unmask_by_hand(card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None) -> None:
    interrupt.unmask()
    assert not interrupt.masked
    assert is_masked is None or not is_masked()
    interrupt.mask()
    assert interrupt.masked
    if is_masked is not None:
        assert is_masked()
        card.raise_interrupt()
        time.sleep(0.05)
        assert not interrupt.pending
        assert interrupt.read(5) == 1
        card.acknowledge()


def test_poll_and_select_work_among_other_events(card: Edu, interrupt: Interrupt) -> None:
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    with near, far:
        things: list[Any] = [near, interrupt, reader]
        assert pyuio.wait(things, 0) == []
        card.raise_interrupt()
        assert pyuio.wait(things, 5) == [interrupt]
        far.send(b"x")
        os.write(writer, b"x")
        assert pyuio.wait(things, 5) == things
        assert select.select(things, [], [], 0)[0] == things
        assert interrupt.read(0) == 1
        card.acknowledge()
        near.recv(1)
        assert pyuio.wait(things, 5) == [reader]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    "selector",
    [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector],
)
def test_drained_until_it_would_block_it_is_armed(
    card: Edu, interrupt: Interrupt, selector: type[selectors.BaseSelector]
) -> None:
    with selector() as waiting:
        waiting.register(interrupt, selectors.EVENT_READ)
        for _ in range(20):
            with pytest.raises(BlockingIOError):
                interrupt.read(0)
            card.raise_interrupt()
            assert [key.fileobj for key, _ in waiting.select(5)] == [interrupt]
            assert interrupt.read(0) == 1
            card.acknowledge()


def test_a_buffer_shorter_than_an_int_is_einval(card: Edu, interrupt: Interrupt) -> None:
    raise_and_wait_unmasked(card, interrupt)
    for short in (bytearray(), bytearray(3)):
        with pytest.raises(OSError, match="too short") as caught:
            interrupt.readinto(short)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(TypeError):
        interrupt.readinto(bytes(4))
    buffer = array.array("I", [0xFFFFFFFF, 0xFFFFFFFF])
    assert interrupt.readinto(buffer, timeout=0) == 4
    assert list(buffer) == [1, 0xFFFFFFFF]
    card.acknowledge()


def raise_and_wait_unmasked(card: Edu, interrupt: Interrupt) -> None:
    interrupt.unmask()
    raise_and_wait(card)


def test_a_signal_handler_runs_and_the_wait_goes_on(card: Edu, interrupt: Interrupt) -> None:
    waits: list[Callable[[], object]] = [
        lambda: interrupt.read(20),
        lambda: interrupt.poll(20),
        lambda: pyuio.wait([interrupt], 20),
    ]
    for wait in waits:
        handled: list[int] = []

        def handler(number: int, frame: object, handled: list[int] = handled) -> None:
            handled.append(number)
            if len(handled) == 3:
                signal.setitimer(signal.ITIMER_REAL, 0)
                card.raise_interrupt()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            assert wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(handled) == 3
        card.acknowledge()
        if interrupt.pending:
            interrupt.read(0)


def test_a_signal_handler_that_raises_ends_the_wait(card: Edu, interrupt: Interrupt) -> None:
    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for wait in (interrupt.read, lambda: interrupt.poll(None), lambda: pyuio.wait([interrupt])):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Enough):
                wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    card.raise_interrupt()
    assert interrupt.read(5) == 1
    card.acknowledge()


def test_ctrl_c_ends_the_wait(interrupt: Interrupt) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            interrupt.read()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def test_open_takes_the_interrupt_and_close_frees_it_masked(bound: str, is_masked: Callable[[], bool] | None) -> None:
    for _ in range(3):
        with pyuio.open(bound) as device:
            with pytest.raises(pyuio.DeviceBusyError):
                pyuio.open(bound)
            card = Edu(device)
            card.raise_interrupt()
            assert device.interrupt.read(5) == 1
            card.acknowledge()
            device.interrupt.unmask()
            assert is_masked is None or not is_masked()
        assert is_masked is None or is_masked()


def test_an_interrupt_pending_at_the_moment_of_unmasking_is_delivered(card: Edu, interrupt: Interrupt) -> None:
    for _ in range(500):
        card.raise_interrupt()
        assert interrupt.read(5) == 1
        card.acknowledge()


def test_a_level_interrupt_not_acknowledged_fires_again_once_a_wait(kind: str, card: Edu, interrupt: Interrupt) -> None:
    if kind == "igb_uio-msi":  # a message, not a level: it does not fire again
        card.raise_interrupt()
        assert interrupt.read(5) == 1
        with pytest.raises(TimeoutError):
            interrupt.read(0.1)
        card.acknowledge()
        return
    before = interrupts_of_line(str(card.device.address))
    card.raise_interrupt()
    for _ in range(20):
        assert interrupt.read(5) == 1
        time.sleep(0.005)
    card.acknowledge()
    assert interrupt.total == 20
    # Another device on the line could add its own; a storm would be thousands.
    assert 20 <= interrupts_of_line(str(card.device.address)) - before < 40


def wait_how(how: str, interrupt: Interrupt) -> object:
    """Wait for ever, in one of three ways."""
    if how == "read":
        return interrupt.read()
    return interrupt.poll(None) if how == "poll" else pyuio.wait([interrupt])


def test_unmasked_as_long_as_any_thread_waits(card: Edu, interrupt: Interrupt, later: Later) -> None:
    """Several wait, each for one only: nobody sleeps on with the line masked because another took an interrupt."""
    taken: list[int] = []
    for how in ("read", "wait"):

        def take(how: str = how) -> None:
            if how == "wait":
                pyuio.wait([interrupt])
            taken.append(interrupt.read())

        threads = [later(take) for _ in range(4)]
        while any(thread.is_alive() for thread in threads):
            card.raise_interrupt()
            time.sleep(0.01)
            card.acknowledge()
        with contextlib.suppress(BlockingIOError):  # one too many
            taken.append(interrupt.read(0))
    assert sum(taken) == interrupt.total == card.device.uio.event_count


def test_asyncio_works(card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await interrupt.read_async(0.01)
        card.raise_interrupt()
        seen = 0
        async for count in interrupt:
            card.acknowledge()
            seen += count
            if seen == 20:
                break
            card.raise_interrupt()
        waiting = asyncio.ensure_future(interrupt.read_async())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert interrupt.total == 20


@pytest.mark.parametrize("how", ["read", "poll", "wait"])
def test_close_from_another_thread_ends_the_wait(bound: str, later: Later, how: str) -> None:
    device = pyuio.open(bound)
    interrupt = device.interrupt
    ended: list[BaseException] = []

    def run() -> None:
        try:
            wait_how(how, interrupt)
        except pyuio.ClosedError as error:
            ended.append(error)

    threads = [later(run) for _ in range(3)]
    time.sleep(0.1)
    device.close()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 3
    pyuio.open(bound).close()


@pytest.mark.parametrize("how", ["read", "poll", "wait"])
def test_a_handler_that_closes_ends_the_wait(bound: str, how: str) -> None:
    device = pyuio.open(bound)

    def handler(number: int, frame: object) -> None:
        device.close()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(pyuio.ClosedError):
            wait_how(how, device.interrupt)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("how", ["read", "poll", "wait"])
@pytest.mark.parametrize("end", ["unbind", "remove"])
def test_losing_the_device_ends_the_wait(kind: str, edu: str, later: Later, how: str, end: str) -> None:
    driver = kind.partition("-")[0]
    done = binding.bind(edu, driver)
    device = pyuio.open(edu)
    interrupt = device.interrupt
    ended: list[BaseException] = []

    def run() -> None:
        try:
            wait_how(how, interrupt)
        except pyuio.DeviceRemovedError as error:
            ended.append(error)

    thread = later(run)
    time.sleep(0.1)
    if end == "unbind":
        (PCI_DRIVERS / driver / "unbind").write_text(edu)
    else:
        Path("/sys/bus/pci/devices", edu, "remove").write_text("1")
    thread.join(5)
    assert len(ended) == 1
    with pytest.raises(pyuio.DeviceRemovedError):
        interrupt.read(0)
    if end == "remove":
        for use in (lambda: device.config.vendor_id, device.config.bars, lambda: device.bar(0)):
            with pytest.raises(pyuio.DeviceRemovedError):
                use()
    device.close()
    if end == "unbind":
        done.undo()
    else:
        Path("/sys/bus/pci/rescan").write_text("1")
    with pyuio.open(edu, bind=True) as again:
        card = Edu(again)
        card.raise_interrupt()
        assert again.interrupt.read(5) == 1
        card.acknowledge()


def test_a_descriptor_closed_under_it(bound: str) -> None:
    """In a process of its own, as what happens to the number afterwards is anybody's guess."""
    code = (
        "import os, sys, pyuio\n"
        "device = pyuio.open(sys.argv[1])\n"
        "os.close(device.interrupt.fileno())\n"
        "for use in (device.interrupt.read, device.interrupt.poll, lambda: device.interrupt.read(0)):\n"
        "    try: use()\n"
        "    except pyuio.ClosedError as error: print('closed by something else' in str(error))\n"
        "device.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, bound], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n" * 3, done.stderr


def test_bad_timeouts_change_nothing(interrupt: Interrupt) -> None:
    for wrong in (-1, -0.001, float("nan"), float("-inf")):
        for wait in (interrupt.read, interrupt.poll, lambda timeout: pyuio.wait([interrupt], timeout)):
            with pytest.raises(ValueError, match="0 or more seconds"):
                wait(wrong)
    for thing in ("1", b"1", [1]):
        with pytest.raises(TypeError, match="number of seconds"):
            interrupt.read(thing)  # type: ignore[arg-type]
    assert interrupt.masked
