# SPDX-License-Identifier: MIT
"""Settings that several owners change, and restore in any order."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.rt.setting_stack import SettingStack

settings = SettingStack()


class Thing:
    """A number that can be set, or refuses to."""

    def __init__(self) -> None:
        self.value = 0
        self.refuses = False

    def write(self, value: int) -> None:
        if self.refuses:
            raise OSError(1, "no")
        self.value = value

    def change(self, owner: object, value: int) -> None:
        settings.change(owner, self, value, read=lambda: self.value, write=self.write)


@given(st.permutations(range(5)), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=20))
def test_the_last_one_out_restores_what_the_first_one_found(order: list[int], changes: list[tuple[int, int]]) -> None:
    things = [Thing() for _ in range(3)]
    owners = [object() for _ in range(5)]
    history: list[list[tuple[int, int]]] = [[], [], []]
    for value, (owner, thing) in enumerate(changes, 1):
        things[thing].change(owners[owner], value)
        history[thing].append((owner, value))
    for owner in order:
        assert settings.restore(owners[owner]) == []
        assert settings.restore(owners[owner]) == []
        assert not settings.holds(owners[owner])
        for changed, entries in zip(things, history, strict=True):
            entries[:] = [entry for entry in entries if entry[0] != owner]
            assert changed.value == (entries[-1][1] if entries else 0)


def test_what_was_refused_is_not_put_back() -> None:
    thing, owner = Thing(), object()
    thing.refuses = True
    with pytest.raises(OSError, match="no"):
        thing.change(owner, 1)
    assert not settings.holds(owner)


def test_what_is_refused_meanwhile_does_not_keep_the_rest() -> None:
    first, second, owner = Thing(), Thing(), object()
    first.change(owner, 1)
    second.change(owner, 1)
    second.refuses = True
    assert [error.errno for error in settings.restore(owner)] == [1]
    assert (first.value, second.value) == (0, 1)


def test_a_forked_process_starts_with_none() -> None:
    thing, owner = Thing(), object()
    thing.change(owner, 1)
    settings.change(owner, "inherited", 5, read=lambda: 7, write=lambda _: None, in_child=thing.write)
    settings.change(object(), "inherited", 6, read=lambda: 8, write=lambda _: None, in_child=thing.write)
    child = os.fork()
    if child == 0:
        os._exit(0 if not settings.holds(owner) and settings.restore(owner) == [] and thing.value == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert thing.value == 1
    for other in settings.owners():
        assert settings.restore(other) == []
    assert thing.value == 0
