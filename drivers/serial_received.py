# SPDX-License-Identifier: MIT
"""What a serial port has received and nobody has read yet: bytes, and the errors between them, in their order."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable

from pyuio_drivers import serial16550_registers as uart

from pyuio import PyuioError


class LineError(PyuioError, OSError):
    """The port reports an error of the line (errno EIO). The bytes before and after it are not affected.

    Attributes:
        status: the bits of the line status register, section 8.4, that say what it was.
        data: the damaged byte of a parity or framing error; else b"".
    """

    status = 0
    data = b""


class Received:
    """Bytes and errors in the order in which they came.

    Args:
        name: what errors call the port.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._items: deque[bytearray | LineError] = deque()
        self._break_to_come = False

    def add(self, readings: Iterable[tuple[int, int]]) -> None:
        """Add what was taken from the port's FIFO in one go: each byte, with the line status before it, section 8.4.

        It ends with the first status that tells of no byte.
        """
        overrun = 0
        for status, byte in readings:
            overrun |= status & uart.OVERRUN
            if not status & uart.DATA_READY:
                break
            self._add_byte(status, byte)
        # What found no room came after all that was in the FIFO.
        self._add_error(overrun)

    def _add_byte(self, status: int, byte: int) -> None:
        # A break is a byte of 0. QEMU tells of it too early, with a byte that came before.
        if status & uart.BREAK and byte:
            self._break_to_come = True
            status &= ~uart.BREAK
        elif self._break_to_come and not byte:
            self._break_to_come = False
            status |= uart.BREAK
        if status & uart.BREAK:  # which is no byte, and has no stop bit
            self._add_error(uart.BREAK)
        elif errors := status & (uart.PARITY_ERROR | uart.FRAMING_ERROR):
            self._add_error(errors, bytes([byte]))
        else:
            if not self._items or isinstance(self._items[-1], LineError):
                self._items.append(bytearray())
            last = self._items[-1]
            assert isinstance(last, bytearray)
            last.append(byte)

    def lost(self, reason: str) -> None:
        """Add that bytes were lost after they had been taken from the port."""
        self._add_error(uart.OVERRUN, reason=reason)

    def _add_error(self, status: int, data: bytes = b"", reason: str = "") -> None:
        if not status:
            return
        reason = reason or "; ".join(text for bit, text in uart.ERRORS.items() if status & bit)
        error = LineError(errno.EIO, f"{self._name}: {reason} (line status {status:#04x})")
        error.status, error.data = status, data
        self._items.append(error)

    def take(self, taken: bytearray, size: int) -> None:
        """Move bytes to `taken` until it has `size`, up to the next error, which is raised if `taken` is empty."""
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
        """Whether an error is next."""
        return bool(self._items) and isinstance(self._items[0], LineError)

    @property
    def waiting(self) -> int:
        """The number of bytes."""
        return sum(len(item) for item in self._items if isinstance(item, bytearray))

    def clear(self) -> None:
        """Forget all of it."""
        self._items.clear()
        self._break_to_come = False
