# SPDX-License-Identifier: MIT
"""What an installation from the clone does: the editable one that ``make`` makes, and one that is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """
from pyuio import Driver, Service, open
from pyuio_drivers.edu import Edu

reveal_type(Driver.serves)
reveal_type(Service)
reveal_type(open)
reveal_type(Edu.factorial)
open("1234:11e8").no_such_thing
"""


@pytest.mark.parametrize("statement", ["from pyuio import Driver, Service", "from pyuio_drivers.edu import Edu"])
def test_a_script_beside_the_clone_finds_the_package(statement: str, tmp_path: Path) -> None:
    # The directory of the clone has the package's name, and would be a namespace package of that name.
    (tmp_path / "pyuio").symlink_to(ROOT, target_is_directory=True)
    for directory in (tmp_path, ROOT.parent, ROOT):
        done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, cwd=directory)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
def test_mypy_finds_the_types_in_another_project(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(PROJECT)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(tmp_path / "cache"),
        "project.py",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    lines = done.stdout.splitlines()
    revealed = [line for line in lines if "Revealed type" in line]
    assert len(revealed) == 4, done.stdout
    assert not [line for line in revealed if '"Any"' in line]
    assert "bool" in revealed[0]
    assert "pyuio.service.Service" in revealed[1]
    assert "pyuio.device.Device" in revealed[2]
    assert "def (self: " in revealed[3]
    assert "int" in revealed[3]
    errors = [line for line in lines if ": error:" in line]
    assert len(errors) == 1, done.stdout  # no missing import, nothing untyped, and this mistake is found
    assert '"Device" has no attribute "no_such_thing"' in errors[0]


def test_a_free_threaded_build_installs_nothing() -> None:
    # As in test_interpreters.py, such a build has this flag by itself.
    program = "import runpy, sys\nsys.abiflags = 't'\nsys.argv[1:] = ['--version']\nrunpy.run_path('setup.py')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: pyuio needs Python's global interpreter lock")
