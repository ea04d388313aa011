# SPDX-License-Identifier: MIT
"""The line of a 16550 serial port: speed, format, and the modem's wires, as attributes with pyserial's names."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

from pyuio_drivers.serial16550_registers import DivisorLatch, Parity, Serial16550Registers

from pyuio.region import PortRegion, Region

CLOCK = 1_843_200  # Hz; with a divisor of 1 it gives 115200 baud, PC16550D section 8.3
BAUD_TOLERANCE = 0.02

_PARITIES = {"N": Parity.NONE, "O": Parity.ODD, "E": Parity.EVEN, "M": Parity.MARK, "S": Parity.SPACE}


class Line:
    """Speed, format and wires of a serial port; a part of `Serial16550`.

    Attributes:
        bar: BAR 0.
        registers: its registers by name.
    """

    bar: Region | PortRegion
    registers: Serial16550Registers
    _baudrate = 9600

    @abstractmethod
    def _stopped(self) -> AbstractContextManager[None]:
        """Return a context manager that keeps everybody else from the registers."""

    @property
    def baudrate(self) -> int:
        """Bits a second, up to 115200. ValueError: the port's clock has no divisor for it."""
        return self._baudrate

    @baudrate.setter
    def baudrate(self, baudrate: int) -> None:
        divisor_for(baudrate)  # raises before anything has changed
        # The service reads RBR at an interrupt, and would take the divisor in its place for a byte received.
        with self._stopped():
            self._set_divisor(baudrate)

    def _set_divisor(self, baudrate: int) -> None:
        divisor, latch = divisor_for(baudrate), DivisorLatch(self.bar)
        self.registers.lcr.dlab = True
        latch.dll.write(divisor & 0xFF)
        latch.dlm.write(divisor >> 8)
        self.registers.lcr.dlab = False
        self._baudrate = baudrate

    @property
    def bytesize(self) -> int:
        """Bits in a byte, 5 to 8."""
        return self.registers.lcr.wls + 5

    @bytesize.setter
    def bytesize(self, bits: int) -> None:
        if bits not in (5, 6, 7, 8):
            raise ValueError(f"a byte has 5 to 8 bits, not {bits}")
        self.registers.lcr.wls = bits - 5

    @property
    def parity(self) -> str:
        """As in pyserial: "N" for none, "E" even, "O" odd, "M" mark or "S" space."""
        parity = self.registers.lcr.parity
        return next((letter for letter, value in _PARITIES.items() if value == parity), "N")

    @parity.setter
    def parity(self, parity: str) -> None:
        if parity not in _PARITIES:
            raise ValueError(f"parity is one of {', '.join(_PARITIES)}, not {parity!r}")
        self.registers.lcr.parity = _PARITIES[parity]

    @property
    def stopbits(self) -> float:
        """1 or 2; 1 or 1.5 with a `bytesize` of 5."""
        more = self.registers.lcr.stb
        return 1 if not more else 1.5 if self.bytesize == 5 else 2

    @stopbits.setter
    def stopbits(self, stopbits: float) -> None:
        more = 1.5 if self.bytesize == 5 else 2
        if stopbits not in (1, more):
            raise ValueError(f"with {self.bytesize} bits in a byte, stopbits is 1 or {more}, not {stopbits}")
        self.registers.lcr.stb = stopbits == more

    def character_time(self) -> float:
        """Return the seconds that a byte takes on the line."""
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self._baudrate

    @property
    def break_condition(self) -> bool:
        """Whether the line is held at 0."""
        return self.registers.lcr.set_break

    @break_condition.setter
    def break_condition(self, on: bool) -> None:
        self.registers.lcr.set_break = bool(on)

    @property
    def rts(self) -> bool:
        """Whether the RTS output, request to send, is on."""
        return self.registers.mcr.rts

    @rts.setter
    def rts(self, on: bool) -> None:
        self.registers.mcr.rts = bool(on)

    @property
    def dtr(self) -> bool:
        """Whether the DTR output, data terminal ready, is on."""
        return self.registers.mcr.dtr

    @dtr.setter
    def dtr(self, on: bool) -> None:
        self.registers.mcr.dtr = bool(on)

    @property
    def loopback(self) -> bool:
        """Whether the port receives what it sends, and sends nothing to the line, PC16550D section 8.8."""
        return self.registers.mcr.loop

    @loopback.setter
    def loopback(self, on: bool) -> None:
        self.registers.mcr.loop = bool(on)

    # MSR is read as a snapshot, because reading it clears its change bits.

    @property
    def cts(self) -> bool:
        """Whether the CTS input, clear to send, is on."""
        return self.registers.msr.snapshot().cts

    @property
    def dsr(self) -> bool:
        """Whether the DSR input, data set ready, is on."""
        return self.registers.msr.snapshot().dsr

    @property
    def ri(self) -> bool:
        """Whether the RI input, ring indicator, is on."""
        return self.registers.msr.snapshot().ri

    @property
    def cd(self) -> bool:
        """Whether the DCD input, data carrier detect, is on."""
        return self.registers.msr.snapshot().dcd


def divisor_for(baudrate: int) -> int:
    """Return the divisor for a baud rate, PC16550D section 8.3. ValueError: none gives the rate within 2 %."""
    divisor = round(CLOCK / 16 / baudrate) if baudrate > 0 else 0
    if not 1 <= divisor <= 0xFFFF or abs(CLOCK / 16 / divisor / baudrate - 1) > BAUD_TOLERANCE:
        raise ValueError(f"the port divides its clock to 2 to 115200 baud, by a whole number: not to {baudrate}")
    return divisor
