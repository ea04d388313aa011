# SPDX-License-Identifier: MIT
"""The kernel's texts and messages that show a device in use; tests/vm/test_in_use.py has real devices."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.claim import disks_in_use, in_use
from pyuio.claim.disks_in_use import parse_lsblk
from pyuio.claim.network_routes import Route, parse_messages, parse_route, routes

KEYS = st.sampled_from(["blockdevices", "kname", "type", "mountpoints", "children"])
# A disk with a partition that is swapped on, and one whose LVM volume is mounted twice; an idle optical disc.
LSBLK = """{"blockdevices": [
 {"kname": "nvme0n1", "type": "disk", "mountpoints": [null], "children": [
  {"kname": "nvme0n1p1", "type": "part", "mountpoints": ["[SWAP]"]},
  {"kname": "nvme0n1p2", "type": "part", "mountpoints": [null], "children": [
   {"kname": "dm-0", "type": "lvm", "mountpoints": ["/run/a b", "/home"]}]}]},
 {"kname": "sr0", "type": "rom", "mountpoints": [null]}]}
"""


def test_what_is_on_a_disk() -> None:
    assert parse_lsblk(LSBLK) == [
        "/dev/nvme0n1p1 is swapped on",
        "/dev/dm-0 (on /dev/nvme0n1p2) is mounted at /home and 1 more places",
    ]


@pytest.mark.parametrize(
    ("class_code", "behind", "use"),
    [
        (0x060400, 1, "it is a bridge, with 1 functions directly behind it"),
        (0x060000, 0, "it is a bridge"),
        (0x068000, 0, None),  # a card with a PLX chip
        (0x068000, 2, "it is a bridge, with 2 functions directly behind it"),
        (0x020000, 0, None),
    ],
)
def test_bridges(class_code: int, behind: int, use: str | None) -> None:
    assert in_use.bridge_uses(class_code, behind) == ([use] if use else [])


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u00a0", "\udcff"])
def test_a_mount_point_with_an_odd_name(separator: str) -> None:
    place = f"/mnt/a{separator}b"
    text = json.dumps({"blockdevices": [{"kname": "sda", "type": "disk", "mountpoints": [place]}]})
    assert parse_lsblk(text) == [f"/dev/sda is mounted at {place}"]


@given(st.text() | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_any_answer_of_lsblk(answer: object) -> None:
    parse_lsblk(answer if isinstance(answer, str) else json.dumps(answer))
    parse_lsblk(json.dumps({"blockdevices": [answer]}))


def test_lsblk_tells_of_this_machine() -> None:
    """If lsblk is installed, it knows the columns that pyuio asks for."""
    if shutil.which("lsblk") is None:
        pytest.skip("no lsblk here")
    done = subprocess.run(["lsblk", *disks_in_use._LSBLK], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["", "lsblk: unknown column: MOUNTPOINTS", "{}", '{"blockdevices": []}'])
def test_lsblk_tells_of_no_disk(text: str) -> None:
    assert parse_lsblk(text) is None


def test_a_disk_that_nobody_tells_of_counts_as_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without the disk's node: pyuio must not take a disk that may be mounted."""
    monkeypatch.setattr(disks_in_use, "disks", lambda _function: [tmp_path / "no-such-disk"])
    (use,) = disks_in_use.storage_uses(tmp_path)
    assert use.startswith("/dev/no-such-disk may be in use")


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def route(family: int, bits: int, kind: int, *attributes: bytes) -> bytes:
    return struct.pack("=BBBBBBBBI", family, bits, 0, 0, 254, 3, 0, kind, 0) + b"".join(attributes)


def message(kind: int, content: bytes) -> bytes:
    data = struct.pack("=IHHII", 16 + len(content), kind, 2, 0, 0) + content
    return data + bytes(-len(data) % 4)


def test_routes_by_interface() -> None:
    interface = attribute(4, struct.pack("=I", 3))
    network = attribute(1, bytes([10, 7, 0, 0]))
    assert parse_route(route(2, 24, 1, network, interface)) == Route("10.7.0.0/24", (3,))
    assert parse_route(route(2, 0, 1, interface)) == Route("default", (3,))
    assert parse_route(route(10, 64, 1, attribute(1, b"\xfe\x80" + bytes(14)), interface)) == Route("fe80::/64", (3,))
    hops = b"".join(struct.pack("=HBBi", 8 + 8, 0, 0, number) + attribute(5, bytes(4)) for number in (4, 5))
    assert parse_route(route(2, 0, 1, attribute(9, hops))) == Route("default", (4, 5))
    for kind in (2, 3, 5):  # local, broadcast, multicast
        assert parse_route(route(2, 32, kind, network, interface)) is None


def test_messages_to_the_last() -> None:
    one = message(24, route(2, 0, 1, attribute(4, struct.pack("=I", 3))))
    assert parse_messages(one + one) == ([Route("default", (3,))] * 2, False)
    assert parse_messages(one + message(3, bytes(4))) == ([Route("default", (3,))], True)
    with pytest.raises(PermissionError, match="asking the kernel for its routes"):
        parse_messages(message(2, struct.pack("=i", -1)))


@given(st.binary() | st.lists(st.binary(), max_size=3).map(lambda parts: b"".join(message(24, one) for one in parts)))
def test_any_answer(data: bytes) -> None:
    with contextlib.suppress(OSError):
        parse_messages(data)


def test_this_machine_answers() -> None:
    for found in routes():
        assert found.destination
        assert all(index > 0 for index in found.interfaces)
