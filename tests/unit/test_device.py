# SPDX-License-Identifier: MIT
"""Tests that need no device: names, and the messages for a missing device. The others are in tests/guest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio.device import Device
from pyuio.kernel.uio import UioNode
from pyuio.pci.discovery import find
from pyuio.process.timeouts import timeout_nanoseconds
from pyuio.region import Region


@pytest.mark.parametrize("name", ["", "00:04", "1234", "1234:11e8:1", "/dev/null", "1234:11g8", "edu\n"])
def test_what_does_not_name_a_device(name: str) -> None:
    with pytest.raises(ValueError, match="does not name a device"):
        pyuio.open(name)


@pytest.mark.parametrize("name", ["edu", "uio", "uio0x", "fpga-regs", "board 2.1"])
def test_a_name_that_no_node_has(name: str) -> None:
    with pytest.raises(pyuio.DeviceNotFoundError, match=f"there is no device {name}; there is:"):
        pyuio.open(name)


@pytest.mark.parametrize("thing", [None, 4, 1.5, b"00:04.0", ["00:04.0"]])
def test_what_is_no_name(thing: object) -> None:
    with pytest.raises(TypeError):
        pyuio.open(thing)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ffff:ff:1f.7", "dead:beef", "uio254", Path("/dev/uio254")])
def test_a_device_that_is_not_there(name: str | Path) -> None:
    with pytest.raises(pyuio.DeviceNotFoundError, match=r"there is no device .*; there is:"):
        find(name)


def test_an_entry_of_a_device_that_has_gone() -> None:
    gone = pyuio.FoundDevice(Path("/sys/devices/none/0000:00:09.0"), "0000:00:09.0", "1234:11e8", 0, None, None)
    with pytest.raises(pyuio.DeviceNotFoundError, match=r"there is no device 0000:00:09\.0"):
        pyuio.open(gone)


def test_nodes() -> None:
    for text in ("uio0", "/dev/uio0"):
        node = UioNode.parse(text)
        assert node is not None
        assert (node.name, node.path) == ("uio0", Path("/dev/uio0"))
    for text in ("uio", "/dev/uio", "dev/uio0", "uio0/", "/dev/uio0\n", "/\0", "/\ud800"):
        assert UioNode.parse(text) is None


def test_a_link_to_a_node(tmp_path: Path) -> None:
    (tmp_path / "mycard").symlink_to("/dev/uio7")
    (tmp_path / "other").symlink_to("mycard")
    node = UioNode.parse(str(tmp_path / "other"))
    assert node is not None
    assert node.name == "uio7"
    (tmp_path / "other").unlink()
    (tmp_path / "other").symlink_to("other")
    assert UioNode.parse(str(tmp_path / "other")) is None


@given(st.floats(min_value=0, max_value=1e9))
def test_timeouts_are_nanoseconds(seconds: float) -> None:
    assert timeout_nanoseconds(seconds) == int(seconds * 1_000_000_000)


@given(st.floats(max_value=0, exclude_max=True))
def test_a_negative_timeout_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more seconds"):
        timeout_nanoseconds(seconds)


def test_timeouts_at_the_edge() -> None:
    assert timeout_nanoseconds(None) == -1
    assert timeout_nanoseconds(0) == timeout_nanoseconds(0.0) == 0
    assert timeout_nanoseconds(float("inf")) == timeout_nanoseconds(1e300) == timeout_nanoseconds(10**400) == 2**63 - 1
    with pytest.raises(ValueError, match="nan"):
        timeout_nanoseconds(float("nan"))
    with pytest.raises(TypeError):
        timeout_nanoseconds("1")  # type: ignore[arg-type]


def test_bars_are_unmapped_even_if_bus_mastering_does_not_end(tmp_path: Path) -> None:
    class Refused:
        def close(self) -> None:
            raise pyuio.PermissionDeniedError(1, "writing the command register")

    path = tmp_path / "bar"
    path.write_bytes(bytes(4096))
    region = Region(path, 4096)
    device = Device.__new__(Device)
    device._dma = Refused()  # type: ignore[assignment]
    device._regions = {(0, False, "little", None): region}
    device._maps = {}
    with pytest.raises(pyuio.PermissionDeniedError):
        device._close_parts()
    assert region.closed
