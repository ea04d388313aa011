# SPDX-License-Identifier: MIT
"""Registers by name, as the commands read and write them, on a file in memory."""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

from pyuio.errors import RegisterAccessError, RegisterNotFoundError
from pyuio.inspect.cells import Cell, named_cell, register_map, registers_within
from pyuio.inspect.location import Location
from pyuio.region import Region
from pyuio.registers import Array, Field, Register, RegisterMap


class Speed(enum.IntEnum):
    SLOW = 1
    FAST = 2


class Control(Register):
    enable = Field(0)
    speed = Field(3, 2, enum=Speed)
    level = Field(31, 24)


class Registers(RegisterMap):
    control = Control(0x10)
    key = Register(0x14, access="wo")
    counts = Array(Register(0x20, width=16), 4)


@pytest.fixture
def region() -> Iterator[Region]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        Path(file.name).write_bytes(bytes(0x1000))
        with Region(file.name, 0x1000) as made:
            yield made


def cell(region: Region, name: str) -> Cell:
    return named_cell(region, Location(0), Registers.find(name))


def test_a_register(region: Region) -> None:
    control = cell(region, "control")
    control.write(control.parse("0x2a000009"))
    assert region.read32(0x10) == 0x2A000009
    assert (str(control.place), control.width, control.read()) == ("bar0.control", 32, 0x2A000009)
    assert control.text(control.read()) == "0x2a000009  enable=1 speed=2 (FAST) level=0x2a"
    assert control.data(control.read())["fields"] == {"enable": 1, "speed": 2, "level": 0x2A}


def test_a_field(region: Region) -> None:
    region.write32(0x10, 0x2A000001)
    speed, level = cell(region, "control.speed"), cell(region, "control.level")
    speed.write(speed.parse("fast"))
    assert region.read32(0x10) == 0x2A000009
    assert (speed.width, speed.ones, speed.read(), speed.text(speed.read())) == (2, 3, 2, "2 (FAST)")
    assert speed.data(3) == {"place": "bar0.control.speed", "width": 2, "value": 3}
    level.write(level.parse("0xff"))
    assert (level.read(), level.text(7), region.read32(0x10)) == (0xFF, "7", 0xFF000009)
    assert [speed.parse(text) for text in ("SLOW", "1", "0b11")] == [1, 1, 3]
    with pytest.raises(ValueError, match=r"control.speed is a number from 0.*; or one of slow, fast"):
        speed.parse("faster")
    with pytest.raises(ValueError, match="a number from 0"):
        level.parse("slow")


def test_an_element_of_an_array(region: Region) -> None:
    count = cell(region, "counts[2]")
    count.write(0x1234)
    assert (region.read16(0x24), str(count.place), count.text(0x34)) == (0x1234, "bar0.counts[2]", "0x0034")


class Channel(RegisterMap):
    control = Control(0x0)
    data = Array(Array(Register(0x8, width=16), 2), 2)


class Large(RegisterMap):
    channel = Array(Channel.at(0x10), 12, stride=0x20)
    channels = Register(0x0)


def test_parts_of_a_map() -> None:
    def within(name: str) -> list[str]:
        return [info.path for info in registers_within(Large, name)]

    one = ["control", "data[0][0]", "data[0][1]", "data[1][0]", "data[1][1]"]
    assert within("channel[1]") == [f"channel[1].{name}" for name in one] == within("channel[01]")
    assert within("channel[11].data[1]") == ["channel[11].data[1][0]", "channel[11].data[1][1]"]
    assert within("channel") == [f"channel[{number}].{name}" for number in range(12) for name in one]
    assert within("channels") == ["channels"]
    assert within("channel[0].control.speed") == ["channel[0].control.speed"]
    assert within("") == ["channels", *within("channel")]
    for wrong, why in (("channel[12]", r"of channel\[0\] to channel\[11\]"), ("chan", "there is channel")):
        with pytest.raises(RegisterNotFoundError, match=why):
            within(wrong)


def test_only_what_is_set(region: Region) -> None:
    control = cell(region, "control")
    assert control.text(0x08, only_set=True) == "0x00000008  speed=2 (FAST)"
    assert control.text(0, only_set=True) == "0x00000000"
    assert cell(region, "counts[0]").text(3, only_set=True) == "0x0003"


def test_what_cannot_be_read(region: Region) -> None:
    key = cell(region, "key")
    key.write(5)
    with pytest.raises(RegisterAccessError, match="write-only"):
        key.read()


def test_names_that_nobody_declared() -> None:
    with pytest.raises(RegisterNotFoundError, match=r"Edu has no names for bar3; .* bar0"):
        register_map(Edu, 3)
    assert register_map(Edu, 0).find("status").offset == 0x20
