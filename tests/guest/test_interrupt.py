# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio import binding
from pyuio.interrupt import Interrupt
from pyuio.sysfs import PCI_DRIVERS
from tests.guest.support import PCI_TESTDEV, Cards, command_register

INTERRUPT_DISABLE = 1 << 10


@pytest.fixture
def interrupt(device: pyuio.Device) -> Interrupt:
    return device.interrupt


def masked_outside(card: Edu) -> bool:
    return bool(command_register(str(card.device.address)) & INTERRUPT_DISABLE)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.001)


@pytest.fixture
def later() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Runs something in another thread; the test ends with all of them joined."""
    threads = []

    def start(what: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=what)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_starts_masked_with_nothing_pending(card: Edu, interrupt: Interrupt) -> None:
    assert interrupt.masked
    assert masked_outside(card)
    assert not interrupt.pending
    assert interrupt.total == 0


def test_a_read_returns_the_count(card: Edu, interrupt: Interrupt) -> None:
    card.raise_interrupt()
    assert interrupt.read(1) == 1
    card.acknowledge()
    assert interrupt.total == 1


def test_counts_what_came_since_the_last_read(card: Edu, interrupt: Interrupt) -> None:
    for _ in range(5):
        interrupt.unmask()
        card.raise_interrupt()
        wait_until(lambda: masked_outside(card))
        card.acknowledge()
    assert interrupt.read() == 5
    assert interrupt.total == 5


def test_what_came_before_opening_is_not_counted(edu: str) -> None:
    binding_done = binding.bind(edu)
    try:
        with Edu.open(edu) as card:
            card.device.interrupt.unmask()
            card.raise_interrupt()
            wait_until(lambda: masked_outside(card))
        with pyuio.open(edu) as device:
            assert device.uio.event_count >= 1
            assert not device.interrupt.pending
            with pytest.raises(BlockingIOError):
                device.interrupt.read(0)
    finally:
        binding_done.undo()


def test_pending_is_returned_at_once_and_stays_masked(card: Edu, interrupt: Interrupt) -> None:
    interrupt.unmask()
    card.raise_interrupt()
    wait_until(lambda: interrupt.pending)
    assert interrupt.masked
    assert interrupt.read() == 1
    assert masked_outside(card)
    card.acknowledge()


def test_unmasked_while_a_read_blocks(card: Edu, interrupt: Interrupt, later: Callable[..., threading.Thread]) -> None:
    counts: list[int] = []
    thread = later(lambda: counts.append(interrupt.read(10)))
    wait_until(lambda: not masked_outside(card))
    card.raise_interrupt()
    thread.join(10)
    assert counts == [1]
    assert masked_outside(card)
    card.acknowledge()


def test_an_interrupt_pending_at_the_card_when_unmasking_is_delivered(card: Edu, interrupt: Interrupt) -> None:
    for _ in range(200):
        card.raise_interrupt()
        assert masked_outside(card)
        assert interrupt.read(2) == 1
        card.acknowledge()


def test_not_acknowledged_it_comes_again_once_per_wait(card: Edu, interrupt: Interrupt) -> None:
    card.raise_interrupt()
    for _ in range(10):
        assert interrupt.read(1) == 1
        time.sleep(0.01)
        assert not interrupt.pending
    card.acknowledge()
    assert interrupt.total == card.device.uio.event_count == 10


def test_non_blocking_raises_and_leaves_it_unmasked(card: Edu, interrupt: Interrupt) -> None:
    with pytest.raises(pyuio.WouldBlockError) as caught:
        interrupt.read(0)
    assert isinstance(caught.value, BlockingIOError)
    assert not masked_outside(card)


def test_a_timeout_raises_and_leaves_it_unmasked(card: Edu, interrupt: Interrupt) -> None:
    with pytest.raises(TimeoutError, match=f"{card.device.address}: no interrupt came within 0.05 s"):
        interrupt.read(0.05)
    assert not masked_outside(card)


def test_poll_leaves_it_for_read(card: Edu, interrupt: Interrupt) -> None:
    assert not interrupt.poll(0.01)
    assert not masked_outside(card)
    card.raise_interrupt()
    assert interrupt.poll(1)
    assert interrupt.poll()
    assert interrupt.read() == 1
    card.acknowledge()


def test_the_descriptor_is_armed_once_drained(card: Edu, interrupt: Interrupt) -> None:
    for _ in range(10):
        with pytest.raises(BlockingIOError):
            interrupt.read(0)
        card.raise_interrupt()
        assert select.select([interrupt], [], [], 1)[0] == [interrupt]
        assert interrupt.read(0) == 1
        card.acknowledge()


def test_iteration_gives_the_counts(card: Edu, interrupt: Interrupt) -> None:
    card.raise_interrupt()
    for number, count in enumerate(interrupt, start=1):
        assert count == 1
        card.acknowledge()
        if number == 20:
            break
        card.raise_interrupt()


def test_1000_interrupts_none_lost(card: Edu, interrupt: Interrupt) -> None:
    for number in range(1000):
        card.raise_interrupt(1 << number % 32)
        assert interrupt.read(1) == 1
        assert card.interrupt_status() == 1 << number % 32
        card.acknowledge()
    assert interrupt.total == card.device.uio.event_count == 1000


def test_1000_interrupts_from_another_thread(
    card: Edu, interrupt: Interrupt, later: Callable[..., threading.Thread]
) -> None:
    """Raised at full speed: several may be one interrupt, but no status bit is missed and no count."""
    raised = 1000
    seen: list[int] = []

    def raise_all() -> None:
        for number in range(raised):
            while card.interrupt_status() & 1 << number % 32:
                time.sleep(0)
            card.raise_interrupt(1 << number % 32)

    later(raise_all)
    while len(seen) < raised:
        interrupt.read(5)
        bits = card.interrupt_status()
        card.acknowledge(bits)
        seen += [bit for bit in range(32) if bits >> bit & 1]
    assert interrupt.total == card.device.uio.event_count
    assert all(seen.count(bit) == len(range(bit, raised, 32)) for bit in range(32))


def test_closing_ends_a_blocked_read(device: pyuio.Device, later: Callable[..., threading.Thread]) -> None:
    interrupt = device.interrupt
    address = str(device.address)
    ended: list[BaseException] = []

    def read() -> None:
        try:
            interrupt.read()
        except pyuio.ClosedError as error:
            ended.append(error)

    threads = [later(read) for _ in range(3)]
    wait_until(lambda: not command_register(address) & INTERRUPT_DISABLE)
    device.close()
    for thread in threads:
        thread.join(10)
    assert len(ended) == 3


def test_closing_leaves_it_masked(edu: str) -> None:
    done = binding.bind(edu)
    try:
        with pyuio.open(edu) as device:
            device.interrupt.unmask()
            assert not command_register(edu) & INTERRUPT_DISABLE
        assert command_register(edu) & INTERRUPT_DISABLE
    finally:
        done.undo()


def test_unbinding_ends_a_blocked_read(edu: str, later: Callable[..., threading.Thread]) -> None:
    device = pyuio.open(edu, bind=True)
    interrupt = device.interrupt
    ended: list[BaseException] = []

    def read() -> None:
        try:
            interrupt.read()
        except pyuio.DeviceRemovedError as error:
            ended.append(error)

    thread = later(read)
    wait_until(lambda: not command_register(edu) & INTERRUPT_DISABLE)
    (PCI_DRIVERS / "uio_pci_generic/unbind").write_text(edu)
    thread.join(10)
    assert len(ended) == 1
    device.close()


def test_a_signal_handler_runs_and_the_wait_goes_on(card: Edu, interrupt: Interrupt) -> None:
    handled: list[int] = []

    def handler(number: int, frame: object) -> None:
        handled.append(number)
        if len(handled) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            card.raise_interrupt()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        assert interrupt.read(10) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(handled) == 3
    card.acknowledge()


def test_ctrl_c_ends_a_blocked_read(interrupt: Interrupt, later: Callable[..., threading.Thread]) -> None:
    def press() -> None:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    later(press)
    with pytest.raises(KeyboardInterrupt):
        interrupt.read()


def test_bad_timeouts(interrupt: Interrupt) -> None:
    for wrong in (-1, -0.001, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            interrupt.read(wrong)
    for thing in ("1", b"1", [1]):
        with pytest.raises(TypeError, match="number of seconds"):
            interrupt.read(thing)  # type: ignore[arg-type]
    assert interrupt.masked


def test_a_device_without_interrupt_says_so_at_once(cards: Cards) -> None:
    with pyuio.open(cards(PCI_TESTDEV)[0], bind=True) as device:
        with pytest.raises(pyuio.InterruptUnavailableError, match="has no interrupt"):
            _ = device.interrupt
        assert device.bar(0).size
