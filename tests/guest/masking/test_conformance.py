# SPDX-License-Identifier: MIT
"""The rows of the patch's semantics, on every kind of masking: each row has one test, named after it."""

from __future__ import annotations

import array
import errno
import os
import select
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.interrupt import Interrupt
from pyuio.kernel.hugepages import hugepages
from tests.guest.masking.conftest import VFIO_KINDS
from tests.guest.support import (
    BUS_MASTER,
    PATIENCE,
    Later,
    command_register,
    interrupts_of_line,
    raise_and_wait,
    wait_until,
)


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
    thread.join(PATIENCE)
    assert counts == [1]
    card.acknowledge()


def test_nonblocking_with_none_pending_would_block_and_leaves_it_unmasked(
    card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None
) -> None:
    with pytest.raises(BlockingIOError) as caught:
        interrupt.read(0)
    assert caught.value.errno == errno.EAGAIN
    assert is_masked is None or not is_masked()
    assert isinstance(caught.value, TimeoutError)  # as a deadline may have passed already
    with pytest.raises(TimeoutError) as late:
        interrupt.read(0.01)
    assert not isinstance(late.value, BlockingIOError)
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
        thread.join(PATIENCE)
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


def test_open_takes_the_interrupt_and_close_frees_it_masked(
    kind: str, bound: str, opened: Callable[[], pyuio.Device], is_masked: Callable[[], bool] | None
) -> None:
    for _ in range(3):
        with opened() as device:
            with pytest.raises(pyuio.DeviceBusyError):
                pyuio.open(bound)
            card = Edu(device)
            card.raise_interrupt()
            assert device.interrupt.read(5) == 1
            card.acknowledge()
            device.interrupt.unmask()
            assert is_masked is None or not is_masked()
        # VFIO restores what was there before.
        assert is_masked is None or is_masked() or kind in VFIO_KINDS


def test_it_says_what_it_is_and_uio_has_one_vector_at_most(kind: str, card: Edu, interrupt: Interrupt) -> None:
    assert interrupt.kind == ("MSI" if kind.endswith("-msi") else "INTx")
    if kind == "igb_uio-msi":
        assert card.device.most_vectors == 1
        assert card.device.vectors(1) == (interrupt,)
    elif kind not in VFIO_KINDS:
        assert card.device.most_vectors == 0
        with pytest.raises(pyuio.InterruptUnavailableError, match="bind='vfio-pci'"):
            card.device.vectors(1)


def test_an_interrupt_pending_at_the_moment_of_unmasking_is_delivered(
    card: Edu, interrupt: Interrupt, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(500):
        card.raise_interrupt()
        assert interrupt.read(5) == 1
        card.acknowledge()
    assert caplog.records == []


def test_a_level_interrupt_not_acknowledged_fires_again_once_a_wait(
    kind: str, card: Edu, interrupt: Interrupt, caplog: pytest.LogCaptureFixture
) -> None:
    """And a warning says so, once."""
    if kind.endswith("-msi"):  # an MSI is a message and not a level, so it does not fire again
        card.raise_interrupt()
        assert interrupt.read(5) == 1
        with pytest.raises(TimeoutError):
            interrupt.read(0.1)
        card.acknowledge()
        assert caplog.records == []
        return
    before = interrupts_of_line(str(card.device.address))
    card.raise_interrupt()
    for number in range(1, 31):
        assert interrupt.read(5) == 1
        card.interrupt_status()  # a read acknowledges nothing
        assert len(caplog.records) == (number > 17)
        time.sleep(0.005)
    card.acknowledge()
    assert "still asserted after each of the last 8 reads" in caplog.text
    assert interrupt.total == 30
    # Another device on the line could add its own; a storm would be thousands. VFIO looks at the level when it unmasks.
    assert (0 if kind in VFIO_KINDS else 30) <= interrupts_of_line(str(card.device.address)) - before < 60


def test_bad_timeouts_change_nothing(interrupt: Interrupt) -> None:
    for wrong in (-1, -0.001, float("nan"), float("-inf")):
        for wait in (interrupt.read, interrupt.poll, lambda timeout: pyuio.wait([interrupt], timeout)):
            with pytest.raises(ValueError, match="0 or more seconds"):
                wait(wrong)
    for thing in ("1", b"1", [1]):
        with pytest.raises(TypeError, match="number of seconds"):
            interrupt.read(thing)  # type: ignore[arg-type]
    assert interrupt.masked


def test_it_still_comes_when_the_last_buffer_for_dma_is_closed(
    kind: str, bound: str, opened: Callable[[], pyuio.Device]
) -> None:
    """A message is a write to memory, which needs bus mastering; a line does not."""
    before = (hugepages()[0].total, hugepages()[0].free)
    with opened() as device:
        card = Edu(device)
        card.device.dma.alloc(4096).close()
        assert bool(command_register(bound) & BUS_MASTER) == kind.endswith("-msi")
        card.raise_interrupt()
        assert device.interrupt.read(5) == 1
        card.acknowledge()
    assert not command_register(bound) & BUS_MASTER
    assert (hugepages()[0].total, hugepages()[0].free) == before
