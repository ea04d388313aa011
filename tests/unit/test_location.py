# SPDX-License-Identifier: MIT
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.cli.dump import hexdump
from pyuio.inspect.location import Location, parse_location, parse_number


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("bar0", Location(0)),
        ("BAR5+0x24", Location(5, 0x24)),
        ("bar0 + 36", Location(0, 36)),
        ("bar2+0b100", Location(2, 4)),
        ("bar2+1_0", Location(2, 10)),
        ("config", Location(None)),
        (" config+0x04 ", Location(None, 4)),
        ("bar0.status.computing", Location(0, name="status.computing")),
        ("bar0.channel[2].count", Location(0, name="channel[2].count")),
        ("bar0.channel[2][3]", Location(0, name="channel[2][3]")),
        ("map0", Location(None, map="map0")),
        ("map0+0x20", Location(None, 0x20, map="map0")),
        ("regset + 4", Location(None, 4, map="regset")),
        ("axi-regs@0.status.computing", Location(None, name="status.computing", map="axi-regs@0")),
        ("config-regs+8", Location(None, 8, map="config-regs")),
        ("barrier.on", Location(None, name="on", map="barrier")),
    ],
)
def test_places(text: str, place: Location) -> None:
    assert parse_location(text) == place


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "bar0 to bar5 or config, with an offset"),
        ("bar", "bar0 to bar5 or config"),
        ("0x24", "bar0 to bar5 or config"),
        ("bar6", "bar0 to bar5 at most"),
        ("bar99999999999999999999+1", "bar0 to bar5 at most"),
        ("bar0-4", "bar0 to bar5 or config"),
        ("bar0+", "the offset is a number from 0"),
        ("bar0+-4", "the offset is a number from 0"),
        ("bar0+024", "the offset is a number from 0"),
        ("bar0+0x", "the offset is a number from 0"),
        ("bar0+4+4", "the offset is a number from 0"),
        ("bar0+" + "9" * 5000, "the offset is a number from 0"),
        ("bar0+\N{ARABIC-INDIC DIGIT FOUR}", "the offset is a number from 0"),
        ("bar\N{ARABIC-INDIC DIGIT FOUR}", "bar0 to bar5 or config"),
        ("bar0.", "after the dot comes a name"),
        ("bar0.status.", "after the dot comes a name"),
        ("bar0.status[]", "after the dot comes a name"),
        ("config.command", "has no names here; pyuio info"),
        ("bar0.4", "after the dot comes a name"),
        ("map0.4", "after the dot comes a name"),
        ("regs+", "the offset is a number from 0"),
        ("regs 4", "map0 and so on or a map's name"),
    ],
)
def test_what_is_no_place(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_location(text)


@given(st.text() | st.from_regex(r"(bar[0-9]*|config|map[0-9]|regs)[+.]?.*"))
def test_any_text_is_a_place_or_an_error(text: str) -> None:
    try:
        place = parse_location(text)
    except ValueError:
        return
    assert parse_location(str(place)) == place


@given(st.integers(0, 1 << 70), st.sampled_from(["{:d}", "{:#x}", "{:#o}", "{:#b}", "{:_d}"]))
def test_numbers(number: int, form: str) -> None:
    assert parse_number(form.format(number), "it") == number


@given(
    st.sampled_from([8, 16, 32, 64]).flatmap(
        lambda bits: st.tuples(
            st.just(bits), st.lists(st.sampled_from([0, 1, (1 << bits) - 1, 0x41]), min_size=1, max_size=200)
        )
    ),
    st.integers(0, 0x1000),
)
def test_a_dump_shows_every_value(shape: tuple[int, list[int]], start: int) -> None:
    bits, values = shape
    lines = hexdump(values, bits, start)
    across = 128 // bits
    shown: list[int] = []
    repeated = False
    for line in lines:
        if line == "*":
            assert not repeated
            repeated = True
            continue
        offset, numbers = int(line[:8], 16), [int(word, 16) for word in line[10:].split("  |")[0].split()]
        missing = (offset - start) * 8 // bits - len(shown)
        assert repeated == (missing > 0)
        while missing > 0:
            shown += shown[-across:]
            missing -= across
        shown += numbers
        repeated = False
    assert shown == values
    assert not repeated


def test_what_a_dump_looks_like() -> None:
    assert hexdump([0x010000ED, 2, 3, 4, 5], 32, 0x20) == [
        "00000020  010000ed 00000002 00000003 00000004",
        "00000030  00000005",
    ]
    assert hexdump([*b"Hello, \0world!", *bytes(48)], 8, 0) == [
        "00000000  48 65 6c 6c 6f 2c 20 00 77 6f 72 6c 64 21 00 00  |Hello, .world!..|",
        "00000010  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  |................|",
        "*",
        "00000030  00 00 00 00 00 00 00 00 00 00 00 00 00 00        |..............|",
    ]
