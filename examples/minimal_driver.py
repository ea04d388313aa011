# SPDX-License-Identifier: MIT
"""A driver to copy: it identifies its card, waits for an interrupt, makes a transfer, and leaves the card quiet.

The card is QEMU's edu, whose data sheet is docs/specs/edu.rst in QEMU's sources. In the guest::

    $ pyuio vm run -- python examples/minimal_driver.py
    card 0xed, version 1.0
    an interrupt, status 0x4
    b'hello' came back
"""

from __future__ import annotations

from typing import ClassVar

from pyuio import Device, DmaBuffer, Driver, Field, Register, RegisterMap


class Identification(Register, access="ro"):
    """Section "MMIO area spec", 0x00."""

    major = Field(31, 24)
    minor = Field(23, 16)
    card = Field(15, 0)


class Interrupts(Register):
    """The causes of an interrupt: those that the driver raises itself, and the end of a transfer."""

    by_hand = Field(7, 0)
    transfer = Field(8)


class DmaCommand(Register, width=64):
    """Section "MMIO area spec", 0x98."""

    start = Field(0)
    to_memory = Field(1)
    interrupt = Field(2)


class Registers(RegisterMap):
    """BAR 0, as the data sheet lists it."""

    identification = Identification(0x00)
    interrupt_status = Interrupts(0x24, access="ro")
    raise_interrupt = Interrupts(0x60, access="wo")
    acknowledge = Interrupts(0x64, access="wo")
    dma_source = Register(0x80, width=64)
    dma_destination = Register(0x88, width=64)
    dma_count = Register(0x90, width=64)
    dma_command = DmaCommand(0x98)


class Card(Driver):
    """The driver."""

    ids = ("1234:11e8",)
    register_maps: ClassVar = {0: Registers}  # for `pyuio read DEVICE bar0.identification`
    dma_mask = (1 << 28) - 1  # the addresses that the card can put on the bus
    MEMORY = 0x40000  # the card's own memory, as its DMA sees it

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = Registers(device.bar(0))
        if self.registers.identification.card != 0xED:
            raise ValueError(f"{device.name} is another card")
        self.quiet()  # the driver before this one may have been killed

    def wait(self, timeout: float = 1.0) -> int:
        """Wait for the interrupt, acknowledge it, and return its causes."""
        self.device.interrupt.read(timeout)
        causes = self.registers.interrupt_status.read()
        self.registers.acknowledge.write(causes)  # before the next wait, or it comes again
        return causes

    def transfer(self, source: int, destination: int, count: int, *, to_memory: bool) -> None:
        """Have the card copy `count` bytes, 1 to 4095, between its memory and the bus."""
        self.registers.dma_source.write(source)
        self.registers.dma_destination.write(destination)
        self.registers.dma_count.write(count)
        with self.registers.dma_command.change(0) as command:  # one write, at the end of the block
            command.to_memory = to_memory
            command.interrupt = True
            command.start = True
        while not self.wait() & Interrupts.transfer.mask:
            pass  # something else raised the interrupt

    def quiet(self) -> None:
        """Let a transfer end, and acknowledge what was raised; closing the driver calls this."""
        self.registers.dma_command.poll(lambda command: not command.start, timeout=1.0)
        self.registers.acknowledge.write(0xFFFFFFFF)


def main() -> None:
    """Use everything once."""
    with Card.open() as card:
        found = card.registers.identification.snapshot()  # one read
        print(f"card {found.card:#x}, version {found.major}.{found.minor}")
        card.registers.raise_interrupt.write(4)
        print(f"an interrupt, status {card.wait():#x}")
        buffer: DmaBuffer = card.device.dma.alloc(4096)
        buffer[:5] = b"hello"
        card.transfer(buffer.address, card.MEMORY, 5, to_memory=False)
        card.transfer(card.MEMORY, buffer.address + 100, 5, to_memory=True)
        print(bytes(buffer[100:105]), "came back")


if __name__ == "__main__":
    main()
