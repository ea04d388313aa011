# SPDX-License-Identifier: MIT
"""Fields: how they read and change a register's bits, by compiled code and in Python, and invalid declarations."""

from __future__ import annotations

import enum
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio import Field, Register, UnknownValueError
from pyuio.region import Region
from pyuio.registers.access import ACCESSES
from tests.unit.register_support import Plain, kind

WIDTHS = st.sampled_from([8, 16, 32, 64])


class Speed(enum.IntEnum):
    SLOW = 0
    FAST = 2


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, dict[str, tuple[int, int]]]:
    """Draw a width, and the highest and lowest bits of fields that do not overlap, by name."""
    width = draw(WIDTHS)
    cuts = sorted(draw(st.sets(st.integers(0, width), min_size=2)))
    pieces = [(high - 1, low) for low, high in itertools.pairwise(cuts)]
    chosen = draw(st.lists(st.sampled_from(pieces), min_size=1, unique=True))
    return width, {f"from_{low}": (high, low) for high, low in chosen}


@given(layouts(), st.data())
def test_fields_take_apart_what_they_put_together(
    made: tuple[int, dict[str, tuple[int, int]]], data: st.DataObject
) -> None:
    width, places = made
    register = kind(width, {name: Field(high, low) for name, (high, low) in places.items()})
    start = data.draw(st.integers(0, (1 << width) - 1))
    values = {name: data.draw(st.integers(0, (1 << high - low + 1) - 1)) for name, (high, low) in places.items()}
    plain = Plain(start.to_bytes(8, "little"))
    with register(0)._bound(plain, 0, "made").change() as held:
        for name, value in values.items():
            setattr(held, name, value)
            assert getattr(held, name) == value
    assert plain.log == [("read", 0, width), ("write", 0, width)]
    written = int.from_bytes(plain.memory[: width // 8], "little")
    back = register.of(written)
    assert {name: getattr(back, name) for name in places} == values
    touched = sum(((1 << high - low + 1) - 1) << low for high, low in places.values())
    assert written & ~touched == start & ~touched, "bits of no field were changed"


def outcomes(register: Any, values: list[int]) -> list[object]:
    """Return what each way to use a register with a field `it` returns or raises."""
    calls: list[Callable[[], object]] = [register.read, lambda: register.it, lambda: register.snapshot().it]
    for value in values:
        calls += [lambda value=value: setattr(register, "it", value), lambda value=value: register.write(value)]  # type: ignore[misc]
        calls += [register.read, lambda: register.it]
    found: list[object] = []
    for call in calls:
        try:
            found.append(call())
        except (ValueError, AttributeError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


@given(WIDTHS, st.sampled_from(ACCESSES), st.sampled_from(ACCESSES), st.booleans(), st.data())
def test_the_compiled_way_is_the_same_as_the_other(
    width: int, access: Any, around: Any, big: bool, data: st.DataObject
) -> None:
    """Try every access that a field and its neighbours can have, with values that fit and that do not."""
    low = data.draw(st.integers(0, width - 1))
    high = data.draw(st.integers(low, width - 1))
    start = data.draw(st.integers(0, (1 << width) - 1)).to_bytes(width // 8, "big" if big else "little")
    values = data.draw(st.lists(st.integers(-1, (2 << high - low + 1) + 1), max_size=3))
    named = data.draw(st.booleans()) and high - low > 0
    made = kind(
        width, {"it": Field(high, low, Speed, access=access) if named else Field(high, low, access=access)}, around
    )
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(start)
        file.flush()
        with Region(file.name, width // 8, endian="big" if big else "little") as region:
            compiled = outcomes(made(0)._bound(region, 0, "made"), values)
        after = Path(file.name).read_bytes()
    plain = Plain(start[::-1] if big else start)
    assert compiled == outcomes(made(0)._bound(plain, 0, "made"), values)
    assert after == bytes(plain.memory[::-1] if big else plain.memory)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xF), st.integers(0, 1))
def test_neighbours_that_1_clears_are_left_alone(start: int, mode: int, bit: int) -> None:
    """A write for another field writes 0 to each of their bits, and to each write-only bit."""
    made = kind(
        32,
        {
            "mode": Field(3, 0),
            "enable": Field(4),
            "overflow": Field(8, access="w1c"),
            "errors": Field(15, 12, access="w1c"),
            "start": Field(16, access="wo"),
            "set": Field(17, access="w1s"),
            "toggle": Field(18, access="w1t"),
        },
    )
    left_alone, kept = 0x0007F100, 0xFFF80EE0
    plain = Plain(start.to_bytes(4, "little"))
    register = made(0)._bound(plain, 0, "made")
    register.mode = mode
    written = plain.read32(0)
    assert written & left_alone == 0
    assert written & kept == start & kept
    assert written & 0x1F == start & 0x10 | mode
    with register.change() as held:
        held.enable = bit
        held.overflow = 1
    assert plain.read32(0) & left_alone == 0x100, "only what was set to 1 is written as 1"
    register.errors = 0b0100
    assert plain.read32(0) & left_alone == 0x4000


def test_what_a_bit_and_an_enumeration_read_as() -> None:
    class Control(Register):
        enable = Field(0)
        speed = Field(5, 4, Speed)
        one = Field(7, 7)
        far = Field(31, 20, Speed)

    held = Control.of(0x00200021)
    assert held.enable is True
    assert held.speed is Speed.FAST
    assert held.far is Speed.FAST
    assert type(held.one) is int
    assert Control.of(0).speed is Speed.SLOW
    for value in (0x30, 0xFFF00010):
        with pytest.raises(UnknownValueError, match="which Speed has no name for"):
            print(Control.of(value).speed, Control.of(value).far)
        assert "not named" in str(Control.of(value)), "printing never fails"
        assert "not named" in repr(Control.of(value))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": lambda: Field(32)}, r"field a\[32\] is outside of its 32 bits"),
        ({"a": lambda: Field(7, 4), "b": lambda: Field(4)}, r"fields a\[7:4\] and b\[4\] overlap"),
        ({"a": lambda: Field(64)}, r"field a\[64\] is outside of its 32 bits"),
        ({"a": lambda: Field(3, 4)}, "not by 3 and 4"),
        ({"a": lambda: Field(-1)}, "not by -1"),
        ({"a": lambda: Field(0, access="r0")}, "access is one of ro, wo, rw"),  # type: ignore[call-overload]
        ({"a": lambda: Field(0, enum=Speed)}, r"FAST: 2> does not fit field \[0\], whose values are 0 to 0x1"),
        ({"read": lambda: Field(0)}, "read is taken by Register; call it read_"),
        ({"_a": lambda: Field(0)}, "starts with an underscore"),
    ],
)
def test_declarations_that_cannot_be(fields: dict[str, Callable[[], Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(32, {name: make() for name, make in fields.items()})


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="enable is declared twice"):

        class Twice(Register):
            enable = Field(0)
            enable = Field(1)  # noqa: PIE794

    shared: Any = Field(0)
    with pytest.raises(ValueError, match="second is field first by another name"):
        kind(32, {"first": shared, "second": shared})

    class Base(Register):
        enable = Field(0)

    with pytest.raises(ValueError, match="enable is taken by Base"):

        class Again(Base):
            enable = Field(1)

    class More(Base):
        mode = Field(2, 1)

    assert More.of(0b101).enable
    assert More.of(0b101).mode == 2
    assert list(More(0).info.fields) == ["enable", "mode"]


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r"must be an enum\.IntEnum"):
        Field(3, 0, int)  # type: ignore[type-var]
    with pytest.raises(TypeError):
        Field("3")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="width is 8, 16, 32 or 64 bits, not 24"):
        kind(24, {})
    with pytest.raises(ValueError, match="width is 8, 16, 32 or 64 bits, not 128"):
        Register(0, width=128)
    with pytest.raises(ValueError, match="access is one of"):
        Register(0, access="readonly")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is from 0"):
        Register(-4)
    made = kind(32, {"wide": Field(31, 16)})
    with pytest.raises(ValueError, match="outside of its 16 bits"):
        made(0, width=16)
    with pytest.raises(TypeError, match="a field is one of a Register, not of int"):
        made.wide.__get__(5, int)
    with pytest.raises(TypeError, match="a field is one of a Register, not of int"):
        made.wide.__set__(5, 5)
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del made.of(0).wide
