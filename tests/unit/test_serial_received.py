# SPDX-License-Identifier: MIT
"""What the line status and the bytes of a 16550 become: data sheet PC16550D, section 8.4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyuio_drivers.serial_line import divisor_for
from pyuio_drivers.serial_received import (
    BREAK,
    DATA_READY,
    FRAMING_ERROR,
    OVERRUN,
    PARITY_ERROR,
    LineError,
    Received,
)

TRANSMITTER_EMPTY = 0x60


def everything(received: Received, size: int = 1000) -> list[bytes | int]:
    """What readers get: bytes, and the status of each error."""
    found: list[bytes | int] = []
    while received.waiting or received.error_next:
        taken = bytearray()
        try:
            received.take(taken, size)
            found.append(bytes(taken))
        except LineError as error:
            found.append(error.status)
    return found


def test_each_error_has_its_reason_and_its_place() -> None:
    received = Received("port")
    readings = [(0, 1), (PARITY_ERROR, 2), (0, 3), (FRAMING_ERROR | PARITY_ERROR, 4), (BREAK | FRAMING_ERROR, 0)]
    received.add((DATA_READY | TRANSMITTER_EMPTY | status, byte) for status, byte in readings)
    assert everything(received) == [b"\1", PARITY_ERROR, b"\3", FRAMING_ERROR | PARITY_ERROR, BREAK]


def test_an_overrun_is_after_what_was_in_the_fifo() -> None:
    received = Received("port")
    received.add([(DATA_READY | OVERRUN, 5), (DATA_READY, 6), (TRANSMITTER_EMPTY, 0)])
    received.add([(DATA_READY, 7)])
    assert everything(received) == [b"\5\6", OVERRUN, b"\7"]
    received.add([(OVERRUN, 0)])
    assert everything(received) == [OVERRUN]
    received.add([(DATA_READY, 1), (DATA_READY | PARITY_ERROR | OVERRUN, 2)])
    assert everything(received) == [b"\1", PARITY_ERROR, OVERRUN]


@pytest.mark.parametrize(
    ("status", "says"),
    [(PARITY_ERROR, "port: parity error"), (FRAMING_ERROR | PARITY_ERROR, "port: parity error: .*; framing error: ")],
)
def test_a_damaged_byte_is_in_the_error(status: int, says: str) -> None:
    received = Received("port")
    received.add([(DATA_READY | status, 0x41)])
    with pytest.raises(LineError, match=says) as info:
        received.take(bytearray(), 1)
    assert info.value.data == b"A"
    assert info.value.status == status
    assert isinstance(info.value, OSError)


def test_a_break_that_is_told_of_with_a_byte_before_it() -> None:
    """QEMU's way."""
    received = Received("port")
    for status, byte in ((0, 0), (BREAK, 1), (0, 2), (0, 0), (0, 0), (0, 3)):
        received.add([(DATA_READY | status, byte)])
    assert everything(received) == [b"\0\1\2", BREAK, b"\0\3"]


def test_clear() -> None:
    received = Received("port")
    received.add([(DATA_READY | BREAK, 1)])
    received.clear()
    received.add([(DATA_READY, 0)])
    assert everything(received) == [b"\0"]


@given(st.lists(st.lists(st.tuples(st.sampled_from([0, PARITY_ERROR, OVERRUN]), st.integers(0, 255)), max_size=16)))
def test_no_byte_is_lost_or_moved(interrupts: list[list[tuple[int, int]]]) -> None:
    expected: list[int] = []  # bytes, and errors as numbers above 255
    for readings in interrupts:
        expected += [byte if not status & PARITY_ERROR else PARITY_ERROR << 8 for status, byte in readings]
        if any(status & OVERRUN for status, _ in readings):
            expected.append(OVERRUN << 8)
    for size in (1, 3, 1000):
        received = Received("port")
        for readings in interrupts:
            received.add((DATA_READY | status, byte) for status, byte in readings)
        found: list[int] = []
        for item in everything(received, size):
            found += [item << 8] if isinstance(item, int) else item
        assert found == expected


@pytest.mark.parametrize(("baudrate", "divisor"), [(115200, 1), (57600, 2), (9600, 12), (50, 2304), (3600, 32)])
def test_divisors_of_the_data_sheet(baudrate: int, divisor: int) -> None:
    assert divisor_for(baudrate) == divisor


@pytest.mark.parametrize("baudrate", [0, -1, 1, 100_000, 230_400])
def test_a_rate_that_the_clock_does_not_make(baudrate: int) -> None:
    with pytest.raises(ValueError, match=f"not to {baudrate}"):
        divisor_for(baudrate)
