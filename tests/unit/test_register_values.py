# SPDX-License-Identifier: MIT
"""Registers and values: what a register in a region refuses to be, values without a device, and arrays of fields."""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyuio import Array, Field, FieldArray, Register, RegisterAccessError, RegisterMap, RegisterNotFoundError
from pyuio.region import Region
from pyuio.registers.register import is_taken
from tests.unit.register_support import Plain, kind
from tests.unit.support import NAME, SIZE


class Kind(enum.IntEnum):
    DATA = 0
    REMOTE = 1


class Format(Register):
    length_code = Field(3, 0)
    kind = Field(6, 6, enum=Kind)
    extended = Field(7)
    digit = FieldArray(Field(11, 8), 4)
    flags = FieldArray(Field(24), 3, stride=2)


class Other(Register):
    extended = Field(2)


class Counter(Register, width=16):
    """Fields with the names of methods."""

    value = Field(7, 0)
    mask = Field(8)


class Command(Register, access="wo"):
    start = Field(0)
    channel = FieldArray(Field(8), 4)


class Events(Register, access="w1c"):
    port = FieldArray(Field(1, 0), 4)


class Header(RegisterMap):
    format = Format(0x0)
    length = Register(0x4, width=16)
    words = Array(Register(0x8, width=16), 4)
    command = Command(0x10)
    events = Events(0x14)
    taken = Format(0x18, access="rc")


# ---- A register in a region is no value ----


@pytest.mark.parametrize(
    "use",
    [
        lambda register: register == 0,
        lambda register: register != 0,
        lambda register: register == register,
        lambda register: register < 1,
        lambda register: register <= 1.5,
        lambda register: register >= Kind.REMOTE,
        int,
        operator.index,
        hex,
        lambda register: register in (1, 2),
        lambda register: register in {1, 2},
        lambda register: {0: "idle"}.get(register),
        lambda register: range(8)[register],
        lambda register: max(register, 1),
        lambda register: f"{register:#x}",
        bool,
        lambda register: not register,
    ],
)
def test_a_register_in_a_region_is_no_value(use: Callable[[Any], object]) -> None:
    bar = Plain(bytes(64))
    with pytest.raises(TypeError, match=r"format is a register, .*: write \.\.\.format\.read\(\), or a field of it"):
        use(Header(bar).format)
    assert not bar.log


def test_registers_are_neither_equal_to_nor_ordered_with_what_is_no_number() -> None:
    register = Header(Plain(bytes(64))).format
    assert register != "x"
    assert register is not None and register != None  # noqa: E711, PT018
    with pytest.raises(TypeError, match="not supported"):
        operator.lt(register, "x")
    assert Header.format == Header.format != Header.length
    assert {Header.format: 1}[Header.format] == 1
    here = Header(Plain(bytes(64)))
    assert here.format.info == here.format.info != here.length.info
    assert len({here.format.info, here.format.info, Header.find("format"), Header.find("format.extended")}) == 3


def test_a_value_that_is_held_is_a_number() -> None:
    held = Format.of(0x83)
    assert held == 0x83 == int(held) == operator.index(held)
    assert held == Format.of(0x83) == 131.0
    assert 0x82 < held < 0x84
    assert held <= 0x83 <= held
    assert held in (1, 0x83)
    assert held in {0x83}
    assert f"{held:#06x}" == "0x0083"
    assert bool(held)
    assert not Format.of(0)
    header = Header(Plain(bytes(range(64))))
    assert header.format.snapshot() == 0x03020100
    header.length.write(Counter.of(value=5))
    assert header.length.read() == 5
    with header.format.change() as format_:
        assert format_ == 0x03020100
        with pytest.raises(TypeError, match="being changed"):
            hash(format_)


# ---- Values without a device ----


def test_fields_may_have_the_names_of_what_the_class_does() -> None:
    assert not any(is_taken(name, [Register]) for name in ("value", "mask"))
    assert is_taken("replace", [Register])
    assert (Counter.of(0x103).value, Counter.of(0x103).mask) == (3, True)


def test_a_value_is_composed() -> None:
    assert Format.value(length_code=3, extended=True) == 0x83
    assert Format.value(kind=Kind.REMOTE, digit=(1, 2, 3, 4)) == 0x00432140
    assert Format.value() == 0
    assert Format.mask("extended") == 0x80
    assert Format.mask("length_code", Format.extended, "digit[1]", Format.flags) == 0x8F | 0xF000 | 0x15000000
    assert Command.value(start=1) == 1
    assert Counter.of(value=3, mask=1) == 0x103


def test_a_number_is_taken_apart_and_changed() -> None:
    first = Format.of(0x12, extended=1)
    assert (first.length_code, first.kind, first.extended) == (2, Kind.DATA, True)
    second = first.replace(kind=Kind.REMOTE, length_code=0, flags=(1, 0, 1))
    assert second == 0xD0 | 0x11000000
    assert second.kind is Kind.REMOTE
    assert first == 0x92
    assert Command.of(1).start is True
    assert "0x00000001" in repr(Command.of(1))
    assert "start[0] " in str(Command.of(1))
    assert Header(Plain(bytes(64))).format.snapshot().replace(length_code=1) == 1
    with pytest.raises(RegisterAccessError, match="cannot be changed"):
        first.extended = False


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Format.value(lenght_code=1), TypeError, "no field lenght_code; there is length_code"),
        (lambda: Format.value(length_code=16), ValueError, r"Format.length_code: 0x10 does not fit bits \[3:0\]"),
        (lambda: Format.value(length_code="x"), TypeError, "integer"),
        (lambda: Format.value(digit=(1, 2)), ValueError, "digit has 4 fields, and takes as many values, not 2"),
        (lambda: Format.value(digit=(1, 2, 3, 16)), ValueError, r"digit\[3\]: 0x10 does not fit"),
        (lambda: Format.of(1 << 32), ValueError, "does not fit its 32 bits"),
        (lambda: Format.of(-1), ValueError, "does not fit"),
        (lambda: Format.of(0, value=1), TypeError, "no field value"),
        (lambda: Format.mask(), TypeError, "at least one"),
        (lambda: Format.mask("digit[4]"), TypeError, "no field"),
        (lambda: Format.mask(Field(7)), TypeError, "no field"),
        (lambda: Format.mask(Other.extended), TypeError, "another register"),
        (lambda: Format.mask(3), TypeError, "a field or its name"),  # type: ignore[arg-type]
        (lambda: Format.value(digit=3), TypeError, "takes as many values, not 3"),
        (lambda: Format.of(0).digit.__setitem__(slice(2), 1), TypeError, "one by one"),  # type: ignore[index]
        (
            lambda: Header(Plain(bytes(64))).format.replace(kind=1),
            RegisterAccessError,
            "replace fields of its snapshot",
        ),
        (lambda: Format.of(1).replace(nothing=1), TypeError, "no field nothing"),
        (lambda: Format.of(1).read_run(2), RegisterAccessError, "a value by itself"),
    ],
)
def test_what_no_value_can_be_made_of(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---- In memory ----


@pytest.mark.parametrize("endian", [None, "little", "big"])
def test_a_header_in_a_buffer(endian: Any) -> None:
    memory = bytearray(64)
    header = Header(memory, offset=8, endian=endian)
    header.format.write(Format.value(length_code=3, extended=True))
    header.length.write(0x1234)
    order: Any = endian or "little"
    assert memory[8:14] == (0x83).to_bytes(4, order) + (0x1234).to_bytes(2, order)
    header.format.digit[0] = 7
    assert int.from_bytes(memory[8:12], order) == 0x783
    assert header.format.snapshot() == 0x783
    assert header.words.read() == bytes(8)
    view = memoryview(memory)[16:]
    assert Header(view).format.read() == 0


def test_what_is_no_place_for_registers(path: Path) -> None:
    with pytest.raises(TypeError, match=r"copy it first: bytearray\(data\)"):
        Header(b"\0" * 64)
    with pytest.raises(TypeError, match=r"made on a region, such as .* not on a int"):
        Header(5)  # type: ignore[arg-type]
    with Region(path, SIZE, name=NAME) as bar, pytest.raises(TypeError, match=r"device.bar\(0, endian='big'\)"):
        Header(bar, endian="big")
    with pytest.raises(ValueError, match="4 bytes there are not inside"):
        Header(bytearray(8)).command.write(1)


# ---- Arrays of fields ----


def test_an_array_of_fields(path: Path) -> None:
    with Region(path, SIZE, name=NAME) as bar:
        header = Header(bar)
        header.format.write(0x15432100)
        digit = header.format.digit
        assert len(digit) == 4
        assert [digit[0], digit[-1], digit[1:3], list(digit)] == [1, 4, (2, 3), [1, 2, 3, 4]]
        assert list(header.format.flags) == [True, True, True]
        assert digit == [1, 2, 3, 4] != [1]
        digit[2] = 0xF
        assert header.format.read() == 0x154F2100
        header.format.digit = (4, 3, 2, 1)
        assert header.format.read() == 0x15123400
        with header.format.change() as format_:
            format_.digit[0] = 0
            format_.flags = [0, 0, 1]
            assert list(format_.flags) == [False, False, True]
        assert header.format.read() == 0x10123000
        with pytest.raises(IndexError):
            digit[4] = 1
        with pytest.raises(ValueError, match=r"format.digit\[1\]: 0x10 does not fit"):
            digit[1] = 16
        with pytest.raises(ValueError, match="as many values"):
            header.format.digit = [1]
        assert header.format.read() == 0x10123000


def test_accesses_of_an_array_of_fields() -> None:
    bar = Plain(bytes(64))
    header = Header(bar)

    def accesses(call: Callable[[], object]) -> list[str]:
        bar.log.clear()
        call()
        return [verb for verb, _, _ in bar.log]

    assert accesses(lambda: header.format.digit) == []
    assert accesses(lambda: list(header.format.digit)) == ["read"]
    assert accesses(lambda: header.format.digit[1]) == ["read"]
    assert accesses(lambda: operator.setitem(header.format.digit, 1, 2)) == ["read", "write"]  # type: ignore[call-overload]
    assert accesses(lambda: setattr(header.format, "digit", (1, 2, 3, 4))) == ["read", "write"]
    assert accesses(lambda: setattr(header.events, "port", (0, 3, 0, 1))) == ["write"]
    assert bar.read32(0x14) == 0x4C
    bar.log.clear()
    for refused in (
        lambda: list(header.command.channel),
        lambda: setattr(header.command, "channel", (1, 1, 1, 1)),
        lambda: list(header.taken.digit),
    ):
        with pytest.raises(RegisterAccessError):
            refused()
    assert not bar.log
    assert list(header.taken.snapshot().digit) == [0, 0, 0, 0]


def test_fields_of_an_array_by_text() -> None:
    bar = Plain(bytes(64))
    found = Header.find("format.digit[2]")
    assert (found.path, found.mask, found.offset) == ("format.digit[2]", 0xF0000, 0)
    found.write(bar, 9)
    assert found.read(bar) == 9
    assert "digit[2]=9" in Header.format.info.text(bar.read32(0))
    assert Header.find("format.digit[0x1]").field is Format.digit[1]
    for wrong in ("format.digit", "format.digit[4]", "format.digit[0].x", "format.digit[0][1]", "format.digitt[0]"):
        with pytest.raises(RegisterNotFoundError):
            Header.find(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FieldArray(Field(3, 0), 0), "at least 1"),
        (lambda: FieldArray(Field(3, 0), 2, stride=3), "at least its 4 bits"),
        (lambda: FieldArray(Field(3, 0), 1 << 14 | 1), "from 0"),
    ],
)
def test_arrays_of_fields_that_are_none(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="repeats a Field"):
        FieldArray(Register(0), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="overlap"):
        kind(32, {"a": Field(4), "b": FieldArray(Field(0), 8)})
    with pytest.raises(ValueError, match="outside of its 8 bits"):
        kind(8, {"b": FieldArray(Field(0), 9)})


def test_an_array_of_fields_in_which_nothing_would_change_is_not_written() -> None:
    memory = bytearray(8)
    events = type("Map", (RegisterMap,), {"events": Events(0)})(memory)
    with pytest.raises(ValueError, match=r"events.port: writing \[0, 0, 0, 0\] does nothing here"):
        events.events.port = [0, 0, 0, 0]
    events.events.port = [0, 3, 0, 0]
    assert memory[0] == 0b1100


def test_memory_that_a_map_cannot_be_made_on() -> None:
    with pytest.raises(TypeError, match="the buffer is read-only"):
        Header(bytes(64))
    with pytest.raises(TypeError, match="the buffer is not in one piece"):
        Header(memoryview(bytearray(64))[::2])


def test_an_array_beyond_all_addresses() -> None:
    with pytest.raises(ValueError, match="ends beyond the addresses of 64 bits"):
        Array(Register(0), 1 << 70)
