# SPDX-License-Identifier: MIT
"""Runs the targets of ``make fuzz`` for a moment: on good input, the same cut short and changed, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

EXAMPLES = {"system_rdl": 15, "device_directory": 30}  # slow ones; the others:
MANY = 30


@pytest.mark.parametrize("name", TARGETS)
def test_good_input(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        assert len(seed) <= target.longest
        target.run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_whatever_breaks_it(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()

    @settings(max_examples=EXAMPLES.get(name, MANY))
    @given(st.sampled_from(seeds), st.floats(0, 1), st.binary(max_size=24), st.integers(0, 64))
    def changed(seed: bytes, place: float, data: bytes, removed: int) -> None:
        at = int(place * len(seed))
        target.run(seed[:at] + data + seed[at + removed :])
        target.run(seed[:at])

    @settings(max_examples=EXAMPLES.get(name, MANY))
    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def anything(data: bytes) -> None:
        target.run(data)

    changed()
    anything()
