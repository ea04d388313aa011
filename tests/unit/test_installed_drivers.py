# SPDX-License-Identifier: MIT
"""Drivers that installed packages publish: the test puts real packages with ordinary metadata on the path."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

from pyuio.errors import AmbiguousDriverError, DriverLoadError, DriverNotFoundError
from pyuio.installed_drivers import driver_for, drivers_for, installed_drivers

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a package with one module and one entry point on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, source: str, entry_point: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        information = tmp_path / f"{name}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[pyuio.drivers]\n{entry_point}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)

    return put


def test_edu_is_published() -> None:
    found = {driver.name: driver for driver in installed_drivers()}
    assert found["edu"].distribution == "pyuio-framework"
    assert found["edu"].driver is Edu
    assert found["edu"].ids == ("1234:11e8",)
    assert driver_for("1234:11E8") is Edu


def test_a_driver_of_another_package(install: Install) -> None:
    install("acme", "import pyuio\nclass Card(pyuio.Driver):\n    ids = ('aced:0001',)\n", "card = acme:Card")
    assert driver_for("aced:0001").__name__ == "Card"
    assert "card (acme)" in map(str, installed_drivers())


def test_a_driver_for_a_class_of_cards(install: Install) -> None:
    install("acme", "import pyuio\nclass Card(pyuio.Driver):\n    class_codes = (0xFF0001,)\n", "card = acme:Card")
    assert [str(driver) for driver in drivers_for("aced:0001", 0xFF0001)[0]] == ["card (acme)"]
    assert drivers_for("aced:0001")[0] == drivers_for("aced:0001", 0xFF0002)[0] == []
    assert [driver.name for driver in drivers_for("8086:0a54", 0x010802)[0]] == ["nvme"]


def test_nothing_is_loaded_before_it_is_asked_for(install: Install) -> None:
    install("acme", "raise RuntimeError('loaded')", "card = acme:Card")
    assert "card" in [driver.name for driver in installed_drivers()]
    assert "acme" not in sys.modules


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("class Card(:", "SyntaxError"),
        ("raise RuntimeError('of its own')", "RuntimeError: of its own"),
        ("import sys\nsys.exit('bye')", "SystemExit: bye"),
        ("import pyuio\nclass Card(pyuio.Driver):\n    ids = '1234:11e8'", "its ids are"),
        ("import pyuio\nclass Card(pyuio.Driver):\n    ids = ('1234:11E8',)", "its ids are"),
        ("import pyuio\nclass Card(pyuio.Driver):\n    uio_names = 'regs'", "its uio_names are"),
        ("Card = 3", "not a class derived from pyuio.Driver"),
        ("", "AttributeError"),
    ],
)
def test_one_that_does_not_load_harms_no_other(install: Install, source: str, says: str) -> None:
    install("acme", source, "broken = acme:Card")
    assert driver_for("1234:11e8") is Edu
    serving, failures = drivers_for("1234:11e8")
    assert [driver.name for driver in serving] == ["edu"]
    assert [says in str(error) and "acme" in str(error) for error in failures] == [True]
    broken = next(driver for driver in installed_drivers() if driver.name == "broken")
    with pytest.raises(DriverLoadError, match="of acme"):
        _ = broken.ids
    # The user may have wanted this driver.
    with pytest.raises(DriverNotFoundError, match=r"serves aced:0001(.|\n)*broken"):
        driver_for("aced:0001")


def test_none_serves(install: Install) -> None:
    with pytest.raises(DriverNotFoundError, match=r"there are: .*edu \(pyuio-framework\)"):
        driver_for("aced:0001")
    with pytest.raises(DriverNotFoundError, match="not a PCI function"):
        driver_for(None)


def test_several_serve(install: Install) -> None:
    install("acme", "import pyuio\nclass Other(pyuio.Driver):\n    ids = ('1234:11e8',)\n", "other = acme:Other")
    assert driver_for("1234:11e8").__name__ == "Other", "pyuio's own gives way"
    install("more", "import pyuio\nclass More(pyuio.Driver):\n    ids = ('1234:11e8',)\n", "more = more:More")
    with pytest.raises(AmbiguousDriverError, match=r"2 installed drivers serve .*: more \(more\), other \(acme\)"):
        driver_for("1234:11e8")


def test_a_driver_for_a_node(install: Install) -> None:
    source = "import pyuio\nclass Board(pyuio.Driver):\n    uio_names = ('fpga-regs', 'fpga-dma')\n"
    install("acme", source, "board = acme:Board")
    assert driver_for(None, None, "fpga-dma").__name__ == "Board"
    assert [str(driver) for driver in drivers_for(None, uio_name="fpga-regs")[0]] == ["board (acme)"]
    assert driver_for("1234:11e8", None, "fpga-regs").__name__ == "Board", "the name of a node says most"
    assert driver_for("1234:11e8", None, "uio_pci_generic") is Edu
    with pytest.raises(DriverNotFoundError, match="no installed driver serves the node fpga; there are"):
        driver_for(None, None, "fpga")


def test_the_ids_go_before_the_class(install: Install) -> None:
    install("acme", "import pyuio\nclass Any(pyuio.Driver):\n    class_codes = (0xFF0001,)\n", "any = acme:Any")
    assert driver_for("aced:0001", 0xFF0001).__name__ == "Any"
    assert driver_for("1234:11e8", 0xFF0001) is Edu
