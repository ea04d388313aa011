# SPDX-License-Identifier: MIT
"""Interrupts with asyncio: one task awaits interrupts while other tasks run.

Any number of tasks may wait, on any event loop; each interrupt goes to one of them. In the guest, on QEMU's edu card::

    $ pyuio vm run -- python examples/interrupts_asyncio.py
    interrupts: 1, status 0x1
    interrupts: 1, status 0x2
    interrupts: 1, status 0x4
    the clock ticked meanwhile: True
    none came for 0.1 s
"""

from __future__ import annotations

import asyncio
import sys

from pyuio_drivers.edu import Edu

import pyuio


async def serve(card: Edu) -> None:
    """Print and acknowledge interrupts until the task is cancelled."""
    async for count in card.device.interrupt:
        card.acknowledge(status := card.interrupt_status())  # otherwise it comes again at once
        print(f"interrupts: {count}, status {status:#x}")


async def main(address: str | None = None) -> None:
    """Raise three interrupts while a task serves them and another one counts."""
    ticks = 0

    async def clock() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    with Edu.open(address) as card:
        tasks = [asyncio.create_task(serve(card)), asyncio.create_task(clock())]
        for bit in range(3):
            card.raise_interrupt(1 << bit)
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()  # loses no interrupt
        await asyncio.wait(tasks)
        print("the clock ticked meanwhile:", ticks > 3)
        try:
            await card.device.interrupt.read_async(timeout=0.1)
        except TimeoutError:
            print("none came for 0.1 s")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:2]))
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"interrupts_asyncio: {error}")
