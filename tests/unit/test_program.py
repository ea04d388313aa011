# SPDX-License-Identifier: MIT
"""Programs are checked when they are made."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.program import Count, Operation, Poll, Read, Stamp, Unmask, When, Write, WriteBack, flatten
from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE


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
    for index, (operation, inside) in enumerate(flat):
        assert inside == (size(operation.operations) if isinstance(operation, When) else 0)
        assert index + inside < len(flat)
