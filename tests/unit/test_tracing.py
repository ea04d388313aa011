# SPDX-License-Identifier: MIT
"""Traced regions, on a file in memory: each access works as without tracing, and is logged by name."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodDescriptorType
from typing import Any

import pytest

from pyuio import Field, Register, RegisterMap
from pyuio.region import Region
from pyuio.region.tracing import TracedPortRegion, TracedRegion, begin
from tests.unit.support import ports


class Control(Register):
    enable = Field(0)
    mode = Field(7, 4)


class Registers(RegisterMap):
    control = Control(0x10)
    status = Register(0x14, access="ro")
    acknowledge = Register(0x14, access="wo")


Lines = Callable[[], list[str]]


@pytest.fixture(params=[TracedRegion, functools.partial(ports, kind=TracedPortRegion)])
def region(request: pytest.FixtureRequest) -> Iterator[Any]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(4096)
        with request.param(Path(file.name), 4096, name="BAR 0 of a file") as made:
            begin(made, "0000:00:04.0", "bar0", Registers)
            yield made


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    return lambda: [record.getMessage().removeprefix("0000:00:04.0: bar0 ") for record in caplog.records]


def test_plain_accesses(region: Any, lines: Lines) -> None:
    region.write32(0x20, 0xABCD)
    assert region.read16(0x20) == 0xABCD
    region.set8(0x20, 0x12)
    region.clear32(0x20, 0xFF00)
    region.update32(0x20, 0xF0, 0x50)
    region.write32(0x24, 1, endian="big")
    assert region.read32(0x24) == 0x01000000
    region.write(0x30, b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert region.read(0x30, 8) == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert region.read32(0x20) == 0x5F
    assert lines() == [
        "write32 0x020 = 0x0000abcd",
        "read16 0x020 = 0xabcd",
        "set8 0x020 |= 0x12",
        "clear32 0x020 &= ~0x0000ff00",
        "update32 0x020 mask, value 0x000000f0, 0x00000050",
        "write32 0x024 = 0x00000001",
        "read32 0x024 = 0x01000000",
        "write 0x030 8 bytes: 01020304 05060708",
        "read 0x030 8 bytes: 01020304 05060708",
        "read32 0x020 = 0x0000005f",
    ]


def test_named_registers(region: Any, lines: Lines) -> None:
    registers = Registers(region)
    registers.control.write(0x31)
    registers.control.mode = 7
    assert registers.control.enable == 1
    registers.acknowledge.write(5)
    assert registers.status.read() == 5
    assert lines() == [
        "write32 0x010 control = 0x00000031",
        "update32 0x010 control mask, value 0x000000f0, 0x00000070",
        "read32 0x010 control = 0x00000071",
        "write32 0x014 acknowledge = 0x00000005",
        "read32 0x014 status = 0x00000005",
    ]


def test_what_is_wrong_is_refused_as_without(region: Any) -> None:
    for wrong in ((1, 0), (4096, 0), (-4, 0), (0, 1 << 32)):
        with pytest.raises(ValueError, match="BAR 0 of a file"):
            region.write32(*wrong)
    for arguments in (("0", 0), (0, "0"), (0,), ()):
        with pytest.raises(TypeError):
            region.write32(*arguments)
    with pytest.raises(TypeError):
        region.write(0, "text")


def test_a_poll_shows_its_looks(region: Any, lines: Lines) -> None:
    region.write32(0x14, 2)
    assert region.poll32(0x14, 2, 2, 1.0) == 2
    assert lines()[1:] == ["read32 0x014 status = 0x00000002"]


def test_nothing_is_in_the_way_of_who_does_not_ask() -> None:
    """A plain region has the methods of C; named registers check for them to use their fast path."""
    for name in ("read32", "write32", "update32", "set32", "clear32", "read", "write"):
        assert isinstance(getattr(Region, name), MethodDescriptorType)
        assert not isinstance(getattr(TracedRegion, name), MethodDescriptorType)
