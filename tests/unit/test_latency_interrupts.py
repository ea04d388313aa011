# SPDX-License-Identifier: MIT
"""Matching of interrupts that were raised with those that were handled; the choice of CPUs."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.latency import interrupts
from pyuio.latency.interrupts import choose_cpus
from pyuio.latency.open_loop import Handled, latencies


def test_each_bit_is_a_sample() -> None:
    raised = [1000, 2000, 3000]
    assert latencies(raised, [(1010, 1012, 0b1), (3005, 3007, 0b110)]) == ({0: 10, 1: 1005, 2: 5}, 0)


def test_one_that_came_after_the_read_and_was_found_with_the_status() -> None:
    assert latencies([1000, 1015], [(1010, 1020, 0b11)]) == ({0: 10, 1: 5}, 0)


def test_what_was_never_raised_is_impossible() -> None:
    assert latencies([1000], [(1010, 1012, 0b101)]) == ({0: 10}, 1)
    assert latencies([1000], [(1010, 1012, 0b1), (1020, 1022, 0b1)]) == ({0: 10}, 1)


def test_what_was_not_handled_is_missing() -> None:
    assert latencies([1000, 2000], [(1010, 1012, 0b1)]) == ({0: 10}, 0)
    assert latencies([1000], []) == ({}, 0)


@given(st.lists(st.integers(1, 1000), max_size=200), st.randoms(use_true_random=False))
def test_every_interrupt_of_a_card_is_matched_with_itself(gaps: list[int], chance: random.Random) -> None:
    """A model of edu: interrupts set bits, the handler clears them at any time, and at most 32 are pending."""
    raised: list[int] = []
    handled: Handled = []
    expected: dict[int, int] = {}
    pending: list[int] = []
    now = 0

    def handle() -> None:
        handled.append((now, now, sum(1 << number % 32 for number in pending)))
        expected.update({number: now - raised[number] for number in pending})
        pending.clear()

    for number, gap in enumerate(gaps):
        now += gap
        if pending and (len(pending) == 32 or chance.random() < 0.3):
            handle()
            now += 1
        raised.append(now)
        pending.append(number)
    now += 1
    if pending:
        handle()
    assert latencies(raised, handled) == (expected, 0)


def test_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {0, 1, 3}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(interrupts, "default_cpu", lambda: 3)
    assert choose_cpus(None, None) == (3, 0)
    assert choose_cpus(0, None) == (0, 1)
    assert choose_cpus(None, 3) == (0, 3)
    assert choose_cpus(1, 0) == (1, 0)
    for reading, raising, says in ((2, None, "--cpu 2"), (None, 7, "--raising-cpu 7"), (1, 1, "must be another")):
        with pytest.raises(ValueError, match=says):
            choose_cpus(reading, raising)
    allowed = {0}
    with pytest.raises(ValueError, match="one CPU handles the interrupt and another raises it"):
        choose_cpus(None, None)
