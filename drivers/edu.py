# SPDX-License-Identifier: MIT
"""A driver for QEMU's educational PCI device, ``-device edu``.

The data sheet is docs/specs/edu.rst in QEMU's sources; "section" below is one of its. Copy this file to start a driver
for a card of your own: the registers by name, one method for each thing that the card can do, and `quiet`.
"""

from __future__ import annotations

import time

from pyuio import Device, DeviceTimeoutError, Driver

# Registers of BAR 0, section "MMIO area spec". All take 32-bit accesses; those of DMA take 64-bit ones, too.
IDENTIFICATION = 0x00  # read only: 0xRRrr00ed, version RR.rr
LIVENESS = 0x04  # reads as the inverse of what was written
FACTORIAL = 0x08  # write n, read n! (modulo 2^32) when STATUS_COMPUTING is clear
STATUS = 0x20
INTERRUPT_STATUS = 0x24  # read only: the bits of the interrupts raised and not acknowledged
RAISE_INTERRUPT = 0x60  # write only: bits to set in INTERRUPT_STATUS
ACKNOWLEDGE_INTERRUPT = 0x64  # write only: bits to clear in INTERRUPT_STATUS
DMA_SOURCE = 0x80
DMA_DESTINATION = 0x88
DMA_COUNT = 0x90
DMA_COMMAND = 0x98

# Bits of STATUS.
STATUS_COMPUTING = 0x01  # read only
STATUS_INTERRUPT_AFTER_FACTORIAL = 0x80

# Bits of INTERRUPT_STATUS that the card sets by itself.
INTERRUPT_FACTORIAL = 0x001
INTERRUPT_DMA = 0x100
ALL_INTERRUPTS = 0xFFFFFFFF

# Bits of DMA_COMMAND, section "DMA controller".
DMA_START = 0x1
DMA_TO_MEMORY = 0x2  # clear: from memory to the card
DMA_RAISE_INTERRUPT = 0x4

LARGEST_FACTORIAL = 12  # 13! does not fit 32 bits


class Edu(Driver):
    """The educational card, on an open device.

    Raises:
        ValueError: the device is not an edu card.
    """

    ids = ("1234:11e8",)

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = device.bar(0)
        identification = self.registers.read32(IDENTIFICATION)
        if identification & 0xFFFF != 0x00ED:
            raise ValueError(f"{device.name} identifies itself as {identification:#010x}, which is not 0xRRrr00ed")
        self.version = (identification >> 24, identification >> 16 & 0xFF)
        """Major and minor version of the card, section "MMIO area spec", 0x00."""
        self.quiet()

    def liveness(self, value: int) -> int:
        """Write a 32-bit value to the liveness check and return what comes back: its inverse, if the card is alive."""
        self.registers.write32(LIVENESS, value)
        return self.registers.read32(LIVENESS)

    def factorial(self, n: int, timeout: float = 1.0) -> int:
        """Return n! as the card computes it, asking until it is ready.

        Args:
            n: 0 to 12, whose factorials fit 32 bits.
            timeout: seconds.

        Raises:
            ValueError: n is out of range.
            DeviceTimeoutError: the card did not finish in time.
        """
        self._start_factorial(n, timeout)
        self.registers.poll32(STATUS, STATUS_COMPUTING, 0, timeout)
        return self.registers.read32(FACTORIAL)

    def factorial_by_interrupt(self, n: int, timeout: float = 1.0) -> int:
        """Return n! as the card computes it, sleeping until its interrupt says that it is ready.

        Arguments and errors are those of `factorial`; and `InterruptUnavailableError`.
        """
        self.registers.set32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        try:
            deadline = time.monotonic() + timeout
            self._start_factorial(n, timeout)
            while not self.wait_for_interrupt(max(0.0, deadline - time.monotonic())) & INTERRUPT_FACTORIAL:
                pass  # an interrupt that something else raised
        finally:
            self.registers.clear32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        return self.registers.read32(FACTORIAL)

    def _start_factorial(self, n: int, timeout: float) -> None:
        if not 0 <= n <= LARGEST_FACTORIAL:
            raise ValueError(f"the card computes factorials of 0 to {LARGEST_FACTORIAL} in its 32 bits, not of {n}")
        # It takes no new number while it computes.
        self.registers.poll32(STATUS, STATUS_COMPUTING, 0, timeout)
        self.registers.write32(FACTORIAL, n)

    def raise_interrupt(self, bits: int = 1) -> None:
        """Make the card raise its interrupt with these bits, 1 to 0xffffffff, set in its interrupt status."""
        self.registers.write32(RAISE_INTERRUPT, bits)

    def interrupt_status(self) -> int:
        """Return the bits of the interrupts raised and not yet acknowledged."""
        return self.registers.read32(INTERRUPT_STATUS)

    def acknowledge(self, bits: int = ALL_INTERRUPTS) -> None:
        """Clear these bits of the interrupt status; the card lowers its line when none is left."""
        self.registers.write32(ACKNOWLEDGE_INTERRUPT, bits)

    def wait_for_interrupt(self, timeout: float | None = None) -> int:
        """Wait for the card's interrupt, acknowledge it, and return the bits that were raised.

        The bits may be 0: an interrupt that was acknowledged before it was read.

        Args:
            timeout: seconds, or None for ever.

        Raises:
            DeviceTimeoutError: none came in time.
            InterruptUnavailableError: the device cannot deliver one.
        """
        try:
            self.device.interrupt.read(timeout)
        except BlockingIOError as error:
            raise DeviceTimeoutError(*error.args) from None
        bits = self.interrupt_status()
        self.acknowledge(bits)
        return bits

    def quiet(self) -> None:
        """Turn the interrupt after a factorial off, and acknowledge whatever was raised."""
        self.registers.clear32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        self.acknowledge()
