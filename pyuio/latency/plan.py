# SPDX-License-Identifier: MIT
"""How much to measure. Ways and loads take turns, in rounds, so that a noisy moment affects all of them alike."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

TURN = 0.5  # seconds that a turn of one way under one load takes
WARM_UP = 20  # samples left out at the start of each turn: cold caches, first faults, a thread just started


@dataclass(frozen=True)
class Plan:
    """The number of rounds, each with one turn of `count` samples for each way under each load.

    Attributes:
        interval: ns between two events.
        rounds: the number of rounds.
        count: the samples of each turn that are kept.
        warm_up: the samples before these, which are not kept.
    """

    interval: int
    rounds: int
    count: int
    warm_up: int = WARM_UP

    @property
    def total(self) -> int:
        """Samples of each series."""
        return self.rounds * self.count

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for a run's settings."""
        return {**asdict(self), "total": self.total}


def make(interval: int, turns: int, *, duration: float | None = None, count: int | None = None) -> Plan:
    """Return the plan for a measurement.

    Args:
        interval: ns between two events.
        turns: the number of turns in each round: ways times loads.
        duration: seconds of measuring in all, warm-up included; starting and stopping loads takes additional time.
        count: in place of `duration`, the samples of each series; the plan may have a few more.

    Raises:
        ValueError: both or neither of the two are given, or the one given is too small.
    """
    if (duration is None) == (count is None):
        raise ValueError("either --duration or --count says how much is measured, not both")
    in_turn = max(1, int(TURN * 1e9 / interval))
    if count is not None:
        if count < 1:
            raise ValueError(f"--count must be at least 1, not {count}")
        rounds = math.ceil(count / in_turn)
        return Plan(interval, rounds, math.ceil(count / rounds))
    assert duration is not None
    if not (0 < duration < math.inf):
        raise ValueError(f"--duration must be above 0 s, not {duration:g}")
    each = int(duration * 1e9 / turns / interval)  # samples of each series, warm-up included
    if each <= WARM_UP:
        least = math.ceil((WARM_UP + 1) * interval * turns / 1e9 * 10) / 10
        raise ValueError(f"--duration {duration:g} s leaves no time after the warm-up: at least {least:g} s are needed")
    rounds = max(1, round(each / (in_turn + WARM_UP)))
    return Plan(interval, rounds, max(1, each // rounds - WARM_UP))
