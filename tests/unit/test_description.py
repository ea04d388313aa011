# SPDX-License-Identifier: MIT
"""The data that `list` and `info` get from files: recorded, damaged, and of a device that is not a PCI function."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pyuio.cli import info, listing
from pyuio.cli.description import description
from pyuio.cli.summary import summary
from pyuio.errors import DeviceRemovedError
from pyuio.pci.discovery import FoundDevice
from tests.unit.test_pci import recorded

PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text()


def found(directory: Path, **different: Any) -> FoundDevice:
    values = {
        "address": "0000:01:00.0",
        "ids": "8086:10d3",
        "class_code": 0x020000,
        "driver": None,
        "uio": None,
    }
    return FoundDevice(directory=directory, **{**values, **different})


@pytest.fixture
def e1000e(tmp_path: Path) -> Path:
    """Make a function's directory of plain files, which suffice for code that only reads them."""
    content, resource = recorded("e1000e")
    (tmp_path / "config").write_bytes(content)
    (tmp_path / "resource").write_text(resource)
    (tmp_path / "irq").write_text("11\n")
    (tmp_path / "numa_node").write_text("-1\n")
    (tmp_path / "power_state").write_text("unknown\n")
    (tmp_path / "iommu_group").symlink_to("../../kernel/iommu_groups/7")
    return tmp_path


def shown(described: dict[str, Any], width: int = 200) -> str:
    output = io.StringIO()
    info.show(described, Console(file=output, width=width, highlight=False))
    return re.sub(r" +", " ", output.getvalue())


def test_a_recorded_function(e1000e: Path) -> None:
    described = description(found(e1000e))
    assert json.loads(json.dumps(described)) == described
    assert described["configuration"]["bytes"] == recorded("e1000e")[0].hex()
    assert described["configuration"]["subsystem_ids"] == "8086:0000"
    assert described["interrupt"] == {"kind": "INTx", "pin": "A", "numbers": [11], "text": "INTA 11"}
    assert (described["iommu_group"], described["numa_node"]) == ("7", None)
    assert described["power_state"] == "D0", "the function says it where the kernel does not"
    assert [bar["size"] for bar in described["bars"]] == [0x20000, 0x20000, 0x20, 0x4000]
    assert described["missing"] == []


def test_a_recorded_function_as_text(e1000e: Path) -> None:
    text = shown(description(found(e1000e)))
    assert "\n IOMMU group 7 \n" in text
    assert "\n command 0103: IO_SPACE, MEMORY_SPACE, SERR_ENABLE" in text
    assert "\n interrupt pin INTA#, line 0x0a" in text
    assert "\n 2 io 32-bit no 32 bytes 0xc000" in text
    assert "MSI-X enabled no, masked no, messages 5, table bar 3" in text
    assert max(map(len, shown(description(found(e1000e)), width=80).splitlines())) <= 80


# Each example runs modprobe, whose time depends on the machine.
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from([64, 128, 256, 4096]), st.binary(max_size=64), st.randoms(use_true_random=False))
def test_no_configuration_space_whatever_breaks_it(e1000e: Path, size: int, start: bytes, random: Any) -> None:
    content = bytearray(start + random.randbytes(size)[len(start) :])
    content[0x06] |= 0x10  # with a list of capabilities
    (e1000e / "config").write_bytes(content)
    described = description(found(e1000e))
    json.dumps(described)
    assert shown(described)


@pytest.mark.parametrize("octet", [0x00, 0xFF])
def test_a_function_that_answers_nothing(e1000e: Path, octet: int) -> None:
    (e1000e / "config").write_bytes(bytes([octet]) * 256)
    described = description(found(e1000e))
    assert described["capabilities"] == []
    assert described["interrupt"]["kind"] is None
    assert shown(described)


def test_a_function_that_is_gone(tmp_path: Path, e1000e: Path) -> None:
    for config in (b"", None):
        if config is None:
            (e1000e / "config").unlink()
        else:
            (e1000e / "config").write_bytes(config)
        for tell in (summary, description):
            with pytest.raises(DeviceRemovedError):
                tell(found(e1000e))


def test_a_platform_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = found(tmp_path, address=None, ids=None, class_code=None, driver="uio_pdrv_genirq", uio=None)
    described = description(device)
    assert (described["name"], described["interrupt"], described["configuration"]) == (tmp_path.name, None, None)
    assert (described["bars"], described["capabilities"], described["missing"]) == ([], [], [])
    assert "Configuration space" not in shown(described)
    listing.show([summary(device)], columns=200)
    assert re.sub(r" +", " ", capsys.readouterr().out.splitlines()[1]) == (
        f"{tmp_path.name} - uio_pdrv_genirq - - - platform device"
    )


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def test_every_key_is_documented(e1000e: Path) -> None:
    for name in ("max_link_speed", "current_link_speed"):
        (e1000e / name).write_text("2.5 GT/s PCIe\n")
    for name in ("max_link_width", "current_link_width"):
        (e1000e / name).write_text("1\n")
    undocumented = {key for key in keys(description(found(e1000e))) if f"`{key}`" not in PAGE}
    assert undocumented == set()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x060400, "bridges"),
        (0x050000, "memory controllers"),
        (0x058000, None),
        (0x068000, None),
        (0x080600, "system peripherals"),
        (0x080501, None),
        (0x0C0500, "SMBus controllers"),
        (0x0C0330, None),
        (0x110100, "performance counters"),
        (0x118000, None),
        (0x00FF00, None),
        (None, None),
    ],
)
def test_what_belongs_to_the_machine(tmp_path: Path, code: int | None, kind: str | None) -> None:
    assert listing.part_of_the_machine(found(tmp_path, class_code=code)) == kind
    assert listing.part_of_the_machine(found(tmp_path, class_code=code, uio="uio0")) is None


def line(name: str, device: str) -> dict[str, Any]:
    return {
        "name": name,
        "ids": "1234:11e8",
        "driver": None,
        "uio": "uio0",
        "interrupt": {"text": "INTA 10"},
        "iommu_group": None,
        "class_code": 0x00FF00,
        "class": "Unclassified device",
        "vendor": None,
        "device": device,
    }


def test_a_narrow_terminal_gets_two_lines_for_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    device = "A [red]Card[/red] " * 4
    for columns, lines in ((300, 3), (80, 6)):
        listing.show([line("0000:00:01.0", device), line("0000:00:02.0", "B")], columns)
        printed = capsys.readouterr().out
        assert len(printed.splitlines()) == lines
        assert device in printed, "what is in brackets is no markup"


def test_sizes() -> None:
    sizes = [info.size(octets) for octets in (0, 8, 256, 4096, 1 << 20, 3 << 30, 1 << 41)]
    assert sizes == ["0 bytes", "8 bytes", "256 bytes", "4 KiB", "1 MiB", "3 GiB", "2 TiB"]
