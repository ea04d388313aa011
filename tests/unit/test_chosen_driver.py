# SPDX-License-Identifier: MIT
"""The driver that a command line names, in a file or installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.inspect.chosen_driver import load
from pyuio.kernel.trusted_directory import stranger

DRIVER = """
from dataclasses import dataclass

from some_registers_of_a_test import Registers

import pyuio

@dataclass
class Setting:
    value: "int" = 0

class Card(pyuio.Driver):
    ids = ("1234:11e8",)
    register_maps = {0: Registers}
"""
REGISTERS = "import pyuio\nclass Registers(pyuio.RegisterMap):\n    status = pyuio.Register(4)\n"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A driver in a directory that nobody else can write to, with a module beside it."""
    if stranger(tmp_path) is not None:
        pytest.skip("another user can write to a directory above the temporary one")
    modules, path, hooks = dict(sys.modules), list(sys.path), list(sys.path_hooks)
    (tmp_path / "some_registers_of_a_test.py").write_text(REGISTERS)
    made = tmp_path / "some_card_of_a_test.py"
    made.write_text(DRIVER)
    for one in (made, tmp_path / "some_registers_of_a_test.py"):
        one.chmod(0o644)
    yield made
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]
    sys.path[:], sys.path_hooks[:] = path, hooks


def test_a_driver_in_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(f"{file}:Card").register_maps[0].find("status").offset == 4
    monkeypatch.chdir(file.parent)
    assert load(f"{file.name}:Card").ids == ("1234:11e8",)
    with pytest.raises(pyuio.DriverNotFoundError, match="has no class Crad; the drivers in it: Card"):
        load(f"{file}:Crad")
    with pytest.raises(pyuio.DriverLoadError, match="is not a class derived from"):
        load(f"{file}:Setting")


def test_an_installed_driver() -> None:
    assert load("edu") is Edu
    with pytest.raises(pyuio.DriverNotFoundError, match=r"'edo' names no driver; .* there are: .*edu "):
        load("edo")


@pytest.mark.parametrize("text", ["", ":", "edu:", "card.py:", "card.py:a b", "card:Card", ":Card"])
def test_texts_that_name_no_driver(text: str) -> None:
    with pytest.raises(pyuio.DriverNotFoundError, match="names no driver"):
        load(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('no')", "cannot be loaded: ValueError: no"),
        ("import sys; sys.exit(0)", "cannot be loaded: SystemExit: 0"),
        ("class Card(", "cannot be loaded: SyntaxError"),
        ("import pyuio\nclass Card(pyuio.Driver):\n    ids = '1234:11e8'", "its ids are '1234:11e8', not as in"),
    ],
)
def test_files_that_cannot_be_loaded(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(pyuio.DriverLoadError) as caught:
        load(f"{file}:Card")
    assert reason in str(caught.value)
    assert "some_card_of_a_test" not in sys.modules or reason.startswith("its ids")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(pyuio.DriverNotFoundError, match="No such file"):
        load(f"{tmp_path}/none.py:Card")


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_another_user_can_write_is_not_loaded(file: Path, tmp_path: Path, what: str) -> None:
    (tmp_path / "made").unlink(missing_ok=True)
    file.write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    named = file
    if what == "file":
        file.chmod(0o666)
    elif what == "directory":
        file.parent.chmod(0o777)
    else:
        inside = tmp_path / "inside"
        inside.mkdir()
        named = inside / "link.py"
        named.symlink_to(file)
        file.parent.chmod(0o1777)
    with pytest.raises(pyuio.DriverLoadError, match="another user can write to"):
        load(f"{named}:Card")
    assert not (tmp_path / "made").exists()
    file.parent.chmod(0o700)


def with_modules_beside(file: Path) -> None:
    """Have the driver import packages that lie beside it, one of them without ``__init__.py``."""
    file.write_text(f"import package.inside\nimport loose.deep.inside\n{DRIVER}")
    for name in ("package", "loose/deep", "__pycache__", "data"):
        (file.parent / name).mkdir(parents=True, exist_ok=True)
    for name in ("package/__init__.py", "package/inside.py", "loose/deep/inside.py"):
        (file.parent / name).touch(mode=0o644)


def test_modules_beside_it_are_imported(file: Path) -> None:
    """What the driver does not import does not matter."""
    with_modules_beside(file)
    (file.parent / "broken.py").symlink_to("nowhere.py")
    (file.parent / "data").chmod(0o777)
    (file.parent / "other.py").touch()
    (file.parent / "other.py").chmod(0o666)
    assert load(f"{file}:Card").ids == ("1234:11e8",)


@pytest.mark.parametrize(
    "written",
    [
        "some_registers_of_a_test.py",
        "package",
        "package/__init__.py",
        "package/inside.py",
        "loose",
        "loose/deep",
        "loose/deep/inside.py",
        "__pycache__",
        cache_from_source("some_registers_of_a_test.py"),
    ],
)
def test_what_another_user_can_write_beside_it_is_not_imported(file: Path, written: str) -> None:
    with_modules_beside(file)
    place = file.parent / written
    if not place.exists():
        place.touch()
    place.chmod(0o777)
    with pytest.raises(pyuio.DriverLoadError, match=f"another user can write to {place}, "):
        load(f"{file}:Card")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_loads_no_file_of_another_user(file: Path) -> None:
    os.chown(file, 65534, 65534)
    with pytest.raises(pyuio.DriverLoadError, match="another user can write to"):
        load(f"{file}:Card")
