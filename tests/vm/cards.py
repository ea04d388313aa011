# SPDX-License-Identifier: MIT
"""Cards in Python for the tests of ``pyuio vm run --card``; most of them do something that no card may do."""

from __future__ import annotations

import os
import time
from typing import ClassVar

from pyuio_drivers.models.edu import EduCard

from pyuio.model import BarSpace, Card
from pyuio.registers import Memory, Register, RegisterMap


class Counters(RegisterMap):
    """What counts interrupts."""

    raised = Register(0x00, access="ro")
    raise_now = Register(0x04, access="wo")
    lower = Register(0x08, access="wo")
    narrow = Register(0x10, width=8)
    half = Register(0x12, width=16)
    wide = Register(0x18, width=64)
    words: Memory[Register] = Memory(Register(0x100), 64)


class Raiser(Card):
    """It raises as many interrupts as it is told to, as messages or by INTx."""

    vendor, device = 0x1234, 0xC0DE
    bars: ClassVar = {0: 4096, 2: 4096, 4: BarSpace(16, ports=True)}  # BARs 2 and 4 are memory
    registers: ClassVar = {0: Counters}

    def on_write_raise_now(self, vector: int) -> None:
        """Raise one interrupt."""
        self.regs.raised.write(self.regs.raised.read() + 1)
        self.raise_interrupt(vector)

    def on_write_lower(self, vector: int) -> None:
        """Take it back."""
        self.lower_interrupt(vector)


class MsixRaiser(Raiser):
    """The same with MSI-X."""

    device, msix_vectors = 0xC0D1, 4


class MsiRaiser(Raiser):
    """The same with MSI."""

    device, msi_vectors = 0xC0D2, 1


class WideCard(Card):
    """A BAR that QEMU's proxy cannot give, with its registers at the end of a BAR larger than 4 GiB."""

    class Registers(RegisterMap):
        """One of 32 bits, at 7 GiB."""

        last = Register(7 << 30)

    vendor, device = 0x1234, 0xC0D3
    bars: ClassVar = {0: BarSpace(8 << 30, width=64)}
    registers: ClassVar = {0: Registers}


class Raising(Raiser):
    """It has a bug."""

    def on_write_lower(self, vector: int) -> None:
        """Divide by nothing."""
        self.regs.raised.write(1 // vector)


class Hanging(Raiser):
    """It does not return, and no handler of errors ends that."""

    def on_write_lower(self, vector: int) -> None:
        """Wait for ever."""
        while True:
            try:
                time.sleep(0.1)
            except Exception:
                continue


class Dying(Raiser):
    """Its process ends."""

    def on_write_lower(self, vector: int) -> None:
        """End."""
        os._exit(3)


class Leaving(EduCard):
    """An edu card that pulls itself out when it is told to raise an interrupt."""

    def on_write_raise_interrupt(self, bits: int) -> None:
        """Go."""
        self.remove()


class Speaking(Raiser):
    """It prints."""

    def on_write_lower(self, vector: int) -> None:
        """Say so."""
        print("lower", vector)


NO_CARD = 5
