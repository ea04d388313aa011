# SPDX-License-Identifier: MIT
"""QEMU's educational card in Python, for `pyuio_drivers.edu`.

The data sheet is docs/specs/edu.rst in QEMU's sources; a "section" named below is in it. What the data sheet leaves
open is as in hw/misc/edu.c.
"""

from __future__ import annotations

from typing import ClassVar

from pyuio_drivers.edu import DMA_BUFFER, Direction, EduRegisters, Interrupts

from pyuio.model import Card

_DMA_SIZE = 4096
_FACTORIAL_TIME = 10e-6  # seconds; QEMU's takes as long as a thread does
_TRANSFER_TIME = 0.1  # seconds, section "DMA controller"


class EduCard(Card):
    """The educational card: an inverter, factorials, interrupts, and a DMA engine."""

    vendor, device, class_code, revision = 0x1234, 0x11E8, 0x00FF00, 0x10
    subsystem = (0x1AF4, 0x1100)
    bars: ClassVar = {0: 1 << 20}
    registers: ClassVar = {0: EduRegisters}
    reset_values: ClassVar = {"identification": 0x0100_00ED}
    # Section "MMIO area spec": from 0x80 on, accesses of 32 and of 64 bits.
    narrow: ClassVar = ("dma_source", "dma_destination", "dma_count", "dma_command")
    msi_vectors = 1
    dma_mask = (1 << 28) - 1

    def reset(self) -> None:
        """Forget everything, the card's memory too."""
        super().reset()
        self.buffer = bytearray(_DMA_SIZE)

    def on_write_liveness(self, value: int) -> None:
        """Invert the value."""
        self.regs.liveness.write(~value & 0xFFFF_FFFF)

    def on_write_factorial(self, value: int) -> None:
        """Begin to compute a factorial, unless one is being computed."""
        if not self.regs.status.computing:
            self.regs.status.computing = True
            self.after(_FACTORIAL_TIME, lambda: self._finish_factorial(value))

    def _finish_factorial(self, number: int) -> None:
        result = 1
        for factor in range(2, number + 1):
            result = result * factor & 0xFFFF_FFFF
            if not result:  # and it stays 0
                break
        self.regs.factorial.write(result)
        self.regs.status.computing = False
        if self.regs.status.interrupt_after_factorial:
            self._raise(Interrupts.factorial.mask)

    def _raise(self, bits: int) -> None:
        raised = self.regs.interrupt_status
        raised.write(raised.read() | bits)
        if raised.read():
            self.raise_interrupt()

    def on_write_raise_interrupt(self, bits: int) -> None:
        """Raise the interrupt with these bits."""
        self._raise(bits)

    def on_write_acknowledge_interrupt(self, bits: int) -> None:
        """Clear bits; lower the line when none is left."""
        raised = self.regs.interrupt_status
        raised.write(raised.read() & ~bits)
        if not raised.read():
            self.lower_interrupt()

    def on_write_dma_command(self, value: int) -> None:
        """Begin a transfer."""
        if self.regs.dma_command.start:
            self.after(_TRANSFER_TIME, self._transfer)

    def _transfer(self) -> None:
        registers = self.regs
        command = registers.dma_command
        source, destination = registers.dma_source.read(), registers.dma_destination.read()
        count = registers.dma_count.read()
        if command.direction == Direction.FROM_MEMORY:
            at = self._place(destination, count)
            self.buffer[at : at + count] = self.memory.read(source & self.dma_mask, count)
        else:
            at = self._place(source, count)
            self.memory.write(destination & self.dma_mask, self.buffer[at : at + count])
        command.start = False
        if command.raise_interrupt:
            self._raise(Interrupts.dma.mask)

    def _place(self, address: int, count: int) -> int:
        """Return where in the card's memory a transfer begins. QEMU ends if the transfer is not all inside."""
        if not DMA_BUFFER <= address <= address + count <= DMA_BUFFER + _DMA_SIZE:
            self.complain(f"a transfer of {count} bytes at {address:#x} is not inside the card's memory")
        return address - DMA_BUFFER
