# SPDX-License-Identifier: MIT
"""The recipe for real time: open, `pyuio.realtime`, read in a loop.

Another thread raises the interrupts of QEMU's edu card. With ``--kernel debian-rt``, a PREEMPT_RT kernel, the interrupt
has a thread in the kernel, and the program raises the priority of that, too. In the guest::

    $ pyuio vm run -- python examples/realtime_loop.py
    real time of thread ...:
      freeze_garbage     collected, frozen, and collected no more
      heap               8192 KiB for C, as much for Python, kept when freed
      stack              256 KiB
      lock_memory        ... KiB, and all that is added
      cpu_dma_latency    0 us
      interrupt_cpu      interrupt ... on 1 (...)
      interrupt_priority interrupt ...
      cpus               1
      policy             fifo 89
      throttling         real-time threads may run 950000 us in 1000000; this one was not held back
    1000 interrupts read and acknowledged, 0 too many
"""

from __future__ import annotations

import os
import sys
import threading

from pyuio_drivers.edu import Edu

import pyuio


def main(address: str | None = None, count: str = "1000") -> None:
    """Read and acknowledge `count` interrupts, and print the report of real time."""
    wanted, read = int(count), 0
    next_one = threading.Semaphore(0)

    def raise_them() -> None:
        for _ in range(wanted):
            next_one.acquire()
            card.raise_interrupt()

    with Edu.open(address) as card:
        # Start it before real time: a thread that starts later gets the reader's processor, but not its priority.
        threading.Thread(target=raise_them, daemon=True).start()
        with pyuio.realtime(interrupt=card.device, cpus=max(os.sched_getaffinity(0))) as tuned:
            while read < wanted:
                next_one.release()
                read += card.device.interrupt.read(timeout=5)
                card.acknowledge()
    print(tuned)
    print(f"{read} interrupts read and acknowledged, {read - wanted} too many")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"realtime_loop: {error}")
