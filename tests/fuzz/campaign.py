# SPDX-License-Identifier: MIT
"""Fuzzes all targets for a while, two at a time, each in its own process, for ``make fuzz``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent.parent
AT_ONCE = 2
LONGEST_INPUT = 10  # seconds for one input; a longer run counts as a hang
MEMORY = 1024  # MiB for a process


def run(output: Path, seconds: float, names: list[str]) -> tuple[int, int, int]:
    """Fuzz targets, and return how many passed, failed, and were skipped.

    Args:
        output: the directory in which each target has a directory of inputs that reached new branches, from which the
            next run starts; inputs that make a target fail are kept here, too.
        seconds: the time for all targets together.
        names: the names of the targets; [] for all.
    """
    if wrong := set(names) - set(TARGETS):
        print(f"fuzz: no target {', '.join(sorted(wrong))}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 0, 1, 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: .venv/bin/pip install atheris (CPython 3.11 to 3.13)", file=sys.stderr)
        return 0, 1, 0
    chosen = names or list(TARGETS)
    each = max(1, round(seconds * min(AT_ONCE, len(chosen)) / len(chosen)))
    with ThreadPoolExecutor(AT_ONCE) as executor:
        held = list(executor.map(lambda name: _fuzz(name, output, each), chosen))
    return sum(held), len(held) - sum(held), 0


def _fuzz(name: str, output: Path, seconds: int) -> bool:
    """Fuzz one target, print the result, and return whether it passed."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.run", name, str(output / name), f"-max_total_time={seconds}"]
    limits = [f"-timeout={LONGEST_INPUT}", f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={output}/{name}-"]
    with (output / f"{name}.log").open("w+") as log:
        status = subprocess.run([*command, *limits], cwd=ROOT, stdout=log, stderr=log, check=False).returncode
        log.seek(0)
        lines = [line for line in log.read().splitlines() if not line.startswith("INFO: ")]
    done = next((line for line in reversed(lines) if line.startswith("Done ")), "")
    if status == 0 and done:
        print(f"{name}: {done.removeprefix('Done ')}", flush=True)
        return True
    print(f"{name}: failed (status {status}):", *lines[-40:], sep="\n  ", flush=True)
    return False
