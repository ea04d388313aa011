# SPDX-License-Identifier: MIT
"""Which map of a UIO node an index or a name means; tests/guest/test_uio_maps.py maps them."""

from __future__ import annotations

import errno
import re

import pytest

from pyuio import UioMap
from pyuio.errors import MappingError
from pyuio.region.map_mapping import find_map, of_map

REGS = UioMap(0, "regs", 0x1000, 0x1000, 0x40)
UNNAMED = UioMap(1, "", 0x3000, 0x2000, 0)
ODD = UioMap(3, "map1", 0x9000, 0x1000, 0)
TWIN, OTHER = UioMap(4, "twin", 0xA000, 0x1000, 0), UioMap(5, "twin", 0xB000, 0x1000, 0)
ALL = (REGS, UNNAMED, ODD, TWIN, OTHER)


@pytest.mark.parametrize(
    ("which", "found"),
    [(0, REGS), (1, UNNAMED), (3, ODD), ("regs", REGS), ("map0", REGS), ("map3", ODD), ("map1", ODD), ("map5", OTHER)],
)
def test_which(which: int | str, found: UioMap) -> None:
    assert find_map(ALL, which, "board") is found


@pytest.mark.parametrize(
    "which", [2, -1, 6, "", "reg", "REGS", "map2", "map", "map00000", "map\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_none(which: int | str) -> None:
    has = re.escape("; it has: map 0 (regs) of 0x1000 bytes at 0x1000, from 0x40 on; map 1 of 0x2000 bytes at 0x3000;")
    with pytest.raises(MappingError, match=f"^.*board has no map {which!r}{has}") as caught:
        find_map(ALL, which, "board")
    assert caught.value.errno == errno.ENXIO
    with pytest.raises(MappingError, match=r"it has: none$"):
        find_map((), which, "board")


def test_several() -> None:
    with pytest.raises(MappingError, match="board has 2 maps named 'twin'; give the index; it has: map 0"):
        find_map(ALL, "twin", "board")


@pytest.mark.parametrize("which", [None, True, 1.0, b"regs", ("regs",)])
def test_what_names_no_map(which: object) -> None:
    with pytest.raises(TypeError):
        find_map(ALL, which, "board")  # type: ignore[arg-type]


def test_entries_of_a_table() -> None:
    table: dict[int | str, int] = {0: 1, "regs": 2, "map0": 3, "map1": 4}
    assert [of_map(table, item) for item in ALL] == [2, 4, 4, None, None]
    assert of_map({0: 1}, REGS) is None, "a number is that of a BAR"
    assert of_map({"map0": 5}, REGS) == 5
