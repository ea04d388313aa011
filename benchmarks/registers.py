# SPDX-License-Identifier: MIT
"""Measures the cost of a register access in Python, in ns, and as a ratio to ``memoryview(mmap).cast("I")[i]``.

Run ``python benchmarks/registers.py`` (``--check`` fails if a target is missed, ``--json`` prints JSON for a program,
``--rounds`` gives the number of rounds). It needs numpy, but no device and no privilege.

The registers are ordinary memory, so only the software is measured. In every round all ways run in turn. The time is
that of the best round; the ratio is the median of the rounds' own ratios, so that neither a busy machine nor a change
of its clock decides. The loop repeats each statement many times, so that the loop itself does not count.

CPython 3.10 misses the targets of read and write: it is from 3.11 on that it calls a C method without a detour.

"by name" makes the same accesses through `pyuio.registers`: ``card.status.read()``, and for an update
``card.status.mode = 3``. Its ratio to the Region has a target, too.

"a program" is `Device.run` with a program of 20 writes, which is run again and again: its cost is compared with that of
one `Region.write32`.

For the second table another Python thread is busy, and single accesses are timed. Their times include reading the
clock, and getting the global interpreter lock back after a call that released it. PortRegion is there for comparison:
it has to release the lock.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import mmap
import platform
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from periphery import MMIO
from rich.console import Console
from rich.table import Table

from pyuio._native._access import Presence
from pyuio._native._program import Runner
from pyuio.program import Operation, Write
from pyuio.program.run import Outcome, run_once
from pyuio.region import PortRegion, Region
from pyuio.registers import Field, Register, RegisterMap

BASELINE = "memoryview"
NAMED = "by name"
OPERATIONS = ("read", "field", "write", "update", "set")
# The way that is judged, the way it is compared with, and the largest allowed ratio of the costs by operation.
TARGETS = (
    ("Region", BASELINE, {"read": 1.0, "write": 1.0, "update": 0.35}),
    (NAMED, "Region", {"read": 2.0, "field": 2.0, "write": 2.0, "update": 2.0}),
)
REPEATS = 20  # of the statement in the body of the loop
LOOPS = 500
PROGRAM_WRITES = 20
PROGRAM_TARGET = 3.0  # the cost of a program of so many writes, as a multiple of that of one
BUSY_ACCESSES = 500  # of each way in each round with a busy thread; there is one for 5 rounds
GIVES_UP_LOCK = "PortRegion"


class Status(Register):
    """The register at offset 64, whose fields the other ways access by masks."""

    mode = Field(7, 0)
    enable = Field(8)


class Card(RegisterMap):
    """The registers by name."""

    status = Status(64)


class Machine(Runner):
    """Runs programs as `pyuio.Device` does."""

    def _run_slowly(self, program: Sequence[Operation]) -> Outcome:
        outcome, prepared = run_once(program, Presence("nothing"), time)
        if prepared is not None:
            self._remember(prepared)
        return outcome


@dataclass
class Way:
    """One way to access a register: the statements, and the times in ns."""

    name: str
    names: dict[str, Any]
    statements: dict[str, str]
    idle: dict[str, list[float]] = field(default_factory=dict)
    busy: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loops = {operation: self._compiled(f"{s}\n" * REPEATS) for operation, s in self.statements.items()}
        self.single = {
            operation: self._compiled(f"begin = clock()\n{s}\nappend(clock() - begin)\n", "append, clock")
            for operation, s in self.statements.items()
        }

    def _compiled(self, body: str, more: str = "") -> Callable[..., None]:
        """Return a function whose parameters are the number of loops and `more`; all its names are local."""
        keywords = "".join(f", {name}={name}" for name in self.names)
        lines = "".join(f"        {line}\n" for line in body.splitlines())
        source = f"def loop(count, {more + ', ' if more else ''}*{keywords}):\n    for _ in range(count):\n{lines}"
        namespace = dict(self.names)
        exec(source, namespace)
        loop: Callable[..., None] = namespace["loop"]
        return loop


def ways(path: str, memory: mmap.mmap, region: Region, ports: PortRegion) -> list[Way]:
    names: dict[str, Any] = {"value": 0x12345678}
    word = struct.Struct("<I")

    def plain(name: str, more: dict[str, Any], target: str, read: str | None = None) -> Way:
        """Return a way in which a write is an assignment to the expression that a read uses."""
        read = target if read is None else read
        return Way(
            name,
            names | more,
            {
                "read": read,
                "field": f"{read} & 0xff",
                "write": f"{target} = value",
                "update": f"{target} = {read} & ~0xff | 0x12",
                "set": f"{target} = {read} | 0x100",
            },
        )

    def methods(name: str, bar: Any) -> Way:
        return Way(
            name,
            names | {"bar": bar},
            {
                "read": "bar.read32(64)",
                "field": "bar.read32(64) & 0xff",
                "write": "bar.write32(64, value)",
                "update": "bar.update32(64, 0xff, 0x12)",
                "set": "bar.set32(64, 0x100)",
            },
        )

    def calls(name: str, more: dict[str, Any], read: str, write: str) -> Way:
        return Way(
            name,
            names | more,
            {
                "read": read,
                "field": f"{read} & 0xff",
                "write": write.format("value"),
                "update": write.format(f"{read} & ~0xff | 0x12"),
                "set": write.format(f"{read} | 0x100"),
            },
        )

    return [
        plain(BASELINE, {"view": memoryview(memory).cast("I")}, "view[16]"),
        methods("Region", region),
        Way(
            NAMED,
            names | {"card": Card(region)},
            {
                "read": "card.status.read()",
                "field": "card.status.mode",
                "write": "card.status.write(value)",
                "update": "card.status.mode = 0x12",
                "set": "card.status.enable = True",
            },
        ),
        plain("ctypes", {"word": ctypes.c_uint32.from_buffer(memory, 64)}, "word.value"),
        plain("numpy", {"array": np.frombuffer(memory, np.uint32)}, "array[16]", "int(array[16])"),
        calls(
            "struct",
            {"memory": memory, "unpack": word.unpack_from, "pack": word.pack_into},
            "unpack(memory, 64)[0]",
            "pack(memory, 64, {})",
        ),
        calls("periphery", {"mmio": MMIO(0, mmap.PAGESIZE, path=path)}, "mmio.read32(64)", "mmio.write32(64, {})"),
        methods(GIVES_UP_LOCK, ports),
    ]


@contextmanager
def busy_thread() -> Iterator[None]:
    """Keep another Python thread busy."""
    stop = False

    def spin() -> None:
        while not stop:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()


def program_way(region: Region) -> Way:
    """Return a program and a single write, whose loops make as many calls of each."""
    program = [Write(region, 4 * number, number) for number in range(PROGRAM_WRITES)]
    names = {"run": Machine().run, "program": program, "write32": region.write32}
    return Way("a program", names, {"program": "run(program)", "single": "write32(64, 5)"})


def measure(all_ways: list[Way], program: Way, rounds: int) -> None:
    gc.disable()
    for _ in range(rounds):
        for operation, loop in program.loops.items():
            begin = time.perf_counter_ns()
            loop(LOOPS)
            program.idle.setdefault(operation, []).append((time.perf_counter_ns() - begin) / (LOOPS * REPEATS))
        for operation in OPERATIONS:
            for way in all_ways:
                count = LOOPS // 10 if way.name in (GIVES_UP_LOCK, "periphery") else LOOPS
                begin = time.perf_counter_ns()
                way.loops[operation](count)
                taken = time.perf_counter_ns() - begin
                way.idle.setdefault(operation, []).append(taken / (count * REPEATS))
    with busy_thread():
        for _ in range(max(1, rounds // 5)):
            for operation in OPERATIONS:
                for way in all_ways:
                    times = way.busy.setdefault(operation, [])
                    count = BUSY_ACCESSES // 5 if way.name == GIVES_UP_LOCK else BUSY_ACCESSES
                    way.single[operation](count, times.append, time.perf_counter_ns)
    gc.enable()


def results(all_ways: list[Way]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures by way and operation: ns, ratio, and the times of single accesses with a busy thread in us."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way in all_ways:
        for operation, times in way.idle.items():
            single = sorted(way.busy[operation])
            found.setdefault(way.name, {})[operation] = {
                "ns": min(times),
                "ratio": ratio(all_ways, way.name, BASELINE, operation),
                "busy_median_us": statistics.median(single) / 1e3,
                "busy_mean_us": statistics.fmean(single) / 1e3,
                "busy_p999_us": single[len(single) * 999 // 1000] / 1e3,
                "busy_max_us": single[-1] / 1e3,
            }
    return found


def ratio(all_ways: list[Way], way: str, other: str, operation: str) -> float:
    """Return the median of the rounds' ratios of two ways' times."""
    times, others = (next(one for one in all_ways if one.name == name).idle[operation] for name in (way, other))
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def tables(found: dict[str, dict[str, dict[str, float]]]) -> Iterator[Table]:
    idle = Table(title=f"32-bit accesses: ns, and ratio to {BASELINE} (CPython {platform.python_version()})")
    busy = Table(title="With another Python thread busy: one access in us, median / mean / 99.9 % / max")
    for table in (idle, busy):
        table.add_column("way")
        for operation in OPERATIONS:
            table.add_column(operation, justify="right")
    for name, operations in found.items():
        idle.add_row(name, *(f"{one['ns']:.1f} ({one['ratio']:.2f})" for one in operations.values()))
        busy.add_row(
            name,
            *(
                " / ".join(f"{one[f'busy_{part}_us']:.3g}" for part in ("median", "mean", "p999", "max"))
                for one in operations.values()
            ),
        )
    yield idle
    yield busy


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="rounds of every way (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    parser.add_argument("--check", action="store_true", help="exit with 1 when Region, or by name, misses a target")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(mmap.PAGESIZE)
        memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        with Region(file.name, mmap.PAGESIZE) as region, PortRegion(file.name, mmap.PAGESIZE) as ports:
            region.write32(64, 0x12345678)
            all_ways = ways(file.name, memory, region, ports)
            program = program_way(region)
            measure(all_ways, program, options.rounds)
    found = results(all_ways)
    judged = [
        (ratio(all_ways, way, other, operation), target, f"{way}, {operation}", other)
        for way, other, targets in TARGETS
        for operation, target in targets.items()
    ]
    pairs = zip(program.idle["program"], program.idle["single"], strict=True)
    of_program = statistics.median(a / b for a, b in pairs)
    judged.append((of_program, PROGRAM_TARGET, f"a program of {PROGRAM_WRITES} writes", "one write"))
    missed = [
        f"{what}: {is_:.2f} times {other}, at most {target} wanted"
        for is_, target, what, other in judged
        if is_ > target
    ]
    named = {operation: ratio(all_ways, NAMED, "Region", operation) for operation in OPERATIONS}
    if options.json:
        report = {
            "python": platform.python_version(),
            "ways": found,
            "named_to_region": named,
            "program": of_program,
            "missed": missed,
        }
        print(json.dumps(report, indent=2))
    else:
        console = Console()
        for table in tables(found):
            console.print(table)
        ratios = ", ".join(f"{operation} {value:.2f}" for operation, value in named.items())
        console.print(f"{NAMED}, as ratio to Region: {ratios} (at most 2 wanted, but for set)")
        cost = f"{min(program.idle['program']):.1f} ns, {of_program:.2f} times one write"
        console.print(f"Device.run, {PROGRAM_WRITES} writes: {cost} (at most {PROGRAM_TARGET:g} wanted)")
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
