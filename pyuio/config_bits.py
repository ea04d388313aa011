# SPDX-License-Identifier: MIT
"""Bits of the command and the status register of a PCI function, by name.

Source: PCI Local Bus Specification 3.0; "section" below is one of its. `pyuio.pci` is where to import them from.
"""

from __future__ import annotations

import enum


class RegisterBits(enum.IntFlag):
    """Bits of a register by name; printed as ``MEMORY_SPACE|BUS_MASTER``."""

    def __str__(self) -> str:
        return "|".join(str(bit.name) for bit in type(self) if bit in self) or "0"


class Command(RegisterBits):
    """The command register, offset 0x04 (section 6.2.2)."""

    IO_SPACE = 1 << 0
    MEMORY_SPACE = 1 << 1
    BUS_MASTER = 1 << 2
    SPECIAL_CYCLES = 1 << 3
    MEMORY_WRITE_AND_INVALIDATE = 1 << 4
    VGA_PALETTE_SNOOP = 1 << 5
    PARITY_ERROR_RESPONSE = 1 << 6
    SERR_ENABLE = 1 << 8
    FAST_BACK_TO_BACK_ENABLE = 1 << 9
    INTERRUPT_DISABLE = 1 << 10


class Status(RegisterBits):
    """The status register, offset 0x06 (section 6.2.3), without the two-bit `ConfigSpace.devsel_timing`."""

    INTERRUPT_STATUS = 1 << 3
    CAPABILITIES_LIST = 1 << 4
    MHZ_66_CAPABLE = 1 << 5
    FAST_BACK_TO_BACK_CAPABLE = 1 << 7
    MASTER_DATA_PARITY_ERROR = 1 << 8
    SIGNALED_TARGET_ABORT = 1 << 11
    RECEIVED_TARGET_ABORT = 1 << 12
    RECEIVED_MASTER_ABORT = 1 << 13
    SIGNALED_SYSTEM_ERROR = 1 << 14
    DETECTED_PARITY_ERROR = 1 << 15
