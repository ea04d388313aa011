# SPDX-License-Identifier: MIT
"""How long a native service takes to start, in ms: with no real time, with all of it, and with what a service needs.

Run ``python benchmarks/service_start.py`` as root, with an edu card (``pyuio vm run -- python ...``; ``--json`` for a
program). Each start is the first one of a new process, so it includes the import of what it needs; the ways take turns
in every round. The figures are medians; the ratio is to the start with all of it, and the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from pyuio_drivers.edu import Edu

import pyuio

WAYS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "without": nullcontext,
    "real time": pyuio.realtime,
    "no heap, garbage": functools.partial(pyuio.realtime, heap=0, freeze_garbage=False),
}


def start(way: str) -> float:
    """Return how long the first service of this process takes to start, in ms."""
    with Edu.open() as card:
        program = card.acknowledge_program()
        begin = time.perf_counter()
        with pyuio.Service(card.device.interrupt, program, around=WAYS[way]):
            return (time.perf_counter() - begin) * 1e3


def in_a_process(way: str) -> float:
    """Return what `start` returns in a process of its own."""
    command = [sys.executable, __file__, "--way", way]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(start(options.way))
        return
    rounds = []
    for index in range(options.rounds + 1):
        order = list(WAYS)[:: 1 if index % 2 else -1]
        rounds.append({way: in_a_process(way) for way in order})
    del rounds[0]  # in it, files come into memory
    found = {
        way: {
            "ms": statistics.median(one[way] for one in rounds),
            "ratio": statistics.median(one[way] / one["real time"] for one in rounds),
        }
        for way in WAYS
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':18}{'ms':>8}{'ratio':>8}")
    for way, one in found.items():
        print(f"{way:18}{one['ms']:8.1f}{one['ratio']:8.2f}")


if __name__ == "__main__":
    main()
