# SPDX-License-Identifier: MIT
"""What the guest tests of edu's driver on QEMU's card, on the card in Python; and its faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.edu import EduCard

import pyuio
import pyuio.model
from pyuio.model import Complaint, clock
from tests.guest import test_bad_arguments
from tests.guest import test_edu as guest

SHARED: list[Callable[[Edu], object]] = [
    guest.test_identification,
    guest.test_liveness,
    guest.test_factorials,
    guest.test_factorial_after_a_stray_interrupt,
    guest.test_bad_factorials_never_reach_the_card,
    guest.test_waiting_without_an_interrupt,
    test_bad_arguments.test_the_driver_of_edu,
    test_bad_arguments.test_buffers,
    *(partial(test_bad_arguments.test_timeouts, way=way) for way in ("read", "readinto", "read_async", "poll")),
    lambda edu: test_bad_arguments.test_bars(edu.device),
    lambda edu: test_bad_arguments.test_services(edu.device),
]
DATA = bytes(range(256)) * 20


@pytest.fixture
def model() -> EduCard:
    return EduCard()


@pytest.fixture
def edu(model: EduCard) -> Iterator[Edu]:
    with Edu(pyuio.model.open(model)) as opened:
        yield opened


@pytest.mark.parametrize("test", SHARED)
def test_as_in_the_guest(edu: Edu, test: Callable[[Edu], object]) -> None:
    test(edu)


@pytest.mark.parametrize("by_interrupt", [False, True])
def test_transfers(edu: Edu, by_interrupt: bool) -> None:
    """More than the card's memory holds goes in several transfers, each over the one before."""
    edu.to_device(DATA, by_interrupt=by_interrupt)
    assert edu.from_device(4095, by_interrupt=by_interrupt) == DATA[4095:] + DATA[len(DATA) - 4095 : 4095]
    with edu.device.dma.alloc(100) as buffer:
        buffer[:] = DATA[:100]
        edu.to_device(buffer, 1000, by_interrupt=by_interrupt)
    assert edu.from_device(100, 1000) == DATA[:100]
    assert edu.from_device(0) == b""


def test_is_left_quiet(model: EduCard, edu: Edu) -> None:
    edu.registers.status.interrupt_after_factorial = True
    edu.raise_interrupt(0xFF)
    edu.close()
    assert model.regs.interrupt_status.read() == 0
    assert model.regs.status.read() == 0
    with Edu(pyuio.model.open(model)):
        pass


def test_is_left_quiet_after_a_transfer_that_never_ends(model: EduCard, edu: Edu) -> None:
    model.faults.fail_transfer(1)
    edu.registers.status.interrupt_after_factorial = True
    edu.raise_interrupt(0xFF)
    with pytest.raises(pyuio.DeviceTimeoutError):
        edu.to_device(b"x", timeout=0.2)
    with pytest.raises(pyuio.DeviceTimeoutError):
        edu.close()
    assert edu.device.closed
    assert model.regs.interrupt_status.read() == 0
    assert not model.regs.status.interrupt_after_factorial


def test_an_interrupt_that_never_ends_is_a_timeout(model: EduCard, edu: Edu) -> None:
    """The card does not show the bit that it raised, so the driver cannot clear it: the line stays asserted."""
    model.faults.stick("interrupt_status", 0, 0)
    with pytest.raises(pyuio.DeviceTimeoutError, match="none of them had bit 0x1"):
        edu.factorial_by_interrupt(5, timeout=0.01)
    model.faults.clear()
    model.faults.stick("interrupt_status", 8, 0)
    with pytest.raises(pyuio.DeviceTimeoutError, match="none of them had bit 0x100"):
        edu.to_device(b"x", by_interrupt=True, timeout=0.11)
    edu.acknowledge()
    assert not model.raised


@pytest.mark.parametrize("by_interrupt", [False, True])
def test_the_interrupt_of_a_transfer_that_timed_out(model: EduCard, edu: Edu, by_interrupt: bool) -> None:
    """It comes when nobody waits for it any more, and is acknowledged before the next transfer."""
    edu.to_device(b"abc")
    for _ in range(2):
        with pytest.raises(pyuio.DeviceTimeoutError):
            edu.to_device(b"xyz", by_interrupt=True, timeout=0.05)
        assert edu.from_device(3, by_interrupt=by_interrupt) == b"xyz"
        assert edu.interrupt_status() == 0
        assert not model.raised


def test_no_card_of_the_kind(model: EduCard) -> None:
    model.faults.stick("identification", 0, 0)
    with pyuio.model.open(model) as device:
        with pytest.raises(pyuio.UnsupportedDeviceError, match="identifies itself as 0x010000ec"):
            Edu(device)
        with pytest.raises(ValueError, match="0x010000ec"):  # as programs may have caught it
            Edu(device)


def test_time_is_virtual(edu: Edu) -> None:
    start = clock.monotonic()
    edu.to_device(b"x", by_interrupt=True)
    assert 0.1 <= clock.monotonic() - start < 0.11
    with pytest.raises(pyuio.DeviceTimeoutError):
        edu.wait_for_interrupt(3600)
    assert clock.monotonic() - start > 3600


def test_the_card_checks_a_transfer(model: EduCard, edu: Edu) -> None:
    """QEMU would end, and the guest with it."""
    with edu.device.dma.alloc(64) as buffer:
        edu.registers.dma_source.write(buffer.address)
        edu.registers.dma_destination.write(0x41000)
        edu.registers.dma_count.write(1)
        edu.registers.dma_command.start = True
        with pytest.raises(Complaint, match="1 bytes at 0x41000 is not inside the card's memory"):
            clock.sleep(1)
    model.regs.dma_command.start = False


class ClosedAmidAWait(Edu):
    """A driver whose device somebody closes while it waits."""

    def wait_for_interrupt(self, timeout: float | None = None) -> int:
        self.device.close()
        return super().wait_for_interrupt(timeout)


def test_the_error_that_ended_a_wait_is_the_one_that_is_raised(model: EduCard) -> None:
    """And not that of the register by which the driver then stops the card."""
    card = ClosedAmidAWait(pyuio.model.open(model))
    with pytest.raises(pyuio.ClosedError, match=" is closed") as caught:
        card.factorial_by_interrupt(5)
    assert "BAR" not in str(caught.value)
    card.unless_gone(card.quiet)


def test_what_cannot_be_stopped(model: EduCard) -> None:
    with Edu(pyuio.model.open(model)) as card:
        card.raise_interrupt()
        card.unless_gone(card.quiet)
        assert model.regs.interrupt_status.read() == 0
        other = Edu(pyuio.model.open(EduCard()))
        other.close()
        with pytest.raises(pyuio.ClosedError):
            card.unless_gone(other.quiet)  # this card is open, so the error says something
        with pytest.raises(ZeroDivisionError):
            card.unless_gone(lambda: 1 // 0)
        card.device.close()
        card.unless_gone(lambda: 1 // 0)
