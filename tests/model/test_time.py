# SPDX-License-Identifier: MIT
"""Times that cannot pass are refused, before they spoil the clock that all cards share."""

from __future__ import annotations

from typing import Any

import pytest

import pyuio.model
from pyuio.model import Card, NothingPlannedError, clock


class Idle(Card):
    """A card that does nothing by itself."""

    vendor, device = 0x1234, 0xC0DE


@pytest.fixture
def card() -> Any:
    made = Idle()
    with pyuio.model.open(made):
        yield made


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e300, 10**400])
def test_a_time_that_cannot_pass(card: Idle, seconds: float) -> None:
    now = clock.monotonic()
    with pytest.raises(ValueError, match=r"Idle: after\(\) takes seconds from 0 to 1e\+09, not"):
        card.after(seconds, card.remove)
    with pytest.raises(ValueError, match=r"^sleep\(\) takes seconds from 0 to 1e\+09, not"):
        clock.sleep(seconds)
    with pytest.raises(ValueError, match=r"^delay_interrupt\(\) takes seconds from 0 to"):
        card.faults.delay_interrupt(1, seconds)
    assert clock.monotonic() == now


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_a_wait_that_is_as_long_as_for_ever(card: Idle, timeout: float) -> None:
    card.after(1, card.raise_interrupt)
    with pyuio.model.open(type(card)()) as device, pytest.raises(NothingPlannedError):
        device.interrupt.read(timeout)
    assert clock.monotonic() < 1e9
    clock.sleep(1)


def test_a_time_that_is_no_number(card: Idle) -> None:
    no_number: Any = None
    with pytest.raises(TypeError, match=r"Idle: after\(\) takes seconds, a number, not None"):
        card.after(no_number, card.remove)


def test_what_cannot_be_called(card: Idle) -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match=r"after\(\) takes a method, .* not None"):
        card.after(1, nothing)


def test_a_card_that_plans_for_now_without_end(card: Idle) -> None:
    def again() -> None:
        if calls:
            card.after(0, calls[0])

    calls = [again]
    card.after(0, again)
    with pytest.raises(RuntimeError, match=r"100000 calls were due .* a card plans calls for now without end"):
        clock.sleep(1)
    calls.clear()  # so that it ends, and disturbs no other test
    clock.sleep(1)


@pytest.mark.long
def test_very_many_calls_at_different_times(card: Idle) -> None:
    left = [150_000]

    def again() -> None:
        left[0] -= 1
        if left[0]:
            card.after(1e-6, again)

    card.after(0, again)
    clock.sleep(1)
    assert left == [0]
