# SPDX-License-Identifier: MIT
"""The registers of a 16550 by name, those of National Semiconductor's data sheet PC16550D, June 1995.

A "section" named below is in the data sheet; section 8.0, table II, lists the registers and their bits. Names of
registers and fields are the data sheet's mnemonics.
"""

from __future__ import annotations

import enum

from pyuio import Field, Register, RegisterMap

FIFO_SIZE = 16  # bytes in each of the two FIFOs


class InterruptEnable(Register, width=8):
    """IER, section 8.7."""

    erbfi = Field(0, doc="received data available; also: bytes are in the FIFO for longer than four characters take")
    etbei = Field(1, doc="transmitter holding register empty")
    elsi = Field(2, doc="receiver line status: an error or a break")
    edssi = Field(3, doc="MODEM status: an input changed")


class InterruptId(enum.IntEnum):
    """Bits 3 to 0 of IIR, section 8.6, table IV: what is pending, the highest priority first."""

    RECEIVER_LINE_STATUS = 0b0110
    RECEIVED_DATA_AVAILABLE = 0b0100
    CHARACTER_TIMEOUT = 0b1100
    THR_EMPTY = 0b0010
    MODEM_STATUS = 0b0000
    NONE = 0b0001


class InterruptIdentification(Register, width=8, access="rc"):
    """IIR, section 8.6. Reading it acknowledges `InterruptId.THR_EMPTY`, if it reads as that."""

    interrupt_id = Field(3, 0, InterruptId)
    fifos_enabled = Field(7, 6, doc="3 if there are FIFOs and they work")


class Trigger(enum.IntEnum):
    """Bytes in the receiver's FIFO at which it raises its interrupt."""

    BYTES_1 = 0
    BYTES_4 = 1
    BYTES_8 = 2
    BYTES_14 = 3


class FifoControl(Register, width=8, access="wo"):
    """FCR, section 8.5."""

    fifo_enable = Field(0)
    rcvr_fifo_reset = Field(1, doc="1 empties the receiver's FIFO, and clears itself")
    xmit_fifo_reset = Field(2, doc="1 empties the transmitter's FIFO, and clears itself")
    dma_mode_select = Field(3)
    rcvr_trigger = Field(7, 6, Trigger)


class Parity(enum.IntEnum):
    """Bits 5 to 3 of LCR: stick parity, even parity select (EPS), parity enable (PEN)."""

    NONE = 0b000
    ODD = 0b001
    EVEN = 0b011
    MARK = 0b101
    SPACE = 0b111


class LineControl(Register, width=8):
    """LCR, section 8.1."""

    wls = Field(1, 0, doc="word length select: bits in a byte, less 5")
    stb = Field(2, doc="2 stop bits instead of 1; one and a half with 5 bits in a byte")
    parity = Field(5, 3, doc="one of `Parity`; without PEN, bit 3, the two others mean nothing")
    set_break = Field(6, doc="hold the line at 0")
    dlab = Field(7, doc="divisor latch access: `DivisorLatch` is in place of RBR, THR and IER")


class ModemControl(Register, width=8):
    """MCR, section 8.8."""

    dtr = Field(0, doc="data terminal ready")
    rts = Field(1, doc="request to send")
    out1 = Field(2)
    out2 = Field(3, doc="lets the interrupt through on many boards")
    loop = Field(4, doc="receive what is sent, and send nothing")


class LineStatus(Register, width=8, access="rc"):
    """LSR, section 8.4. The errors are those of the byte that RBR gives next; reading LSR clears them."""

    dr = Field(0, doc="data ready: a byte was received")
    oe = Field(1, doc="overrun error")
    pe = Field(2, doc="parity error")
    fe = Field(3, doc="framing error")
    bi = Field(4, doc="break interrupt")
    thre = Field(5, doc="transmitter holding register, or the transmitter's FIFO, empty")
    temt = Field(6, doc="transmitter empty, its shift register, too")
    fifo_error = Field(7, doc="an error, or a break, is in the receiver's FIFO")


class ModemStatus(Register, width=8, access="rc"):
    """MSR, section 8.9. Reading it clears the four bits that tell of a change."""

    dcts = Field(0, doc="CTS has changed")
    ddsr = Field(1, doc="DSR has changed")
    teri = Field(2, doc="RI has gone off")
    ddcd = Field(3, doc="DCD has changed")
    cts = Field(4, doc="clear to send")
    dsr = Field(5, doc="data set ready")
    ri = Field(6, doc="ring indicator")
    dcd = Field(7, doc="data carrier detect")


class Serial16550Registers(RegisterMap):
    """BAR 0 while LCR.DLAB is 0: eight registers of 8 bits."""

    rbr = Register(0, width=8, access="rc", doc="receiver buffer: takes a byte out of the FIFO")
    thr = Register(0, width=8, access="wo", doc="transmitter holding: puts a byte into the FIFO")
    ier = InterruptEnable(1)
    iir = InterruptIdentification(2)
    fcr = FifoControl(2)
    lcr = LineControl(3)
    mcr = ModemControl(4)
    lsr = LineStatus(5)
    msr = ModemStatus(6)
    scr = Register(7, width=8, doc="scratch: the port does nothing with it")


class DivisorLatch(RegisterMap):
    """What is in BAR 0 in place of RBR, THR and IER while LCR.DLAB is 1, section 8.3."""

    dll = Register(0, width=8, doc="divisor, bits 7 to 0")
    dlm = Register(1, width=8, doc="divisor, bits 15 to 8")
