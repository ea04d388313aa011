# SPDX-License-Identifier: MIT
"""Memory for DMA stays where it is, whatever forks, migrates or interrupts; and who may not know where that is."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from pyuio_drivers.edu import DMA_BUFFER, Edu

import pyuio
from pyuio.dma import Dma
from pyuio.dma.pinned_page import PinnedPage
from pyuio.kernel.hugepages import hugepages
from tests.guest.support import Later, start_dma, wait_for_dma, wait_until


@pytest.mark.usefixtures("reachable")
def test_fork_during_a_transfer(card: Edu) -> None:
    """The child has neither the memory nor a copy of it, and nothing that it does reaches the transfer."""
    data = random.randbytes(64)
    card.to_device(data)
    buffer = card.device.dma.alloc(64)
    view = memoryview(buffer)
    for _ in range(5):
        buffer.zero()
        start_dma(card, DMA_BUFFER, buffer.address, 64, to_memory=True)
        child = os.fork()
        if child == 0:
            refused = 0
            try:
                view[:] = b"\xff" * 64  # of its own
                for use in (lambda: buffer.__setitem__(0, 1), lambda: card.device.dma.alloc(1)):
                    try:
                        use()
                    except pyuio.ClosedError:
                        refused += 1
            finally:
                os._exit(0 if refused == 2 else 1)
        buffer[63] = 0  # a write after the fork: were the page private, this would go to a copy
        outlasted_the_fork = card.registers.dma_command.start
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        wait_for_dma(card)
        buffer.verify()
        if outlasted_the_fork:
            assert bytes(buffer) == data
            return
    pytest.fail("no transfer took longer than a fork")


def soft_offline(address: int) -> int:
    """Have the kernel move a page away from a physical address; return 0 or the errno."""
    switch = Path("/sys/devices/system/memory/soft_offline_page")
    if not switch.exists():
        pytest.skip("this kernel cannot be told to move a page")
    try:
        switch.write_text(hex(address))
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("huge", [True, False])
def test_pages_do_not_move(device: pyuio.Device, huge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked to migrate it; and then again, when nothing holds it any more, which `verify` notices."""
    if not huge:
        monkeypatch.setattr("pyuio.kernel.hugepages.HugepageSize.change_overcommit", lambda self, more: False)
    hugepages()[0].change(2 * huge)  # one to be, one to move to
    try:
        buffer = device.dma.alloc(4096)
        buffer[:5] = b"stays"
        assert soft_offline(buffer.address)
        buffer.verify()
        assert bytes(buffer[:5]) == b"stays"
        assert isinstance(buffer.page, PinnedPage)
        buffer.page.unpin()
        assert soft_offline(buffer.address) == 0
        with pytest.raises(pyuio.DmaMovedError):
            buffer.verify()
    finally:
        device.close()
        monkeypatch.undo()
        hugepages()[0].change(-hugepages()[0].total)


@pytest.mark.usefixtures("reachable")
def test_switching_bus_mastering_disturbs_no_interrupt(card: Edu, later: Later) -> None:
    """Both are in the command register, which the kernel, a waiting thread and this one change at the same time."""
    ended = threading.Event()
    switched = 0

    def switch() -> None:
        nonlocal switched
        while not ended.is_set():
            card.device.dma.alloc(64).close()
            switched += 1

    later(switch)
    try:
        wait_until(lambda: switched > 0)
        before, interrupts = switched, 0
        while interrupts < 50 or switched == before:  # a busy machine may be slow to let the other thread run
            card.raise_interrupt()
            assert card.wait_for_interrupt(5.0) & 1
            interrupts += 1
    finally:
        ended.set()


def test_what_this_user_may_not_know(edu: str) -> None:
    """Without CAP_SYS_ADMIN pagemap shows frame 0, and nobody must take that for an address."""
    with pyuio.open(edu, bind=True) as device:
        child = os.fork()
        if child == 0:
            message = "none"
            try:
                os.setuid(65534)
                Dma("a card").alloc(64)
            except BaseException as error:
                message = f"{type(error).__name__}: {error}"
            os._exit(0 if message.startswith("PermissionDeniedError") and "CAP_SYS_ADMIN" in message else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert device.dma.alloc(64).address
