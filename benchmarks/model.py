# SPDX-License-Identifier: MIT
"""Measures what a card in Python costs in the test's own process: a register access, and a whole test of edu's driver.

Run ``python benchmarks/model.py`` (``--check`` fails if a target is missed, ``--rounds`` gives the number of rounds).
Each time is the processor time of the best round, so that other programs do not count. In every round all ways run in
turn. "memory" is the same access to ordinary memory, and so the cost of the driver's side.
"""

from __future__ import annotations

import argparse
import math
import mmap
import sys
import time
from collections.abc import Callable

from pyuio_drivers.edu import Edu, EduRegisters
from pyuio_drivers.models.edu import EduCard
from rich.console import Console
from rich.table import Table

import pyuio.model

LARGEST_READ = 2.0  # us
LARGEST_TEST = 50.0  # ms
LOOPS = 5000


def test_edu() -> None:
    """Do what a test of edu's driver does: identification, factorials, interrupts, transfers both ways."""
    with Edu(pyuio.model.open(EduCard())) as edu:
        assert edu.liveness(0x12345678) == 0xEDCBA987
        for number in range(13):
            assert edu.factorial(number) == edu.factorial_by_interrupt(number) == math.factorial(number)
        for length in (1, 100, 4000):
            data = bytes(number % 251 for number in range(length))
            edu.to_device(data, by_interrupt=True)
            assert edu.from_device(length, by_interrupt=True) == data


def timed(work: Callable[[], object], loops: int = 1) -> float:
    """Return the processor time that `work` takes, in us."""
    start = time.process_time_ns()
    for _ in range(loops):
        work()
    return (time.process_time_ns() - start) / loops / 1e3


def main() -> int:
    """Measure, print the tables, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    options = parser.parse_args()
    with Edu(pyuio.model.open(EduCard())) as edu:
        plain = EduRegisters(mmap.mmap(-1, 4096))
        window = plain.status.info.region
        assert window is not None
        ways: dict[str, dict[str, Callable[[], object]]] = {
            "read32(offset)": {"card": lambda: edu.bar.read32(0x20), "memory": lambda: window.read32(0x20)},
            "status.read()": {"card": edu.registers.status.read, "memory": plain.status.read},
            "status.computing": {
                "card": lambda: edu.registers.status.computing,
                "memory": lambda: plain.status.computing,
            },
            "liveness.write(1), with a hook": {
                "card": lambda: edu.registers.liveness.write(1),
                "memory": lambda: plain.liveness.write(1),
            },
        }
        best: dict[tuple[str, str], float] = {}
        for _ in range(options.rounds):
            for name, both in ways.items():
                for which, work in both.items():
                    best[name, which] = min(best.get((name, which), math.inf), timed(work, LOOPS))
        whole = min(timed(test_edu) for _ in range(options.rounds)) / 1e3
    table = Table("access", "card, us", "memory, us")
    for name in ways:
        table.add_row(name, f"{best[name, 'card']:.2f}", f"{best[name, 'memory']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"a whole test of edu's driver: {whole:.1f} ms (target {LARGEST_TEST:g})")
    read = best["read32(offset)", "card"]
    missed = read > LARGEST_READ or whole > LARGEST_TEST
    if missed:
        console.print(f"missed: a read takes at most {LARGEST_READ:g} us, a test at most {LARGEST_TEST:g} ms")
    return int(missed and options.check)


if __name__ == "__main__":
    sys.exit(main())
