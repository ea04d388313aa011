# SPDX-License-Identifier: MIT
"""Devices with several UIO nodes: each node is listed, opened and locked by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import pyuio
from pyuio.pci.discovery import find
from tests.guest.support import PCI_TESTDEV, Cards

PLATFORM = "several_nodes.0"


@pytest.fixture(params=[PLATFORM, pytest.param(PCI_TESTDEV, marks=pytest.mark.long)])
def entries(request: pytest.FixtureRequest, several_nodes: None, cards: Cards) -> list[pyuio.FoundDevice]:
    """The entries of a platform device with three nodes, and those of a PCI function with two."""
    name = PLATFORM if request.param == PLATFORM else cards(request.param)[0]
    return [found for found in pyuio.devices() if found.device_name == name]


@pytest.fixture
def link(tmp_path: Path, entries: list[pyuio.FoundDevice]) -> Path:
    """A link to the second node, in another directory and by another link, as udev's SYMLINK may be."""
    (tmp_path / "first").symlink_to(f"/dev/{entries[1].uio}")
    (tmp_path / "mycard").symlink_to("first")
    return tmp_path / "mycard"


def fire(entry: pyuio.FoundDevice, number: int) -> None:
    (entry.directory / "fire").write_text(str(number))


def test_each_is_opened_and_locked_by_itself(entries: list[pyuio.FoundDevice], link: Path) -> None:
    number = {PLATFORM: 3}.get(entries[0].device_name, 2)
    names = [entry.uio for entry in entries]
    assert len(set(names)) == number
    assert {entry.nodes for entry in entries} == {tuple(names)}
    assert [entry.name for entry in entries] == names
    opened = [pyuio.open(entry) for entry in entries]
    try:
        assert [device.uio.name for device in opened] == names
        assert [device.uio.driver_name for device in opened] == ["unit-a", "unit-b", "unit-c"][:number]
        for which, device in enumerate(opened):
            fire(entries[0], which)
            assert device.interrupt.read(timeout=10) == 1
            assert not any(other.interrupt.pending for other in opened)
            for way in (names[which], f"/dev/{names[which]}", entries[which]):
                assert way is not None
                with pytest.raises(pyuio.DeviceBusyError, match=f"^.*{names[which]} is open already"):
                    pyuio.open(way)
        assert len({device.name for device in opened}) == number
        if entries[0].device_name == PLATFORM:  # the name of the third is nobody else's
            assert pyuio.devices()[-1].uio_name == "unit-c"
            with pytest.raises(pyuio.DeviceBusyError, match=f"{names[2]} is open already"):
                pyuio.open("unit-c")
        with pytest.raises(pyuio.AmbiguousDeviceError, match=f"unit-a names 2 (.|\n)*/dev/{names[0]} named unit-a"):
            pyuio.open("unit-a")
        opened[1].close()
        with pyuio.open(link) as again:
            assert again.uio.name == names[1]
            assert again.address == entries[1].address
    finally:
        for device in opened:
            device.close()


def test_vectors_are_the_interrupts_of_its_nodes(entries: list[pyuio.FoundDevice]) -> None:
    with pyuio.open(entries[1]) as device:
        assert device.most_vectors == len(entries)
        vectors = device.vectors(len(entries))
        assert vectors[0] is device.interrupt
        for which in range(len(entries)):
            fire(entries[0], which)
            fire(entries[0], which)
            assert pyuio.wait(vectors, 10) == [vectors[which]]
            assert vectors[which].read(0) == 2
        with pytest.raises(pyuio.DeviceBusyError, match=f"{entries[0].uio} is open already"):
            pyuio.open(entries[0])
        with pytest.raises(pyuio.InterruptUnavailableError, match="ask for vectors once"):
            device.vectors(2)
    with pyuio.open(entries[0]) as device:
        with pytest.raises(pyuio.InterruptUnavailableError, match=f"each of its {len(entries)} nodes, not 9"):
            device.vectors(9)
        with pyuio.open(entries[1]), pytest.raises(pyuio.DeviceBusyError):
            device.vectors(2)
        assert device.vectors(1) == (device.interrupt,)
        assert len(device.vectors(2)) == 2
    pyuio.open(entries[1]).close()


def test_the_device_alone_does_not_say_which(entries: list[pyuio.FoundDevice]) -> None:
    found = entries[0]._replace(uio=None)
    names = ", ".join(found.nodes)
    ways: list[str | pyuio.FoundDevice] = [found]
    if found.address is not None:
        ways += [found.address, PCI_TESTDEV]
    for way in ways:
        assert (find(way).uio, find(way).nodes) == (None, found.nodes)
        with pytest.raises(pyuio.AmbiguousDeviceError, match=rf"{len(found.nodes)} UIO nodes; name one .*: {names}"):
            pyuio.open(way)
    with pytest.raises(pyuio.DeviceNotFoundError, match="there is no device uio99"):
        find(entries[0]._replace(uio="uio99"))
