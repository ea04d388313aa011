# SPDX-License-Identifier: MIT
"""Programs are checked when they are made."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio import Array, Field, Register, RegisterAccessError, RegisterMap
from pyuio.program import (
    Append,
    Count,
    NativeProgram,
    Operation,
    Poll,
    Read,
    Stamp,
    Unmask,
    When,
    While,
    Write,
    WriteBack,
    flatten,
)
from pyuio.region import PortRegion, Region
from tests.unit.register_support import Plain
from tests.unit.support import NAME, SIZE


class Control(Register, width=16):
    busy = Field(0, access="ro")
    level = Field(7, 4)
    go = Field(15, access="wo")


class Other(Register):
    busy = Field(0)


class Channel(RegisterMap):
    count = Register(0x0, width=8)


class Registers(RegisterMap):
    status = Register(0x00, access="ro")
    command = Register(0x00, access="wo")
    control = Control(0x04)
    events = Register(0x08, access="rc")
    channel = Array(Channel.at(0x40), 2, stride=0x10)
    beyond = Register(SIZE)


class Odd(int):
    """An int that compares, and prints, in its own way."""

    def __lt__(self, other: object) -> bool:
        return True

    def __le__(self, other: object) -> bool:
        return True

    def __and__(self, other: object) -> int:
        return 0


def test_a_register_by_name_is_the_same_as_by_numbers(bar: Region | PortRegion) -> None:
    registers = Registers(bar)
    same: list[tuple[Operation, Operation]] = [
        (Read("x", registers.status), Read("x", bar, 0x00)),
        (Read("x", registers.control), Read("x", bar, 0x04, 16)),
        (Read("x", registers.events), Read(name="x", region=bar, offset=0x08)),
        (Read("x", registers.channel[1].count), Read("x", bar, 0x50, bits=8)),
        (Write(registers.command, 7), Write(bar, 0x00, 7)),
        (Write(registers.channel[0].count, 255), Write(region=bar, offset=0x40, value=255, bits=8)),
        (WriteBack("x", registers.command), WriteBack("x", bar, 0x00)),
        (WriteBack("x", registers.control, mask=0xF0), WriteBack("x", bar, 0x04, 0xF0, 16)),
        (Poll("x", registers.control, mask=0xF0, value=0x20, timeout=0.5), Poll("x", bar, 4, 0xF0, 0x20, 0.5, 16)),
        (Poll("x", registers.control, mask=Control.level, value=2, timeout=0.5), Poll("x", bar, 4, 0xF0, 32, 0.5, 16)),
        (Poll("x", bar, 4, Control.busy, True, 1, 16), Poll("x", bar, 4, mask=1, value=1, timeout=1.0, bits=16)),
        (When("x", Control.level, 3, []), When("x", 0xF0, 0x30, [])),
    ]
    for by_name, by_numbers in same:
        assert by_name == by_numbers
        assert repr(by_name) == repr(by_numbers)


def test_a_map_that_starts_later_in_its_region(bar: Region | PortRegion) -> None:
    assert Read("x", Channel(bar, offset=0x20).count) == Read("x", bar, 0x20, 8)


def test_the_access_is_one_that_the_register_allows(bar: Region | PortRegion) -> None:
    registers = Registers(bar)
    with pytest.raises(RegisterAccessError, match="command is write-only"):
        Read("x", registers.command)
    with pytest.raises(RegisterAccessError, match="command is write-only"):
        Poll("x", registers.command, mask=1, value=1, timeout=0.1)
    with pytest.raises(RegisterAccessError, match="status is read-only"):
        Write(registers.status, 1)
    with pytest.raises(RegisterAccessError, match="events is read-only"):
        WriteBack("x", registers.events)


def test_a_named_register_is_checked(bar: Region | PortRegion) -> None:
    registers = Registers(bar)
    with pytest.raises(ValueError, match=f"{re.escape(NAME)}.* is not inside"):
        Read("x", registers.beyond)
    for value in (-1, 1 << 16):
        with pytest.raises(ValueError, match="16 bits"):
            Write(registers.control, value)
        with pytest.raises(ValueError, match="16 bits"):
            WriteBack("x", registers.control, mask=value)
        with pytest.raises(ValueError, match="16 bits"):
            Poll("x", registers.control, mask=value, value=0, timeout=0.1)
    with pytest.raises(ValueError, match="never be found"):
        Poll("x", registers.control, mask=1, value=2, timeout=0.1)
    for timeout in (0, 2, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            Poll("x", registers.control, mask=1, value=1, timeout=timeout)
    for value in (-1, 16):
        with pytest.raises(ValueError, match=r"level\[7:4\] is 0 to 0xf"):
            Poll("x", registers.control, mask=Control.level, value=value, timeout=0.1)
        with pytest.raises(ValueError, match=r"level\[7:4\] is 0 to 0xf"):
            When("x", Control.level, value, [])


def test_a_field_is_one_of_the_register_and_readable(bar: Region | PortRegion) -> None:
    control = Registers(bar).control
    with pytest.raises(ValueError, match="control has no field"):
        Poll("x", control, mask=Other.busy, value=1, timeout=0.1)
    with pytest.raises(RegisterAccessError, match=r"control\.go is write-only"):
        Poll("x", control, mask=Control.go, value=1, timeout=0.1)


def test_registers_of_other_kinds_and_wrong_types(bar: Region | PortRegion) -> None:
    registers: Any = Registers(bar)
    for outside in (Registers.control, registers.control.snapshot(), Control.of(5), Registers(Plain(bytes(8))).control):
        with pytest.raises(TypeError, match=r"not in a Region or a PortRegion"):
            Read("x", outside)
        with pytest.raises(TypeError, match=r"not in a Region or a PortRegion"):
            Write(outside, 1)
    make: Any
    arguments: tuple[Any, ...]
    for make, arguments, keywords in (
        (Read, ("x", registers.control, 4), {}),
        (Read, ("x", registers.control), {"bits": 16}),
        (Write, (registers.control, 0, 1), {}),
        (Write, (registers.control, 1), {"bits": 16}),
        (WriteBack, ("x", registers.control, 0xF), {}),
        (Poll, ("x", registers.control, 4, 1, 1, 0.1), {}),
    ):
        with pytest.raises(TypeError, match="own offset and width"):
            make(*arguments, **keywords)
    for make, arguments in (
        (Read, ("x", bar)),
        (Read, ("x", bar, "0")),
        (Read, ("x", bar, 0.0)),
        (Read, ("x", registers)),
        (Read, ("x", Control)),
        (Write, (registers.control,)),
        (Write, (bar, 0)),
        (Write, (registers.control, 1.0)),
        (WriteBack, ("x", bar)),
        (Poll, ("x", bar, 0, 1, 1)),
        (Poll, ("x", bar, 0, 1, 1, "0.1")),
        (Poll, ("x", registers.control)),
        (When, ("x", "1", 1, [])),
    ):
        with pytest.raises(TypeError):
            make(*arguments)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, Odd])
def test_numbers_are_kept_as_exact_ints(bar: Region | PortRegion, kind: Any) -> None:
    operations = [
        Read("x", bar, kind(4), kind(16)),
        Write(bar, kind(4), kind(100), kind(8)),
        Write(Registers(bar).control, kind(100)),
        WriteBack("x", bar, kind(4), kind(100), kind(16)),
        Poll("x", bar, kind(4), kind(3), kind(1), kind(1) if kind is Odd else 1, kind(16)),
        Poll("x", Registers(bar).control, mask=Control.level, value=kind(2), timeout=1),
        When("x", kind(3), kind(1), []),
        When("x", Control.level, kind(2), []),
    ]
    for operation in operations:
        numbers = [value for value in vars(operation).values() if isinstance(value, (int, np.integer))]
        assert numbers
        assert {type(number) for number in numbers} == {int}
    assert type(operations[4].timeout) is float  # type: ignore[attr-defined]
    for value in (-1, 1 << 32):
        with pytest.raises(ValueError, match="32 bits"):
            Write(bar, 0, Odd(value))
        with pytest.raises(ValueError, match="32 bits"):
            Poll("x", bar, 0, Odd(value), 0, 0.1)
    with pytest.raises(ValueError, match="never be found"):
        When("x", 1, Odd(2), [])


def test_what_c_gets_of_a_named_register(bar: Region | PortRegion) -> None:
    registers = Registers(bar)
    program = [
        Read("x", registers.control),
        Write(registers.command, 0x12345678),
        WriteBack("x", registers.control),
        Poll("y", registers.control, mask=Control.level, value=2, timeout=0.5),
    ]
    with contextlib.ExitStack() as stack:
        native = NativeProgram(flatten(program), stack)
        _, start, swapped = bar.reach(0, stack)
        found = [(one.address - start, one.bits, one.mask, one.value) for one in native.array]
        assert native.names == ["x", "y"]
        assert all(one.swap == swapped for one in native.array)
        assert swapped == (sys.byteorder == "big")
    assert found == [
        (4, 16, 0, 0),
        (0, 32, 0, 0x12345678),
        (4, 16, 0xFFFF, 0),
        (4, 16, 0xF0, 0x20),
    ]


def test_registers_are_checked(bar: Region | PortRegion) -> None:
    for offset in (-4, SIZE, SIZE - 3, 1 << 70):
        with pytest.raises(ValueError, match=re.escape(NAME)):
            Read("x", bar, offset)
    for offset in (1, 2, 3):
        with pytest.raises(ValueError, match="multiple of 4"):
            Write(bar, offset, 0)
    for bits in (0, 7, 24, 128):
        with pytest.raises(ValueError, match="bits"):
            WriteBack("x", bar, 0, bits=bits)
    if isinstance(bar, PortRegion):
        with pytest.raises(ValueError, match="8 to 32 bits"):
            Read("x", bar, 0, bits=64)
    Read("x", bar, SIZE - 1, bits=8)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_values_are_checked(bar: Region | PortRegion, bits: int) -> None:
    too_wide = 1 << bits
    for value in (-1, too_wide):
        with pytest.raises(ValueError, match=f"{bits} bits"):
            Write(bar, 0, value, bits=bits)
        with pytest.raises(ValueError, match=f"{bits} bits"):
            WriteBack("x", bar, 0, value, bits=bits)
        with pytest.raises(ValueError, match=f"{bits} bits"):
            Poll("x", bar, 0, value, 0, 0.1, bits=bits)
    with pytest.raises(ValueError, match="never be found"):
        Poll("x", bar, 0, 1, 2, 0.1)
    with pytest.raises(ValueError, match="never be found"):
        When("x", 1, 2, [])
    for timeout in (0, -1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            Poll("x", bar, 0, 1, 1, timeout)


@pytest.mark.parametrize("region", [None, b"", "bar0", object()])
def test_a_register_is_in_a_region(region: Any) -> None:
    with pytest.raises(TypeError, match=r"Region or a PortRegion"):
        Read("x", region, 0)


def test_what_is_used_was_kept_before(bar: Region | PortRegion) -> None:
    use = WriteBack("status", bar, 0)
    for program in ([use], [use, Read("status", bar, 0)], [Stamp("other"), When("status", 1, 1, [])]):
        with pytest.raises(ValueError, match="'status', which nothing before it has kept"):
            list(flatten(program))
    list(flatten([Stamp("now"), When("now", 0, 0, [Read("status", bar, 0)]), use]))
    with pytest.raises(TypeError, match="not of int"):
        list(flatten([Unmask(), 5]))  # type: ignore[list-item]


programs = st.recursive(
    st.lists(st.builds(Count, st.just("n"))),
    lambda inner: st.lists(st.builds(When, st.just("now"), st.just(0), st.just(0), inner), max_size=3),
)


@given(programs)
def test_nested_operations_are_skipped_as_a_whole(program: list[Operation]) -> None:
    def size(operations: Any) -> int:
        return sum(1 + (size(one.operations) if isinstance(one, When) else 0) for one in operations)

    flat = list(flatten([Stamp("now"), *program]))[1:]
    assert len(flat) == size(program)
    for index, (operation, inside, _) in enumerate(flat):
        assert inside == (size(operation.operations) if isinstance(operation, When) else 0)
        assert index + inside < len(flat)


def test_a_missing_value_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bar"
    path.write_bytes(bytes(4096))
    with Region(path, 4096) as region, pytest.raises(TypeError, match="the value is missing"):
        Write(region, 1)  # type: ignore[call-overload]


def test_a_loop_is_bounded_before_it_runs(bar: Region | PortRegion) -> None:
    read, append = Read("x", bar, 0), Append("data", bar, 4)
    for most in (0, -1, (1 << 16) + 1):
        with pytest.raises(ValueError, match="runs 1 to 65536 times at most"):
            While("x", 1, 1, [read], most=most)
    with pytest.raises(ValueError, match="never be found under mask"):
        While("x", 1, 2, [read], most=1)
    with pytest.raises(ValueError, match="While tests 'x', which nothing inside it reads again"):
        flatten([read, While("x", 1, 1, [append], most=2)])
    with pytest.raises(ValueError, match="While uses 'x', which nothing before it has kept"):
        flatten([While("x", 1, 1, [read], most=2)])
    inner = While("x", 1, 1, [read, append], most=1 << 10)
    assert [step.times for step in flatten([read, inner])] == [1, 1, 1 << 10, 1 << 10]
    with pytest.raises(ValueError, match="up to 131138 operations in one event, more than 65536"):
        flatten([read, While("x", 1, 1, [inner], most=1 << 6)])
    poll = Poll("x", bar, 0, 1, 1, 0.125)
    assert len(flatten([read, poll, While("x", 1, 1, [poll], most=8)])) == 4
    with pytest.raises(ValueError, match=r"polls in loops may wait for 1\.125 s in one event, more than 1"):
        flatten([read, While("x", 1, 1, [poll], most=9)])


def test_a_list_has_room_for_every_round(bar: Region | PortRegion) -> None:
    append, test = Append("data", bar, 4, bits=8), Read("x", bar, 0)
    program = [test, append, While("x", 1, 1, [append, While("x", 1, 1, [append, test], most=3)], most=5), Stamp("now")]
    with contextlib.ExitStack() as stack:
        native = NativeProgram(flatten(program), stack)
        assert native.names == ["x", "data", "now"]
        assert native.lists == {"data": (3, 1 + 5 + 15)}
        assert native.slots == 3 + 1 + 21
        assert [one.limit for one in native.array] == [0, 21, 5, 21, 3, 21, 0, 0]
        assert [one.skip for one in native.array] == [0, 0, 4, 0, 2, 0, 0, 0]


def test_a_program_keeps_to_the_widest_access(path: Path) -> None:
    with Region(path, SIZE, name=NAME, width=16) as narrow:
        Read("x", narrow, 0, bits=16)
        with pytest.raises(ValueError, match="8 to 16 bits, not 32"):
            Append("x", narrow, 0)
