# SPDX-License-Identifier: MIT
"""The device tree as the kernel shows it: names of nodes, and what they say of a device."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pyuio.kernel import device_tree


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree with a clock and a host bridge, both on a bus, and the directories of their devices beside it."""
    base = tmp_path / "base"
    for node in ("soc/clock@1000", "soc/pcie@2000", "aliases", "__symbols__"):
        (base / node).mkdir(parents=True)
    (base / "soc/clock@1000/compatible").write_bytes(b"acme,clock-2\0acme,clock\0")
    (base / "aliases/rtc0").write_bytes(b"/soc/clock@1000\0")
    (base / "aliases/gone").write_bytes(b"/soc/clock@3000\0")
    (base / "__symbols__/clock").write_bytes(b"/soc/clock@1000\0")
    monkeypatch.setattr(device_tree, "BASE", base)
    monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", "box", "6.1", "1", "aarch64")))
    return base


def device(base: Path, node: str | None, name: str = "1000.clock", subsystem: str = "platform") -> Path:
    directory = base.parent / "devices" / name
    directory.mkdir(parents=True)
    (directory / "subsystem").symlink_to(f"/sys/bus/{subsystem}")
    if node is not None:
        (directory / "of_node").symlink_to(base / node)
    return directory


def test_names(base: Path) -> None:
    for name in ("/soc/clock@1000", "/soc/../soc/clock@1000", "rtc0", "clock"):
        assert device_tree.resolve(name) == "/soc/clock@1000"
    for name in (
        "",
        ".",
        "..",
        "/",
        "gone",
        "nobody",
        "/soc/clock",
        "/../..",
        "soc/clock@1000",
        "a\0b",
        "/\0",
        "x" * 300,
    ):
        assert device_tree.resolve(name) is None


def test_a_device(base: Path) -> None:
    clock = device(base, "soc/clock@1000")
    assert device_tree.path_of(clock) == "/soc/clock@1000"
    assert device_tree.compatible(clock) == ("acme,clock-2", "acme,clock")
    other = device(base, None, "other")
    assert (device_tree.path_of(other), device_tree.compatible(other), device_tree.is_coherent(other)) == (
        None,
        (),
        None,
    )


def test_whether_caches_follow(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = device(base, "soc/clock@1000")
    assert device_tree.is_coherent(clock) is False
    monkeypatch.setattr("os.uname", lambda: os.uname_result(("Linux", "box", "6.1", "1", "ppc64le")))
    assert device_tree.is_coherent(clock) is None
    (base / "soc/dma-coherent").touch()
    assert device_tree.is_coherent(clock) is True
    (base / "soc/clock@1000/dma-noncoherent").touch()
    assert device_tree.is_coherent(clock) is False


def test_a_function_has_the_word_of_its_host_bridge(base: Path) -> None:
    bridge = device(base, "soc/pcie@2000", "2000.pcie")
    function = device(base, None, "2000.pcie/pci0000:00/0000:00:01.0/0000:01:00.0", "pci")
    assert bridge in function.parents
    assert device_tree.is_coherent(function) is False
    (base / "soc/pcie@2000/dma-coherent").touch()
    assert device_tree.is_coherent(function) is True
    assert device_tree.is_coherent(device(base, None, "pci0000:00/0000:00:02.0", "pci")) is None  # ACPI


def test_a_stream_of_an_iommu(base: Path) -> None:
    """As the kernel's binding of pci-iommu has it: rows of the first requester id, the IOMMU, its number, how many."""
    directory = device(base, None, "2000.pcie/pci0000:00/0000:01:02.3", "pci")
    (base.parent / "devices/2000.pcie/of_node").symlink_to(base / "soc/pcie@2000")
    table = base / "soc/pcie@2000/iommu-map"
    assert device_tree.stream_id(directory) is None
    table.write_bytes(struct.pack(">8I", 0, 1, 0x1000, 0x100, 0x100, 2, 0x40, 0x20))
    assert device_tree.stream_id(directory) == 0x40 + (2 << 3 | 3)
    table.write_bytes(struct.pack(">4I", 0, 1, 0x1000, 0x113))
    assert device_tree.stream_id(directory) is None
    (base / "soc/pcie@2000/iommu-map-mask").write_bytes(struct.pack(">I", 0xFF))
    assert device_tree.stream_id(directory) == 0x1013
    table.write_bytes(b"odd")
    assert device_tree.stream_id(directory) is None
    assert device_tree.stream_id(device(base, "soc/clock@1000")) is None
