# SPDX-License-Identifier: MIT
"""Runs in a guest: installs a wheel into a directory of its own, and drives edu with what is in it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

wheel = sys.argv[1]
with tempfile.TemporaryDirectory() as directory:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--root-user-action=ignore", "--target", directory, wheel], check=True)
    # What the wheel has comes before the clone's; its dependencies are the clone's.
    variables = {**os.environ, "PYTHONPATH": directory}
    where = "import pyuio, pyuio_drivers; print(pyuio.__file__, pyuio_drivers.__file__)"
    for command in ([f"{directory}/bin/pyuio", "--version"], ["-c", where], [str(ROOT / "examples/demo.py")]):
        done = subprocess.run(
            [sys.executable, *command], env=variables, cwd="/", check=True, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout.replace(directory, "WHEEL"), end="")
print(platform.machine())
