# SPDX-License-Identifier: MIT
"""The unit tests on every CPython that is here, each with the wheel that it builds: ``make test-pythons``.

tox does it (``[tool.tox]`` in pyproject.toml) with those that the variable PYTHONS names, those on the PATH, and those
where pyenv, uv and the containers that build wheels keep them. On Debian the rest is fetched, as far as Debian has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyuio.vm import cache
from pyuio.vm.errors import KernelError
from tests import debian_python

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t")
PLACES = (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin")  # below the home directory
ASK = "import sys; print('%d.%d' % sys.version_info[:2] + sys.abiflags, sys.executable)"


def ask(python: str | Path) -> list[str]:
    """Return the version of an interpreter, such as ``3.13t``, and its own path; nothing if it does not run."""
    try:
        done = subprocess.run([python, "-c", ASK], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return []
    return done.stdout.split(maxsplit=1) if done.returncode == 0 else []


def found() -> dict[str, str]:
    """Return the path of an interpreter for each version: those that PYTHONS names, then of `VERSIONS` what is here."""
    directories = [Path(place) for place in os.get_exec_path()]
    directories += [place for pattern in PLACES for place in sorted(Path.home().glob(pattern))]
    directories += [*sorted(Path("/opt/python").glob("*/bin")), *sorted(cache.root().glob("pythons/*/usr/bin"))]
    candidates = [Path(shutil.which(name) or name) for name in os.environ.get("PYTHONS", "").split()]
    candidates += [place / f"python{version}" for version in VERSIONS for place in directories]
    paths: dict[str, str] = {}
    for candidate in candidates:
        # A shim of pyenv's is on the PATH also where it has no such version; what runs tells its own path.
        if candidate.name.removeprefix("python") not in paths and candidate.exists() and (told := ask(candidate)):
            paths.setdefault(told[0], told[1].strip())
    return paths


def fetch(version: str) -> str | None:
    """Return the path of an interpreter from Debian; None if it cannot be had."""
    if version.endswith("t") or shutil.which("apt-get") is None:
        return None  # Debian has no free-threaded build
    try:
        return str(debian_python.fetch(version, cache.root() / "pythons" / version))
    except KernelError as error:
        print(f"Python {version} cannot be fetched: {error}", flush=True)
        return None


def run(options: list[str], counted: Callable[[int, Path], tuple[int, int, int]]) -> tuple[int, int, int]:
    """Run the tests; return how many passed, failed and were skipped, and print which Pythons are not here.

    Args:
        options: for pytest.
        counted: returns these numbers for an exit status and a file of results.
    """
    pythons = found()
    for version in VERSIONS:
        if version not in pythons and (path := fetch(version)):
            pythons[version] = path
    sums = (0, 0, 0)
    for version, path in pythons.items():
        results = ROOT / "build/tox" / version / "results.xml"
        results.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tox", "run", "--discover", path, "-e", version, "--", *options]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        passed, failed, skipped = counted(status, results)
        print(f"Python {version} ({path}): {passed} passed, {failed} failed, {skipped} skipped", flush=True)
        sums = (sums[0] + passed, sums[1] + failed, sums[2] + skipped)
    if missing := [version for version in VERSIONS if version not in pythons]:
        print(f"not tested, as they cannot be had here: Python {', '.join(missing)} (PYTHONS= names interpreters)")
    return sums
