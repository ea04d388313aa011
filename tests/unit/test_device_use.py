# SPDX-License-Identifier: MIT
"""The texts and messages of the kernel's by which a device in use is known; tests/vm has the devices."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.claim.disks_in_use import Mount, parse_mounts, parse_swaps
from pyuio.claim.routes import Route, parse_messages, parse_route, routes

# A guest's, with a disk at a place with a space in it, and a bind mount, which has two optional fields.
MOUNTINFO = r"""27 1 0:23 / / rw,relatime - overlay root rw,lowerdir=/host,upperdir=/overlay/upper,workdir=/overlay/work
28 27 0:26 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
36 33 254:0 / /run/a\040b rw,relatime shared:1 master:2 - ext4 /dev/vda rw
40 33 0:44 /@ /btrfs rw - btrfs /dev/mapper/big\011disk rw,subvol=/@
"""


def test_mounts() -> None:
    assert parse_mounts(MOUNTINFO) == [
        Mount("0:23", "overlay", "root", "/"),
        Mount("0:26", "proc", "proc", "/proc"),
        Mount("254:0", "ext4", "/dev/vda", "/run/a b"),
        Mount("0:44", "btrfs", "/dev/mapper/big\tdisk", "/btrfs"),
    ]


@given(st.text())
def test_any_text_of_mounts(text: str) -> None:
    parse_mounts(text)
    parse_mounts("1 2 8:1 / / rw - " + text)
    parse_swaps(text)


def test_swaps() -> None:
    text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/vda1  partition\t9\t0\t-2\n/a\\040b file 9 0 -3\n"
    assert parse_swaps(text) == ["/dev/vda1", "/a b"]


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
