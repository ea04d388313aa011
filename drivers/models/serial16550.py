# SPDX-License-Identifier: MIT
"""A 16550 serial port in Python, for `pyuio_drivers.serial16550`: QEMU's ``pci-serial``, with the timing of a line.

The data sheet is National Semiconductor's PC16550D, June 1995; a "section" named below is in it. A byte takes its time
on the line. What the port sends is in `Serial16550Card.sent`, and `Serial16550Card.feed` sends it something.
"""

from __future__ import annotations

from collections import deque
from typing import ClassVar

from pyuio_drivers.serial16550_registers import (
    FIFO_SIZE,
    InterruptEnable,
    InterruptId,
    LineStatus,
    ModemStatus,
    Serial16550Registers,
)
from pyuio_drivers.serial_line import CLOCK

from pyuio.model import BarSpace, Card

_TRIGGERS = (1, 4, 8, 14)  # bytes, FCR bits 7 and 6, section 8.5
_ERRORS = LineStatus.pe.mask | LineStatus.fe.mask | LineStatus.bi.mask
_INPUTS = {"cts": ModemStatus.cts.mask, "dsr": ModemStatus.dsr.mask, "ri": ModemStatus.ri.mask}
_INPUTS["cd"] = ModemStatus.dcd.mask
BREAK = LineStatus.bi.mask | LineStatus.fe.mask
"""The errors that come with the byte 0 when the line is held at 0, section 8.4."""


class Serial16550Card(Card):
    """The serial port.

    Attributes:
        sent: the bytes that went out on the line.
        divisor: of the clock, which is 16 times the baud rate.
    """

    vendor, device, class_code, revision = 0x1B36, 0x0002, 0x070002, 1
    subsystem = (0x1AF4, 0x1100)
    bars: ClassVar = {0: BarSpace(8, ports=True)}
    registers: ClassVar = {0: Serial16550Registers}

    def reset(self) -> None:
        """Reset the port, section 8.0, table I; what is on the line stays."""
        super().reset()
        self.sent = bytearray()
        self.divisor = CLOCK // 16 // 9600
        self._enabled = 0  # IER
        self._fifos = False
        self._trigger = 1
        self._received: deque[tuple[int, int]] = deque()  # bytes, each with its errors
        self._overrun = False
        self._timed_out = 0  # counts; the last one that the driver has seen to
        self._timeout = False
        self._to_send: deque[int] = deque()
        self._sending = False
        self._thr_empty = False  # whether that interrupt is pending
        self._incoming: deque[tuple[int, int]] = deque()
        self._arriving = False
        self._wires = 0  # MSR bits 7 to 4, of the other end
        self._seen = 0  # MSR bits 7 to 4 at the last look for changes
        self._changes = 0  # MSR bits 3 to 0

    # ---- The other end of the line ----

    def feed(self, data: bytes, errors: int = 0) -> None:
        """Send bytes to the port, one after the other, at its own speed.

        Args:
            data: the bytes.
            errors: bits of LSR that come with each: parity error, framing error, or `BREAK`.
        """
        self._incoming.extend((byte, errors & _ERRORS) for byte in data)
        self._next_arrival()

    def set_wires(self, **wires: bool) -> None:
        """Switch inputs of the port on or off: ``cts``, ``dsr``, ``ri``, ``cd``."""
        for name, on in wires.items():
            self._wires = self._wires & ~_INPUTS[name] | (_INPUTS[name] if on else 0)
        self._look_at_wires()

    @property
    def character_time(self) -> float:
        """Seconds that a byte takes on the line; 0.0 if the divisor is 0, with which nothing is sent or received."""
        lcr = self.regs.lcr
        bits = 1 + lcr.wls + 5 + (lcr.parity & 1) + (2 if lcr.stb else 1)
        return float(bits * 16 * self.divisor / CLOCK)

    def _next_arrival(self) -> None:
        if self._incoming and not self._arriving and self.character_time:
            self._arriving = True
            self.after(self.character_time, self._arrive)

    def _arrive(self) -> None:
        self._arriving = False
        if not self.regs.mcr.loop:
            self._receive(*self._incoming.popleft())
        self._next_arrival()

    # ---- Receiver ----

    def _receive(self, byte: int, errors: int = 0) -> None:
        if len(self._received) >= (FIFO_SIZE if self._fifos else 1):
            self._overrun = True  # and the byte is lost, section 8.4
        else:
            self._received.append((byte & (1 << self.regs.lcr.wls + 5) - 1, errors))
        self._begin_timeout()
        self._update()

    def _begin_timeout(self) -> None:
        """Bytes that stay in the FIFO for four characters raise an interrupt, section 8.11."""
        self._timeout = False
        self._timed_out += 1
        number = self._timed_out

        def over() -> None:
            if number == self._timed_out and self._received and self._fifos:
                self._timeout = True
                self._update()

        self.after(4 * self.character_time, over)

    def on_read_rbr(self) -> int:
        """Take a byte out of the FIFO; or read the divisor."""
        if self.regs.lcr.dlab:
            return self.divisor & 0xFF
        byte = self._received.popleft()[0] if self._received else 0
        self._begin_timeout()
        self._update()
        return byte

    def on_read_lsr(self) -> int:
        """Read the line status, and clear its errors."""
        status = LineStatus.oe.mask if self._overrun else 0
        if any(errors for _, errors in self._received):
            status |= LineStatus.fifo_error.mask if self._fifos else 0
        if self._received:
            byte, errors = self._received[0]
            status |= LineStatus.dr.mask | errors
            self._received[0] = byte, 0
        if not self._to_send:
            status |= LineStatus.thre.mask | (0 if self._sending else LineStatus.temt.mask)
        self._overrun = False
        self._update()
        return status

    # ---- Transmitter ----

    def on_write_thr(self, byte: int) -> None:
        """Put a byte into the FIFO; or write the divisor."""
        if self.regs.lcr.dlab:
            self.divisor = self.divisor & 0xFF00 | byte
            return
        if len(self._to_send) >= (FIFO_SIZE if self._fifos else 1):
            self.complain(f"byte {byte:#04x} is written to THR while the transmitter is full: LSR.THRE says when not")
        self._to_send.append(byte)
        self._thr_empty = False
        self._next_byte()
        self._update()

    def _next_byte(self) -> None:
        """Move a byte from the FIFO to the shift register."""
        if not self._to_send or self._sending or not self.character_time:
            return
        self._sending = True
        byte = self._to_send.popleft()
        if not self._to_send:
            self._thr_empty = True
        self.after(self.character_time, lambda: self._finish_byte(byte))

    def _finish_byte(self, byte: int) -> None:
        self._sending = False
        if self.regs.mcr.loop:
            self._receive(byte)
        else:
            self.sent.append(byte)
        self._next_byte()
        self._update()

    # ---- Interrupts ----

    def on_read_ier(self) -> int:
        """Read IER, or the divisor."""
        return self.divisor >> 8 if self.regs.lcr.dlab else self._enabled

    def on_write_ier(self, value: int) -> None:
        """Enable interrupts, or write the divisor."""
        if self.regs.lcr.dlab:
            self.divisor = self.divisor & 0xFF | value << 8
            return
        before, self._enabled = self._enabled, value & 0x0F
        # Enabling the interrupt of an empty transmitter raises it at once if it is empty, section 8.11.
        if self._enabled & ~before & InterruptEnable.etbei.mask and not self._to_send:
            self._thr_empty = True
        self._update()

    def _pending(self) -> InterruptId:
        """Return what is pending and enabled, the highest priority first: section 8.6, table IV."""
        enabled = self._enabled
        if enabled & InterruptEnable.elsi.mask and (self._overrun or (self._received and self._received[0][1])):
            return InterruptId.RECEIVER_LINE_STATUS
        if enabled & InterruptEnable.erbfi.mask:
            if len(self._received) >= (self._trigger if self._fifos else 1):
                return InterruptId.RECEIVED_DATA_AVAILABLE
            if self._timeout:
                return InterruptId.CHARACTER_TIMEOUT
        if enabled & InterruptEnable.etbei.mask and self._thr_empty:
            return InterruptId.THR_EMPTY
        if enabled & InterruptEnable.edssi.mask and self._changes:
            return InterruptId.MODEM_STATUS
        return InterruptId.NONE

    def _update(self) -> None:
        """Assert the line as long as something is pending."""
        pending = self._pending() != InterruptId.NONE
        if pending and not self.raised:
            self.raise_interrupt()
        elif not pending and self.raised:
            self.lower_interrupt()

    def on_read_iir(self) -> int:
        """Say what is pending, and acknowledge an empty transmitter."""
        pending = self._pending()
        if pending == InterruptId.THR_EMPTY:
            self._thr_empty = False
            self._update()
        return int(pending) | (0xC0 if self._fifos else 0)

    # ---- FIFOs, line and modem ----

    def on_write_fcr(self, value: int) -> None:
        """Switch the FIFOs on or off, empty them, set the trigger: section 8.5."""
        enable = bool(value & 1)
        changed = enable != self._fifos
        self._fifos = enable
        self._trigger = _TRIGGERS[value >> 6]
        if changed or value & 2:
            self._received.clear()
            self._timeout = False
        if (changed or value & 4) and self._to_send:
            self._to_send.clear()
            self._thr_empty = True
        self._update()

    def on_write_lcr(self, value: int) -> None:
        """Go on with what waited for a divisor."""
        if not self.regs.lcr.dlab:
            self._next_byte()
            self._next_arrival()

    def on_write_mcr(self, value: int) -> None:
        """Switch outputs, which are the inputs in loopback: section 8.8."""
        self._look_at_wires()

    def _inputs(self) -> int:
        mcr = self.regs.mcr
        if not mcr.loop:
            return self._wires
        wires = {"cts": mcr.rts, "dsr": mcr.dtr, "ri": mcr.out1, "cd": mcr.out2}
        return sum(_INPUTS[name] for name, on in wires.items() if on)

    def _look_at_wires(self) -> None:
        before, self._seen = self._seen, self._inputs()
        changed = before ^ self._seen
        if self._seen & _INPUTS["ri"]:  # only its going off is told: section 8.9
            changed &= ~_INPUTS["ri"]
        self._changes |= changed >> 4
        self._update()

    def on_read_msr(self) -> int:
        """Read the inputs, and forget their changes."""
        status = self._seen | self._changes
        self._changes = 0
        self._update()
        return status
