# SPDX-License-Identifier: MIT
"""What of the interrupt does not depend on the way of masking. The rows of the patch are in kinds/."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pyuio_drivers.edu import Edu, EduRegisters

import pyuio
from pyuio.claim import binding
from pyuio.interrupt import Interrupt
from tests.guest.marks import on_x86
from tests.guest.support import (
    EDU,
    INTERRUPT_DISABLE,
    PCI_TESTDEV,
    Cards,
    attribute,
    command_register,
    forked,
    interrupts_of_line,
    kernel_count,
    wait_until,
)


@pytest.fixture
def interrupt(device: pyuio.Device) -> Interrupt:
    return device.interrupt


@pytest.fixture
def pair(cards: Cards) -> Iterator[list[Edu]]:
    """Two edu cards on one interrupt line."""
    if len(cards(EDU)) < 2:
        pytest.skip("one edu card only")
    with ExitStack() as stack:
        both = [stack.enter_context(Edu.open(address)) for address in cards(EDU)[:2]]
        lines = [attribute(str(card.device.address), "irq") for card in both]
        assert lines[0] == lines[1], "the guest should put both cards on one line"
        yield both


def test_starts_masked_with_nothing_pending(device: pyuio.Device) -> None:
    assert device.interrupt.masked
    assert command_register(str(device.address)) & INTERRUPT_DISABLE
    assert not device.interrupt.pending
    assert device.interrupt.total == 0
    assert repr(device.interrupt).endswith("masked by the command register, 0 read>")


def test_what_came_before_opening_is_not_counted(edu: str) -> None:
    done = binding.bind(edu)
    try:
        with Edu.open(edu) as card:
            card.device.interrupt.unmask()
            card.raise_interrupt()
            wait_until(lambda: card.device.interrupt.pending)
        with pyuio.open(edu) as device:
            assert kernel_count(device) >= 1
            assert not device.interrupt.pending
            with pytest.raises(BlockingIOError):
                device.interrupt.read(0)
    finally:
        done.undo()


def test_iteration_gives_the_counts(card: Edu, interrupt: Interrupt) -> None:
    card.raise_interrupt()
    for number, count in enumerate(interrupt, start=1):
        assert count == 1
        card.acknowledge()
        if number == 20:
            break
        card.raise_interrupt()


def test_two_cards_on_one_line_each_count_their_own(pair: list[Edu]) -> None:
    first, second = pair
    before = interrupts_of_line(str(first.device.address))
    for number in range(100):
        card = pair[number % 2]
        card.raise_interrupt()
        assert pyuio.wait([first.device.interrupt, second.device.interrupt], 5) == [card.device.interrupt]
        assert card.device.interrupt.read(0) == 1
        card.acknowledge()
    assert [card.device.interrupt.total for card in pair] == [50, 50]
    assert [kernel_count(card.device) for card in pair] == [50, 50]
    assert interrupts_of_line(str(first.device.address)) - before < 200


def test_one_card_not_acknowledged_does_not_stop_the_other(pair: list[Edu]) -> None:
    first, second = pair
    first.raise_interrupt()
    assert first.device.interrupt.read(5) == 1
    for _ in range(20):
        second.raise_interrupt()
        assert second.device.interrupt.read(5) == 1
        second.acknowledge()
    # The kernel counts for a card that is masked and still raises its line when another on the line fires: its handler
    # asks the status register only (drivers/pci/pci.c, pci_check_and_mask_intx). Acknowledged, it counts its own again.
    first.acknowledge()
    if first.device.interrupt.pending:
        first.device.interrupt.read(0)
    second.raise_interrupt()
    assert second.device.interrupt.read(5) == 1
    second.acknowledge()
    assert not first.device.interrupt.pending


def test_select_over_two_cards_a_socket_and_a_timer(pair: list[Edu]) -> None:
    near, far = socket.socketpair()
    first, second = pair
    # A timer as a file, from the system: `sleep` ends and its pipe becomes readable.
    with near, far, subprocess.Popen(["sleep", "0.2"], stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None
        things: list[Any] = [first.device.interrupt, second.device.interrupt, near, sleeper.stdout]
        for interrupt in things[:2]:
            with pytest.raises(BlockingIOError):
                interrupt.read(0)
        second.raise_interrupt()
        assert select.select(things, [], [], 5)[0] == [second.device.interrupt]
        assert second.device.interrupt.read(0) == 1
        second.acknowledge()
        far.send(b"x")
        assert near in select.select(things, [], [], 5)[0]
        near.recv(1)
        assert select.select(things, [], [], 5)[0] == [sleeper.stdout]
        first.raise_interrupt()
        wait_until(lambda: first.device.interrupt.pending)
        assert select.select(things, [], [], 5)[0] == [first.device.interrupt, sleeper.stdout]
        first.device.interrupt.read(0)
        first.acknowledge()


def test_a_device_without_interrupt_says_so_at_once(cards: Cards) -> None:
    with pyuio.open(cards(PCI_TESTDEV)[0], bind=True) as device:
        with pytest.raises(pyuio.InterruptUnavailableError, match="poll a status register"):
            _ = device.interrupt
        assert device.bar(0).size


@on_x86  # elsewhere the kernel panics: edu refuses the byte that uio_cif reads, which is an abort
def test_a_kernel_driver_with_no_way_of_masking(edu: str) -> None:
    """uio_cif knows nothing of edu and acknowledges nothing: the line floods until the kernel disables it."""
    subprocess.run(["modprobe", "uio_cif"], check=True)
    done = binding.bind(edu, "hilscher")
    try:
        with pyuio.open(edu) as device:
            interrupt = device.interrupt
            assert repr(interrupt).endswith("masked not at all, 0 read>")
            interrupt.mask()
            assert not interrupt.masked
            EduRegisters(device.bar(0)).raise_interrupt.write(1)
            with pytest.raises(TimeoutError, match=r"has no irqcontrol.*'Disabling IRQ'.*bind uio_pci_generic"):
                interrupt.read(1)
    finally:
        done.undo()
    with Edu.open(edu) as card:  # the kernel enables the line anew for the next driver
        card.raise_interrupt()
        assert card.device.interrupt.read(5) == 1
        card.acknowledge()


def test_the_end_of_the_process_masks_nothing_and_the_next_one_copes(edu: str) -> None:
    """Killed while armed, a process leaves the line unmasked; whoever opens next starts from a clean slate."""
    done = binding.bind(edu)

    def program() -> None:
        device = pyuio.open(edu)
        device.interrupt.unmask()
        EduRegisters(device.bar(0)).raise_interrupt.write(1)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        assert forked(program).returncode == -signal.SIGKILL
        with pyuio.open(edu) as device:
            assert device.interrupt.masked
            card = Edu(device)  # acknowledges what the dead process raised
            with pytest.raises(BlockingIOError):
                device.interrupt.read(0)
            card.raise_interrupt()
            assert device.interrupt.read(5) == 1
            card.acknowledge()
    finally:
        done.undo()
