# SPDX-License-Identifier: MIT
"""What a guest's start costs: from a saved state, and by a boot, in s from the start of pyuio to its end.

Run ``python benchmarks/guest_start.py`` (``--check`` to fail when a target is missed, ``--json`` for a program). Each
command runs from a saved state and by a boot in turn in every round; the times are medians, and the ratios are medians
of the rounds' own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "examples/demo.py"
# By name: the command, and the ratio to a boot that it may have under emulation.
COMMANDS = {
    "true": (["true"], 0.35),
    "pyuio list": (["pyuio", "list"], 0.35),
    "demo": (["python", str(DEMO)], 0.5),
}


@dataclass
class Result:
    """Medians in s, the ratio, and whether it is as small as the target."""

    command: str
    restored: float
    booted: float
    ratio: float
    target: float
    met: bool


def run(command: list[str], *, boot: bool) -> float:
    """Run a command in a guest, and return the s from the start of pyuio to its end."""
    words = [sys.executable, "-m", "pyuio.cli", "vm", "run", *(["--boot"] if boot else []), "--", *command]
    start = time.perf_counter()
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(name: str, rounds: int) -> Result:
    """Run one of `COMMANDS` both ways in turn; a first run, which may save the state, does not count."""
    command, target = COMMANDS[name]
    run(command, boot=False)
    times = []
    for index in range(rounds):
        took = {boot: run(command, boot=boot) for boot in (False, True)[:: 1 if index % 2 else -1]}
        times.append((took[False], took[True]))
    restored, booted = map(statistics.median, zip(*times, strict=True))
    ratio = statistics.median(a / b for a, b in times)
    return Result(name, restored, booted, ratio, target, met=ratio <= target)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    results = [measure(name, options.rounds) for name in COMMANDS]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        print(f"{'command':12}{'restored':>10}{'booted':>10}{'ratio':>8}{'target':>8}")
        for result in results:
            figures = f"{result.restored:8.2f} s{result.booted:8.2f} s{result.ratio:8.2f}{result.target:8.2f}"
            print(f"{result.command:12}{figures}{'' if result.met else '  missed'}")
    return int(options.check and not all(result.met for result in results))


if __name__ == "__main__":
    sys.exit(main())
