# SPDX-License-Identifier: MIT
"""DMA there and back: the card reads a buffer of this program into its own memory, and writes it to another buffer.

It needs root, and an IOMMU that is off or does not translate for the card (``pyuio doctor`` tells). In the guest, on
QEMU's edu card::

    $ pyuio vm run -- python examples/dma_round_trip.py
    from 0x... to 0x..., both below 0x10000000
    bus mastering: True
    1000 bytes there and back, 2 interrupts: the same
    bus mastering after the last buffer is freed: False
"""

from __future__ import annotations

import sys

from pyuio_drivers.edu import DMA_BUFFER, Direction, Edu, Interrupts

import pyuio
from pyuio.pci import Command


def transfer(card: Edu, source: int, destination: int, count: int, direction: Direction) -> None:
    """Let the card copy `count` bytes, and sleep until its interrupt says that it is done."""
    card.registers.dma_source.write(source)
    card.registers.dma_destination.write(destination)
    card.registers.dma_count.write(count)
    with card.registers.dma_command.change(0) as command:  # one store at the end of the block
        command.direction = direction
        command.raise_interrupt = True
        command.start = True
    if card.wait_for_interrupt(timeout=1.0) != Interrupts.dma.mask:
        raise ValueError("this interrupt is not the DMA's")


def main(address: str | None = None) -> None:
    """Copy 1000 bytes through the card and compare."""
    with Edu.open(address) as card:
        dma = card.device.dma  # Edu.dma_mask limits the addresses of its buffers
        with dma.alloc(1000) as source, dma.alloc(1000) as destination:
            print(f"from {source.address:#x} to {destination.address:#x}, both below {dma.mask + 1:#x}")
            print("bus mastering:", Command.BUS_MASTER in card.device.config.command)
            source[:] = bytes(number % 251 for number in range(1000))
            transfer(card, source.address, DMA_BUFFER, 1000, Direction.FROM_MEMORY)
            transfer(card, DMA_BUFFER, destination.address, 1000, Direction.TO_MEMORY)
            same = "the same" if bytes(destination) == bytes(source) else "DIFFERENT"
            print(f"1000 bytes there and back, {card.device.interrupt.total} interrupts: {same}")
        print("bus mastering after the last buffer is freed:", Command.BUS_MASTER in card.device.config.command)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"dma_round_trip: {error}")
