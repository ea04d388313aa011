# SPDX-License-Identifier: MIT
"""The registers of a 16550, and what of them is the line: speed, format, and the modem's wires.

The data sheet is National Semiconductor's PC16550D, June 1995; "section" below is one of its.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

from pyuio.region import PortRegion, Region

# Registers of BAR 0: eight I/O ports of 8 bits each, section 8.0, table II.
RECEIVER_BUFFER = 0  # read only
TRANSMITTER_HOLDING = 0  # write only
DIVISOR_LOW, DIVISOR_HIGH = 0, 1  # in place of 0 and 1 while LINE_DIVISOR_ACCESS is set
INTERRUPT_ENABLE = 1
INTERRUPT_IDENTIFICATION = 2  # read only
FIFO_CONTROL = 2  # write only
LINE_CONTROL = 3
MODEM_CONTROL = 4
LINE_STATUS = 5
MODEM_STATUS = 6

# Bits of INTERRUPT_ENABLE, section 8.7.
ENABLE_RECEIVED = 0x01  # also that bytes wait in the FIFO for longer than four characters take
ENABLE_TRANSMITTER_EMPTY = 0x02
ENABLE_LINE_STATUS = 0x04
ENABLE_MODEM_STATUS = 0x08
ENABLE_ALL = 0x0F

# INTERRUPT_IDENTIFICATION, section 8.6, table IV. Reading it acknowledges IDENTIFIED_TRANSMITTER_EMPTY.
IDENTIFIED = 0x0F
IDENTIFIED_MODEM_STATUS = 0x00
IDENTIFIED_TRANSMITTER_EMPTY = 0x02
FIFOS_ENABLED = 0xC0

# Bits of FIFO_CONTROL, section 8.5.
FIFO_ENABLE = 0x01
FIFO_RESET_RECEIVER = 0x02
FIFO_RESET_TRANSMITTER = 0x04
FIFO_TRIGGER_14 = 0xC0  # an interrupt at 14 bytes received
FIFO_SIZE = 16

# Bits of LINE_CONTROL, section 8.1.
LINE_BITS = 0x03  # 5 to 8
LINE_TWO_STOP_BITS = 0x04  # one and a half with 5 bits
LINE_PARITY = {"N": 0x00, "O": 0x08, "E": 0x18, "M": 0x28, "S": 0x38}
LINE_BREAK = 0x40
LINE_DIVISOR_ACCESS = 0x80

# Bits of MODEM_CONTROL, section 8.8.
MODEM_DTR = 0x01
MODEM_RTS = 0x02
MODEM_OUT2 = 0x08  # lets the interrupt through on many boards
MODEM_LOOPBACK = 0x10

# Bits of LINE_STATUS, section 8.4. Reading it clears the errors.
DATA_READY = 0x01
OVERRUN = 0x02
PARITY_ERROR = 0x04
FRAMING_ERROR = 0x08
BREAK = 0x10
ERRORS = {
    OVERRUN: "overrun: bytes came that the port had no room for",
    PARITY_ERROR: "parity error: a byte came with the wrong parity",
    FRAMING_ERROR: "framing error: a byte came without a stop bit",
    BREAK: "break: the line was held at 0 for longer than a byte takes",
}

# Bits of MODEM_STATUS, section 8.9.
STATUS_CTS = 0x10
STATUS_DSR = 0x20
STATUS_RI = 0x40
STATUS_CD = 0x80

CLOCK = 1_843_200  # Hz: what makes a divisor of 1 115200 baud, section 8.3
BAUD_TOLERANCE = 0.02


class Line:
    """Speed, format and wires of a serial port; a part of `Serial16550`.

    Attributes:
        registers: BAR 0.
    """

    registers: Region | PortRegion
    _baudrate = 9600

    @abstractmethod
    def _stopped(self) -> AbstractContextManager[None]:
        """Return what keeps everybody else from the registers."""

    @property
    def baudrate(self) -> int:
        """Bits a second, up to 115200. ValueError: the port's clock has no divisor for it."""
        return self._baudrate

    @baudrate.setter
    def baudrate(self, baudrate: int) -> None:
        divisor_for(baudrate)  # or nothing changes
        # C must not take a divisor for a byte received.
        with self._stopped():
            self._set_divisor(baudrate)

    def _set_divisor(self, baudrate: int) -> None:
        divisor = divisor_for(baudrate)
        self.registers.set8(LINE_CONTROL, LINE_DIVISOR_ACCESS)
        self.registers.write8(DIVISOR_LOW, divisor & 0xFF)
        self.registers.write8(DIVISOR_HIGH, divisor >> 8)
        self.registers.clear8(LINE_CONTROL, LINE_DIVISOR_ACCESS)
        self._baudrate = baudrate

    @property
    def bytesize(self) -> int:
        """Bits in a byte, 5 to 8."""
        return (self.registers.read8(LINE_CONTROL) & LINE_BITS) + 5

    @bytesize.setter
    def bytesize(self, bits: int) -> None:
        if bits not in (5, 6, 7, 8):
            raise ValueError(f"a byte has 5 to 8 bits, not {bits}")
        self.registers.update8(LINE_CONTROL, LINE_BITS, bits - 5)

    @property
    def parity(self) -> str:
        """As pyserial has it: "N" for none, "E" even, "O" odd, "M" mark or "S" space."""
        bits = self.registers.read8(LINE_CONTROL) & LINE_PARITY["S"]
        return next((name for name, value in LINE_PARITY.items() if value == bits), "N")

    @parity.setter
    def parity(self, parity: str) -> None:
        if parity not in LINE_PARITY:
            raise ValueError(f"parity is one of {', '.join(LINE_PARITY)}, not {parity!r}")
        self.registers.update8(LINE_CONTROL, LINE_PARITY["S"], LINE_PARITY[parity])

    @property
    def stopbits(self) -> float:
        """1 or 2; 1 or 1.5 with a `bytesize` of 5."""
        two = self.registers.read8(LINE_CONTROL) & LINE_TWO_STOP_BITS
        return 1 if not two else 1.5 if self.bytesize == 5 else 2

    @stopbits.setter
    def stopbits(self, stopbits: float) -> None:
        more = 1.5 if self.bytesize == 5 else 2
        if stopbits not in (1, more):
            raise ValueError(f"with {self.bytesize} bits in a byte, stopbits is 1 or {more}, not {stopbits}")
        self.registers.update8(LINE_CONTROL, LINE_TWO_STOP_BITS, LINE_TWO_STOP_BITS if stopbits == more else 0)

    def character_time(self) -> float:
        """Return the seconds that a byte takes on the line."""
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self._baudrate

    @property
    def break_condition(self) -> bool:
        """Whether the line is held at 0."""
        return bool(self.registers.read8(LINE_CONTROL) & LINE_BREAK)

    @break_condition.setter
    def break_condition(self, on: bool) -> None:
        self.registers.update8(LINE_CONTROL, LINE_BREAK, LINE_BREAK if on else 0)

    @property
    def rts(self) -> bool:
        """Whether the RTS output, request to send, is on."""
        return bool(self.registers.read8(MODEM_CONTROL) & MODEM_RTS)

    @rts.setter
    def rts(self, on: bool) -> None:
        self.registers.update8(MODEM_CONTROL, MODEM_RTS, MODEM_RTS if on else 0)

    @property
    def dtr(self) -> bool:
        """Whether the DTR output, data terminal ready, is on."""
        return bool(self.registers.read8(MODEM_CONTROL) & MODEM_DTR)

    @dtr.setter
    def dtr(self, on: bool) -> None:
        self.registers.update8(MODEM_CONTROL, MODEM_DTR, MODEM_DTR if on else 0)

    @property
    def loopback(self) -> bool:
        """Whether the port receives what it sends, and nobody else does, section 8.8."""
        return bool(self.registers.read8(MODEM_CONTROL) & MODEM_LOOPBACK)

    @loopback.setter
    def loopback(self, on: bool) -> None:
        self.registers.update8(MODEM_CONTROL, MODEM_LOOPBACK, MODEM_LOOPBACK if on else 0)

    @property
    def cts(self) -> bool:
        """Whether the other end has clear to send on."""
        return bool(self.registers.read8(MODEM_STATUS) & STATUS_CTS)

    @property
    def dsr(self) -> bool:
        """Whether the other end has data set ready on."""
        return bool(self.registers.read8(MODEM_STATUS) & STATUS_DSR)

    @property
    def ri(self) -> bool:
        """Whether the other end has the ring indicator on."""
        return bool(self.registers.read8(MODEM_STATUS) & STATUS_RI)

    @property
    def cd(self) -> bool:
        """Whether the other end has the carrier detect on."""
        return bool(self.registers.read8(MODEM_STATUS) & STATUS_CD)


def divisor_for(baudrate: int) -> int:
    """Return the divisor for a baud rate, section 8.3. ValueError: there is none that comes within 2 %."""
    divisor = round(CLOCK / 16 / baudrate) if baudrate > 0 else 0
    if not 1 <= divisor <= 0xFFFF or abs(CLOCK / 16 / divisor / baudrate - 1) > BAUD_TOLERANCE:
        raise ValueError(f"the port divides its clock to 2 to 115200 baud, by a whole number: not to {baudrate}")
    return divisor
