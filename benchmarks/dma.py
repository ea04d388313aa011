# SPDX-License-Identifier: MIT
"""Measures the cost of DMA memory, in us, and as a ratio to the cost of the system calls or copies that it needs.

Run ``python benchmarks/dma.py`` as root (``--check`` fails if a target is missed, ``--json`` prints JSON). It measures
the allocator and the copies, and needs no device. It reserves a hugepage while it runs.

With ``--vfio ADDRESS`` it measures instead what a PCI function behind an IOMMU is given, which ``vfio-pci`` has or can
have: `alloc` and `map` beside the bare ioctls that pin and map as much memory.

In every round both sides of each ratio run in turn. The times are those of the best round; the ratio is the median of
the rounds' own ratios, so that neither a busy machine nor a change of its clock decides.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

import pyuio
from pyuio._native._memory import pointer
from pyuio.dma import Dma, DmaBuffer
from pyuio.dma.address_space import Mappings
from pyuio.dma.iommu_memory import IommuMemory

COPIES = (64, 4096, 1 << 20)  # bytes
NOISE = 1.15  # a ratio up to this counts as 1


@dataclass
class Result:
    """One comparison: both times in us, their ratio, the target, and whether it is met."""

    name: str
    ours: float
    baseline: str
    base: float
    ratio: float
    target: str
    met: bool


def timed(statement: str, names: dict[str, Any], loops: int) -> Callable[[], float]:
    """Return a function that runs a statement `loops` times, with all its names local, and returns us for each run."""
    keywords = "".join(f", {name}={name}" for name in names)
    source = f"def loop(*{keywords}):\n    for _ in range({loops}):\n        {statement}\n"
    namespace = dict(names)
    exec(source, namespace)

    def run() -> float:
        start = time.perf_counter()
        namespace["loop"]()
        return (time.perf_counter() - start) / loops * 1e6

    return run


def compare(ours: Callable[[], float], base: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Return the best time of each side, and the median of the ratios."""
    times = []
    for index in range(rounds + 1):
        pair = (ours(), base()) if index % 2 else (base(), ours())[::-1]
        times.append(pair)
    del times[0]  # caches are cold in the first round
    return min(a for a, _ in times), min(b for _, b in times), statistics.median(a / b for a, b in times)


def bare() -> None:
    """Map a page, and read its physical address: the least that an allocation of DMA memory needs."""
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    memory[0] = 0
    file = os.open("/proc/self/pagemap", os.O_RDONLY)
    os.pread(file, 8, 0)
    os.close(file)
    memory.close()


def measure(dma: Dma, rounds: int) -> list[Result]:
    results = []
    pool = dma.pool(1000, 2048)
    ours, base, ratio = compare(
        timed("give(take())", {"give": pool.give, "take": pool.take}, 10000),
        timed("give(take())", {"give": (plain := [0, 1]).append, "take": plain.pop}, 10000),
        rounds,
    )
    results.append(Result("pool: take and give", ours, "list: pop and append", base, ratio, "< 1 us", ours < 1))
    ours, base, ratio = compare(
        timed("alloc(4096).close()", {"alloc": dma.alloc}, 1000), timed("bare()", {"bare": bare}, 1000), rounds
    )
    results.append(Result("alloc(4096), close", ours, "mmap, pagemap, munmap", base, ratio, "<= 2", ratio <= 2))
    for size in COPIES:
        results += copies(dma.alloc(size), size, rounds)
    return results


class BareMapping:
    """A container's two ioctls, on memory of its own at an address that nothing else has."""

    def __init__(self, container: Mappings, size: int) -> None:
        self._map, self._unmap = container.map, container.unmap
        self._size = size
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._pointer = pointer(self._memory)
        for offset in range(0, size, mmap.PAGESIZE):
            self._memory[offset] = 1
        self._address = container.ranges[-1][1] + 1 - size

    def existing(self) -> None:
        """Map memory that is there, and unmap it."""
        self._map(self._pointer, self._address, self._size)
        self._unmap(self._address, self._size)

    def new(self) -> None:
        """Get memory, map it, unmap it, and give it back."""
        memory = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map(pointer(memory), self._address, self._size)
        self._unmap(self._address, self._size)
        memory.close()


def measure_vfio(device: pyuio.Device, rounds: int) -> list[Result]:
    dma = device.dma
    assert isinstance(dma._source, IommuMemory), f"{device.name}: {device.driver} has it, not vfio-pci"
    container = dma._source._space._container
    dma.alloc(64)  # small buffers share its mapping; bus mastering stays on
    results = []
    for size, loops in ((4096, 200), (1 << 20, 50), (64 << 20, 1)):
        bare, array = BareMapping(container, size), bytearray(size)
        name = f"{size} bytes" if size < 1 << 20 else f"{size >> 20} MiB"
        # Small buffers come from a mapping that is there; for large ones both sides zero the memory.
        for what, ours, base in (
            ("alloc", "alloc(size).close()", "new()"),
            ("map", "map(memory).close()", "existing()"),
        ):
            names = {"alloc": dma.alloc, "map": dma.map, "size": size, "memory": array}
            a, b, ratio = compare(
                timed(ours, names, loops), timed(base, {"new": bare.new, "existing": bare.existing}, loops), rounds
            )
            # What Python does is the same for any size, and most of it for small ones.
            target, met = ("<= 2", ratio <= 2) if size >= 1 << 20 else ("", True)
            results.append(Result(f"{what}, close, {name}", a, "the ioctls", b, ratio, target, met))
    return results


def copies(buffer: DmaBuffer, size: int, rounds: int) -> list[Result]:
    # Use the buffer's own memory for both sides, so that they do not differ by the kind of page.
    plain = memoryview(buffer.page.memory)[buffer.offset_in_page : buffer.offset_in_page + size]
    data = bytes(range(256)) * (size // 256 + 1)
    loops = max(20, 2000000 // (size + 500))
    names = {"buffer": buffer, "plain": plain, "view": memoryview(buffer), "data": data[:size], "end": size}
    pairs = (
        ("buffer[:n] = data", "buffer[:end] = data", "plain[:end] = data"),
        ("view[:n] = data", "view[:end] = data", "plain[:end] = data"),
        ("bytes(buffer)", "bytes(buffer)", "bytes(plain)"),
        ("bytes(view[:n])", "bytes(view[:end])", "bytes(plain[:end])"),
    )
    results = []
    for name, ours, base in pairs:
        a, b, ratio = compare(timed(ours, names, loops), timed(base, names, loops), rounds)
        name = f"{name}, {size} bytes"
        results.append(Result(name, a, "memoryview of the mapping", b, ratio, f"<= {NOISE}", ratio <= NOISE))
    return results


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--vfio", metavar="ADDRESS", help="measure the memory of this PCI function")
    options = parser.parse_args()
    gc.disable()
    if options.vfio:
        with pyuio.open(options.vfio, bind="vfio-pci") as device:
            results = measure_vfio(device, options.rounds)
    else:
        with contextlib.closing(Dma("no device")) as dma:
            results = measure(dma, options.rounds)
    if options.json:
        print(json.dumps([vars(result) for result in results], indent=1))
    else:
        table = Table("", "us", "baseline", "us", "ratio", "target", "")
        for one in results:
            times = f"{one.ours:.3f}", one.baseline, f"{one.base:.3f}", f"{one.ratio:.2f}"
            table.add_row(one.name, *times, one.target, "" if one.met else "missed")
        Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 1 if options.check and not all(result.met for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
