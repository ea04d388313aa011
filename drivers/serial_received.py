# SPDX-License-Identifier: MIT
"""What a serial port has received and nobody has read yet: bytes, and the errors between them, in their order.

A "section" named below is in the data sheet of the 16550, PC16550D.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable

from pyuio_drivers.serial16550_registers import LineStatus

from pyuio import PyuioError

# Bits of LSR, section 8.4, as masks: each byte received goes through here.
DATA_READY = LineStatus.dr.mask
OVERRUN = LineStatus.oe.mask
PARITY_ERROR = LineStatus.pe.mask
FRAMING_ERROR = LineStatus.fe.mask
BREAK = LineStatus.bi.mask

ERRORS = {
    OVERRUN: "overrun: bytes came that the port had no room for",
    PARITY_ERROR: "parity error: a byte came with the wrong parity",
    FRAMING_ERROR: "framing error: a byte came without a stop bit",
    BREAK: "break: the line was held at 0 for longer than a byte takes",
}


class LineError(PyuioError, OSError):
    """The port reports an error of the line (errno EIO). The bytes before and after it are not affected.

    Attributes:
        status: the bits of the line status register that say which error: `OVERRUN`, `PARITY_ERROR`, `FRAMING_ERROR`,
            `BREAK`.
        data: the damaged byte of a parity or framing error; else b"".
    """

    status = 0
    data = b""


class Received:
    """Bytes and errors in the order in which they came.

    Args:
        name: of the port, for messages of errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._items: deque[bytearray | LineError] = deque()
        self._break_to_come = False

    def add(self, readings: Iterable[tuple[int, int]]) -> None:
        """Add what was taken from the port's FIFO at one interrupt: the line status before each byte, and the byte.

        The first status without DR ends it; its byte is ignored.
        """
        overrun = 0
        for status, byte in readings:
            overrun |= status & OVERRUN
            if not status & DATA_READY:
                break
            self._add_byte(status, byte)
        # The byte that found no room came after those in the FIFO.
        self._add_error(overrun)

    def _add_byte(self, status: int, byte: int) -> None:
        # A break comes with a byte of 0. QEMU reports it too early, with a byte that came before.
        if status & BREAK and byte:
            self._break_to_come = True
            status &= ~BREAK
        elif self._break_to_come and not byte:
            self._break_to_come = False
            status |= BREAK
        if status & BREAK:  # not a byte; its framing error is no error of its own
            self._add_error(BREAK)
        elif errors := status & (PARITY_ERROR | FRAMING_ERROR):
            self._add_error(errors, bytes([byte]))
        else:
            if not self._items or isinstance(self._items[-1], LineError):
                self._items.append(bytearray())
            last = self._items[-1]
            assert isinstance(last, bytearray)
            last.append(byte)

    def lost(self, reason: str) -> None:
        """Add an error that says that bytes were lost after they had been taken from the port."""
        self._add_error(OVERRUN, reason=reason)

    def _add_error(self, status: int, data: bytes = b"", reason: str = "") -> None:
        if not status:
            return
        reason = reason or "; ".join(text for bit, text in ERRORS.items() if status & bit)
        error = LineError(errno.EIO, f"{self._name}: {reason} (line status {status:#04x})")
        error.status, error.data = status, data
        self._items.append(error)

    def take(self, taken: bytearray, size: int) -> None:
        """Move bytes to `taken` until it has `size` or an error is next. LineError: the error, if `taken` is empty."""
        while self._items and len(taken) < size:
            first = self._items[0]
            if isinstance(first, LineError):
                if taken:
                    return
                self._items.popleft()
                raise first
            count = size - len(taken)
            taken += first[:count]
            del first[:count]
            if not first:
                self._items.popleft()

    @property
    def error_next(self) -> bool:
        """Whether `take` raises an error next."""
        return bool(self._items) and isinstance(self._items[0], LineError)

    @property
    def waiting(self) -> int:
        """The number of bytes, without errors."""
        return sum(len(item) for item in self._items if isinstance(item, bytearray))

    def clear(self) -> None:
        """Drop all bytes and errors."""
        self._items.clear()
        self._break_to_come = False
