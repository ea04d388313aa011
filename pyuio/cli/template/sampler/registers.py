"""The registers, as the card's data sheet lists them. The driver and the model share them."""

from __future__ import annotations

from pyuio import Field, Register, RegisterMap


class Identification(Register, access="ro"):
    """What the card is, so that nobody takes another one for it."""

    kind = Field(31, 16, doc="0xadc0")
    version = Field(15, 0)


class Control(Register):
    """What the card is to do."""

    start = Field(0, doc="write 1 to begin a conversion; reads as 1 until it is done")
    interrupt_enable = Field(1, doc="interrupt as long as status.done is set")


class Status(Register):
    """What the card has done."""

    done = Field(0, access="w1c", doc="a conversion is done; write 1 to clear it")


class Registers(RegisterMap, width=32):
    """BAR 0. The card takes accesses of 32 bits, and no others."""

    identification = Identification(0x00)
    control = Control(0x04)
    status = Status(0x08)
    sample = Register(0x0C, access="ro", doc="the last conversion, 0 to 4095")
