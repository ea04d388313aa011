# SPDX-License-Identifier: MIT
"""What ``import pyuio`` and ``pyuio list`` cost, in ms, over a Python program that does nothing.

Run ``python benchmarks/import_time.py`` (``--check`` to fail when the target is missed, ``--json`` for a program;
``--python`` names another interpreter, as that of a virtual environment into which a wheel was installed). An editable
installation costs a little more, by its links.

The programs run in turn in every round; the times are medians, the ratios are medians of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

NOTHING = "pass"
IMPORT = "import pyuio"
LIST = "import sys; from pyuio.cli import main; sys.argv = ['pyuio', 'list']; main()"
PROGRAMS = (NOTHING, IMPORT, LIST)
TARGET = 40.0  # ms


@dataclass
class Result:
    """Medians in ms, and how they relate."""

    nothing: float
    imported: float
    listed: float
    difference: float
    ratio: float
    list_ratio: float
    target: float
    met: bool


def run(python: str, program: str) -> float:
    """Run a program in an interpreter of its own, and return the ms from its start to its end."""
    start = time.perf_counter()
    # Isolated: neither this directory nor the environment's variables say what is imported, and how.
    subprocess.run([python, "-I", "-c", program], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1e3


def measure(python: str, rounds: int) -> Result:
    """Run the programs in turn; the first round compiles what is not compiled yet, and does not count."""
    times = []
    for index in range(rounds + 1):
        took = {program: run(python, program) for program in PROGRAMS[:: 1 if index % 2 else -1]}
        times.append([took[program] for program in PROGRAMS])
    del times[0]
    nothing, imported, listed = map(statistics.median, zip(*times, strict=True))
    difference = statistics.median(b - a for a, b, _ in times)
    return Result(
        nothing=nothing,
        imported=imported,
        listed=listed,
        difference=difference,
        ratio=statistics.median(b / a for a, b, _ in times),
        list_ratio=statistics.median(c / a for a, _, c in times),
        target=TARGET,
        met=difference <= TARGET,
    )


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure; default: this one")
    parser.add_argument("--check", action="store_true", help="fail when the target is missed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    result = measure(options.python, options.rounds)
    if options.json:
        print(json.dumps(vars(result), indent=1))
    else:
        print(f"{NOTHING}: {result.nothing:.1f} ms; {IMPORT}: {result.imported:.1f} ms, {result.ratio:.2f} times that")
        print(f"pyuio list: {result.listed:.1f} ms, {result.list_ratio:.2f} times that")
        missed = "" if result.met else ", missed"
        print(f"import pyuio costs {result.difference:.1f} ms (target: <= {result.target:g} ms{missed})")
    return 1 if options.check and not result.met else 0


if __name__ == "__main__":
    sys.exit(main())
