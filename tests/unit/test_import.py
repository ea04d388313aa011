# SPDX-License-Identifier: MIT
"""What ``import pyuio`` imports, as that is what it costs, and what it offers all the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyuio

# What takes long to import, and is imported by whoever needs it; dataclasses, as it imports inspect.
LATE = {
    "asyncio",
    "ctypes",
    "dataclasses",
    "difflib",
    "hdrh",
    "importlib.metadata",
    "inspect",
    "json",
    "periphery",
    "pyudev",
    "rich",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "typer",
}


# What `pyuio list` does without: half of its start would be theirs. pyudev, which finds devices, needs some of LATE.
NOT_LISTING = (LATE - {"ctypes", "pyudev", "shutil", "subprocess", "tempfile"}) | {
    "pyuio._native._interrupt",
    "pyuio.cli.bench",
    "pyuio.cli.description",
    "pyuio.cli.doctor",
    "pyuio.cli.info",
    "pyuio.cli.vm",
    "pyuio.device",
    "pyuio.doctor",
    "pyuio.installed_drivers",
    "pyuio.registers",
    "pyuio.vm",
}


def imported_by(program: str) -> set[str]:
    command = [sys.executable, "-c", f"{program}\nimport sys\nprint(sorted(sys.modules))"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(ast.literal_eval(done.stdout))


@pytest.mark.parametrize("program", ["import pyuio", "from pyuio import Driver, RegisterMap, open"])
def test_what_takes_long_is_imported_when_it_is_needed(program: str) -> None:
    # logging comes at once, as its hooks for forks must be there before one; from Python 3.14 on it needs dataclasses.
    assert (imported_by(program) - imported_by("import logging")) & LATE == set()


def test_a_list_of_devices_imports_what_it_needs() -> None:
    program = (
        "import contextlib, io, sys\nfrom pyuio.cli import main\nsys.argv = ['pyuio', 'list']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n    main()"
    )
    imported = imported_by(program)
    assert "pyuio.cli.listing" in imported
    # Python 3.14's own traceback imports these, and logging imports that.
    pythons_own = {"dataclasses", "inspect"} if sys.version_info[:2] == (3, 14) else set()
    assert imported & NOT_LISTING <= pythons_own


def test_periphery_comes_with_the_first_region(tmp_path: Path) -> None:
    (tmp_path / "registers").write_bytes(bytes(4096))
    program = (
        "import sys\nfrom pyuio.region import Region\nassert 'periphery' not in sys.modules\n"
        f"with Region({str(tmp_path / 'registers')!r}, 4096) as region:\n"
        "    import periphery\n"
        "    assert isinstance(region.mmio, periphery.MMIO)"
    )
    assert "periphery" in imported_by(program)


def test_modules_with_names_of_their_own_are_reached_by_attribute() -> None:
    assert "pyuio.program" in imported_by("import pyuio\npyuio.program.Read, pyuio.service.HANDLER")


@pytest.mark.parametrize("package", ["dma", "interrupt", "pci", "region", "registers"])
def test_packages_with_names_of_their_own_are_reached_by_attribute(package: str) -> None:
    program = f"import pyuio\nassert [getattr(pyuio.{package}, name) for name in pyuio.{package}.__all__]"
    assert f"pyuio.{package}" in imported_by(program)


def test_every_name_is_there_and_listed() -> None:
    assert set(pyuio.__all__) <= set(dir(pyuio))
    assert "__version__" in dir(pyuio)
    for name in pyuio.__all__:
        assert getattr(pyuio, name).__name__ == name
    with pytest.raises(AttributeError, match="'pyuio' has no attribute 'no_such_name'"):
        pyuio.no_such_name  # type: ignore[attr-defined] # noqa: B018
