# SPDX-License-Identifier: MIT
"""What a card in Python costs in a guest: reads and interrupts a second, beside QEMU's own edu in the same guest.

Run ``python benchmarks/card_in_guest.py`` on the host (``--json`` for a program). The two cards take turns in every
round; the figures are medians of the rounds, and the ratio is the median of the rounds' own. An interrupt is: write to
the register that raises it, return from ``interrupt.read``, acknowledge.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from pyuio_drivers.edu import Edu

import pyuio

CARDS = {"Python": "0000:00:01.0", "QEMU": "0000:00:02.0"}
READS, INTERRUPTS = 2000, 200


def reads(card: Edu) -> float:
    """Return how many reads of a register a second makes."""
    bar, start = card.bar, time.perf_counter()
    for _ in range(READS):
        bar.read32(0)
    return READS / (time.perf_counter() - start)


def interrupts(card: Edu) -> float:
    """Return how many interrupts a second makes."""
    start = time.perf_counter()
    for _ in range(INTERRUPTS):
        card.raise_interrupt(1)
        card.device.interrupt.read(10)
        card.registers.acknowledge_interrupt.write(1)
    return INTERRUPTS / (time.perf_counter() - start)


MEASURES: dict[str, Callable[[Edu], float]] = {"reads/s": reads, "interrupts/s": interrupts}


def in_guest(rounds: int) -> None:
    """Measure, and print the figures of each round as JSON."""
    with Edu(pyuio.open(CARDS["Python"], bind=True)) as ours, Edu(pyuio.open(CARDS["QEMU"], bind=True)) as theirs:
        cards = {"Python": ours, "QEMU": theirs}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in MEASURES}
        for index in range(rounds + 1):
            order = list(cards.items())[:: 1 if index % 2 else -1]
            for name, measure in MEASURES.items():
                figures = {who: measure(card) for who, card in order}
                if index:  # the first round warms up
                    found[name].append(figures)
    print(json.dumps(found))


def main() -> None:
    """Measure in a guest, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--in-guest", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_guest:
        in_guest(options.rounds)
        return
    guest = ["--card", "pyuio_drivers.models.edu:EduCard", "--device", "edu,addr=2", "--", sys.executable, __file__]
    command = [sys.executable, "-m", "pyuio.cli", "vm", "run", *guest, "--in-guest", f"--rounds={options.rounds}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    found = {}
    for name, rounds in json.loads(done.stdout).items():
        figures = {who: statistics.median(one[who] for one in rounds) for who in CARDS}
        found[name] = {**figures, "ratio": statistics.median(one["Python"] / one["QEMU"] for one in rounds)}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':16}{'in Python':>12}{'in QEMU':>12}{'ratio':>8}")
    for name, one in found.items():
        print(f"{name:16}{one['Python']:12.0f}{one['QEMU']:12.0f}{one['ratio']:8.2f}")


if __name__ == "__main__":
    main()
