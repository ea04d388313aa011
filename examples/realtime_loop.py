# SPDX-License-Identifier: MIT
"""The recipe for real time: open, `pyuio.realtime`, read in a loop.

``python examples/realtime_loop.py [ADDRESS [COUNT]]`` on QEMU's edu card, whose interrupts another thread raises.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from pyuio_drivers.edu import Edu

import pyuio


def main(address: str | None = None, count: str = "1000") -> None:
    """Read and acknowledge `count` interrupts, and print what real time was got."""
    wanted, read = int(count), 0
    next_one = threading.Semaphore(0)

    def raise_them() -> None:
        for _ in range(wanted):
            next_one.acquire()
            card.raise_interrupt()

    with Edu.open(address) as card:
        # Started outside of real time: inside it would be on the reader's processor, and never in its way is better.
        threading.Thread(target=raise_them, daemon=True).start()
        with pyuio.realtime(interrupt=card.device, cpus=max(os.sched_getaffinity(0))) as tuned:
            start = time.monotonic()
            while read < wanted:
                next_one.release()
                read += card.device.interrupt.read(timeout=5)
                card.acknowledge()
            seconds = time.monotonic() - start
    print(tuned)
    print(f"{read} interrupts read and acknowledged, {read - wanted} too many, {read / seconds:.0f} per second")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"realtime_loop: {error}")
