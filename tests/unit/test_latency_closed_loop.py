# SPDX-License-Identifier: MIT
"""Matching of interrupts that came due with those that were handled; the methods that a driver must supply."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyuio_drivers.edu import Edu

from pyuio import Driver
from pyuio.errors import PyuioError, UnsupportedByDriverError
from pyuio.latency.closed_loop import check, latencies
from pyuio.latency.trigger_process import Triggered
from pyuio.program import Operation


def triggered(due: list[int], raised: list[int]) -> Triggered:
    return Triggered(due, raised, [1] * len(raised))


def test_one_after_the_other() -> None:
    assert latencies(triggered([1000, 2000], [1000, 2000]), [1010, 2005]) == ({0: 10, 1: 5}, 0)


def test_what_came_due_while_one_was_pending_waited_with_it() -> None:
    assert latencies(triggered([1000, 1200, 1400], [1000, 1520]), [1500, 1530]) == ({0: 500, 1: 300, 2: 100}, 0)


def test_what_came_due_after_the_read_waited_for_the_next() -> None:
    assert latencies(triggered([1000, 1510], [1000, 1600]), [1500, 1650]) == ({0: 500, 1: 140}, 0)


def test_what_was_not_handled_is_missing() -> None:
    assert latencies(triggered([1000, 2000], [1000, 2000]), [1010]) == ({0: 10}, 0)
    assert latencies(triggered([1000], [1000]), []) == ({}, 0)


def test_what_nobody_raised_is_impossible() -> None:
    assert latencies(triggered([1000], [1000]), [1010, 1020])[1] == 1
    assert latencies(triggered([1000], [1000]), [990, 1010])[1] == 2


@given(st.lists(st.integers(1, 1000), max_size=100), st.randoms(use_true_random=False))
def test_each_waits_for_the_read_that_found_it(gaps: list[int], chance: random.Random) -> None:
    """Interrupts come due on a fixed schedule, the handler is slow, and one interrupt is raised at a time."""
    schedule = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    raised: list[int] = []
    handled: list[int] = []
    expected: dict[int, int] = {}
    free, waiting = 0, list(range(len(schedule)))
    while waiting:
        raised.append(max(free, schedule[waiting[0]]))
        handled.append(raised[-1] + chance.randint(1, 1500))
        free = handled[-1] + chance.randint(1, 300)  # the handler has finished
        found = [number for number in waiting if schedule[number] <= handled[-1]]
        expected.update({number: handled[-1] - schedule[number] for number in found})
        waiting = waiting[len(found) :]
    assert latencies(triggered(schedule, raised), handled) == (expected, 0)


class Half(Driver):
    ids = ("aced:0001",)

    def trigger(self) -> None:
        """Do nothing; the test only looks whether the method exists."""


def test_a_driver_must_supply_all_of_it() -> None:
    check(Edu)
    with pytest.raises(
        UnsupportedByDriverError, match=r"Half, which.* acknowledge\(\), acknowledge_program\(\)"
    ) as info:
        check(Half)
    assert isinstance(info.value, PyuioError)
    assert isinstance(info.value, NotImplementedError)
    assert "trigger()" not in str(info.value)
    assert Half.supplies("trigger")
    assert not Half.supplies("trigger", "acknowledge")


def test_what_the_base_says() -> None:
    half = object.__new__(Half)
    for call in (half.acknowledge, half.acknowledge_program, half.trigger_program):
        with pytest.raises(UnsupportedByDriverError, match="Half supplies no"):
            call()


def test_a_driver_that_supplies_a_program_only() -> None:
    class Program(Half):
        def acknowledge_program(self) -> list[Operation]:
            return []

    with pytest.raises(UnsupportedByDriverError, match=r"supply acknowledge\(\);"):
        check(Program)
