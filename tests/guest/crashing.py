# SPDX-License-Identifier: MIT
"""A program that crashes in every way, at every stage of a driver's life: for tests.guest.test_crashes.

It reads a way and a stage from each line, and forks a process that goes there and ends that way. What is printed then
is how that one ended, as `subprocess.Popen.returncode` has it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from pyuio_drivers.edu import DMA_BUFFER, DMA_REACHABLE, Edu

import pyuio
from pyuio.claim import binding
from tests.guest.support import DRIVER, start_dma

WAYS = ("SIGKILL", "SIGSEGV", "exception")
STAGES = ("bound", "opened", "armed", "service", "dma", "realtime")

keep: list[object] = []  # what is open, until the module is gone

A_MOMENT = 0.04  # seconds: in the middle of a transfer of 0.1, and in that of a wait


class Crash(Exception):
    """What nobody catches."""


def crash_soon(way: str) -> None:
    """Have this process end in a moment, while the main thread goes on to wait for something."""
    if way == "SIGSEGV":

        def fault() -> None:
            time.sleep(A_MOMENT)
            ctypes.string_at(0)

        threading.Thread(target=fault, daemon=True).start()
    if way == "exception":

        def handler(_number: int, _frame: FrameType | None) -> None:
            raise Crash

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, A_MOMENT)


def live(address: str, way: str, stage: str, ready: int) -> None:
    """Go to a stage, say so, and wait there for the end."""
    wait: Callable[[], object] = signal.pause
    if stage == "bound":
        keep.append(binding.bind(address, DRIVER))
    else:
        device = pyuio.open(address, bind=True)
        card = Edu(device)
        keep.append(card)
        buffer = device.dma.alloc(4096, mask=Edu.dma_mask)
        if stage == "armed":
            wait = device.interrupt.read
        if stage == "service":
            service = pyuio.Service(device.interrupt, card.acknowledge_program())
            keep.append(service)
            wait = service.read
        if stage == "dma":
            start_dma(card, DMA_BUFFER, buffer.address, DMA_REACHABLE, to_memory=True)
        if stage == "realtime":
            cpu = max(os.sched_getaffinity(0))
            keep.append(pyuio.realtime(interrupt=device, cpus=cpu, heap=0, freeze_garbage=False))
            wait = device.interrupt.read
    os.write(ready, b"r")
    crash_soon(way)
    wait()


def ended(child: int, way: str, ready: int) -> int:
    """Wait for the end of the process, and bring it about if it is SIGKILL; return its exit status."""
    assert os.read(ready, 1) == b"r"
    if way == "SIGKILL":
        time.sleep(A_MOMENT)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in iter(sys.stdin.readline, ""):
        way_given, stage_given = line.split()
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            # Here, at the top of a program, so that an exception ends it as it ends any.
            live(sys.argv[1], way_given, stage_given, writing)
            os._exit(0)
        os.close(writing)
        print(ended(pid, way_given, reading), flush=True)
        os.close(reading)
