# SPDX-License-Identifier: MIT
"""A driver for a 16550 serial port on PCI, such as QEMU's ``-device pci-serial``.

The data sheet is National Semiconductor's PC16550D, June 1995; "section" below is one of its.
"""

from __future__ import annotations

from pyuio import Device, Driver
from pyuio.program import Operation, Read, Write

# Registers of BAR 0, eight I/O ports of 8 bits, section 8.0, table II.
INTERRUPT_ENABLE = 1
INTERRUPT_IDENTIFICATION = 2  # read only

# Bits of INTERRUPT_ENABLE, section 8.7.
ENABLE_TRANSMITTER_EMPTY = 0x02


class Serial16550(Driver):
    """A serial port, on an open device."""

    ids = ("1b36:0002",)

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = device.bar(0)
        self.quiet()

    def trigger(self) -> None:
        """Raise the interrupt of an empty transmitter: it comes when it is enabled and the transmitter is empty."""
        self.registers.write8(INTERRUPT_ENABLE, 0)
        self.registers.write8(INTERRUPT_ENABLE, ENABLE_TRANSMITTER_EMPTY)

    def trigger_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to raise that interrupt."""
        return [
            Write(self.registers, INTERRUPT_ENABLE, 0, 8),
            Write(self.registers, INTERRUPT_ENABLE, ENABLE_TRANSMITTER_EMPTY, 8),
        ]

    def acknowledge(self) -> None:
        """Acknowledge it: reading the identification does that, section 8.6, table IV."""
        self.registers.read8(INTERRUPT_IDENTIFICATION)

    def acknowledge_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to acknowledge it."""
        return [Read("identification", self.registers, INTERRUPT_IDENTIFICATION, 8)]

    def quiet(self) -> None:
        """Disable all interrupts."""
        self.registers.write8(INTERRUPT_ENABLE, 0)
