# SPDX-License-Identifier: MIT
"""Registers wider than one access, memory by name, alignment by the place in the region, and reversed fields."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio import Array, Field, Memory, Register, RegisterAccessError, RegisterMap, RegisterNotFoundError
from pyuio.program import Read
from pyuio.region import Region
from pyuio.registers.access import ACCESSES, EFFECTS
from pyuio.registers.register import RegisterType
from tests.unit.register_support import Plain, kind

SIZE = 0x1000


@pytest.fixture
def region(tmp_path: Path) -> Any:
    path = tmp_path / "bar"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    with Region(path, SIZE) as region:
        yield region


class Code(enum.IntEnum):
    NONE = 0
    ALL = 0xFF


class Digest(Register, width=256, access_width=32):
    low = Field(7, 0, Code)
    across = Field(71, 60)
    bit = Field(200)
    high = Field(255, 248, Code)


class Counters(RegisterMap):
    received = Register(0x00, width=64, access_width=32, access="ro")
    sent = Register(0x08, width=64, access_width=32, access="ro", first="high")
    digest = Digest(0x14)


class Turned(Register, width=64, access_width=32, word_order="big"):
    high = Field(63, 32)
    low = Field(7, 0)


class Words(RegisterMap):
    turned = Turned(0x00)
    first = Turned(0x08, first="high")
    plain = Turned(0x10, word_order="little")


def test_the_word_order() -> None:
    plain = Plain(bytes(range(0x18)))
    words = Words(plain)
    assert [words.turned.read(), words.first.read(), words.plain.read()] == [
        0x03020100_07060504,
        0x0B0A0908_0F0E0D0C,
        0x17161514_13121110,
    ]
    assert [offset for _, offset, _ in plain.log] == [4, 0, 8, 12, 0x10, 0x14]
    assert (words.turned.high, words.turned.low) == (0x03020100, 0x04)
    words.turned.high = 0xAABBCCDD
    words.first.write(0x1122334455667788)
    assert plain.memory[:16].hex() == "ddccbbaa0405060744332211" + "88776655"
    assert words.first.read_run(1).hex() == "44332211" + "88776655"
    words.turned.write_run(bytes(range(8)))
    assert plain.memory[:8] == bytes(range(8))
    with pytest.raises(ValueError, match='the order of words is "little" or "big", not \'middle\''):
        Register(0, word_order="middle")  # type: ignore[arg-type]


def test_the_word_order_does_not_depend_on_the_order_of_bytes() -> None:
    memory = bytearray(range(8))
    assert Words(bytearray(memory * 3), endian="big").plain.read() == 0x04050607_00010203
    assert Words(bytearray(memory * 3), endian="big").turned.read() == 0x00010203_04050607
    assert Words(bytearray(memory * 3)).turned.read_run(1) == bytes(memory)


def test_a_wide_register_is_accessed_in_parts() -> None:
    plain = Plain(bytes(range(0x40)))
    counters = Counters(plain)
    assert counters.received.read() == 0x0706050403020100
    assert counters.sent.read() == 0x0F0E0D0C0B0A0908
    assert plain.log == [("read", 0, 32), ("read", 4, 32), ("read", 12, 32), ("read", 8, 32)]
    plain.log.clear()
    value = int.from_bytes(range(0x34, 0x14, -1), "big")
    counters.digest.write(value)
    assert plain.log == [("write", 0x14 + 4 * part, 32) for part in range(8)]
    assert counters.digest.read() == value
    assert counters.digest.across == value >> 60 & 0xFFF
    assert counters.digest.bit is bool(value >> 200 & 1)
    counters.digest.across = 0xABC
    counters.digest.high = Code.ALL
    with counters.digest.change() as digest:
        digest.bit = not digest.bit
        digest.low = Code.NONE
    expected = value & ~(0xFFF << 60) | 0xABC << 60 | 0xFF << 248
    expected = (expected ^ 1 << 200) & ~0xFF
    assert counters.digest.read() == expected
    assert counters.digest.snapshot().high is Code.ALL
    with pytest.raises(ValueError, match="does not fit its 256 bits"):
        counters.digest.write(1 << 256)
    with pytest.raises(ValueError, match=r"does not fit bits \[71:60\]"):
        counters.digest.across = 0x1000
    assert "high[255:248] = 255 (ALL)" in str(counters.digest)
    assert f"{expected:#066x}" in str(counters)
    assert Counters.find("digest.across").width == 256


def test_the_parts_follow_the_byte_order(tmp_path: Path) -> None:
    (tmp_path / "bar").write_bytes(bytes(range(0x40)))
    for endian in ("little", "big"):
        with Region(tmp_path / "bar", 0x40, endian=endian) as region:
            counters = Counters(region)
            assert counters.received.read() == int.from_bytes(range(8), endian)
            assert counters.digest.read() == int.from_bytes(range(0x14, 0x34), endian)
            counters.digest.write(counters.digest.read())
    assert (tmp_path / "bar").read_bytes() == bytes(range(0x40))


def test_runs_of_wide_registers(region: Any) -> None:
    class Keys(RegisterMap, width=32):
        queue = Register(0x10, width=64, access_width=32)
        key = Array(Register(0x40, width=128, access_width=32, first="high"), 2)

    keys = Keys(region)
    assert keys.queue.read_run(2) == bytes(range(0x10, 0x18)) * 2
    keys.queue.write_run(bytes(8) + b"abcdefgh")
    assert region.read(0x10, 8) == b"abcdefgh"
    assert keys.key.read() == bytes(range(0x40, 0x60))
    keys.key.write(bytes(16), first=1)
    assert region.read(0x40, 32) == bytes(range(0x40, 0x50)) + bytes(16)
    with pytest.raises(ValueError, match="give its access_width"):

        class Never(RegisterMap, width=32):
            wide = Register(0, width=64)

    class Words(RegisterMap):
        rom = Memory(Register(0, width=64), 16)

    with pytest.raises(ValueError, match=r"part\.rom has 64 bits, and the widest access of the map has 32"):

        class Neither(RegisterMap, width=32):
            part = Array(Words.at(0), 2)


def test_a_wide_register_is_no_operation_of_a_program(region: Any) -> None:
    with pytest.raises(ValueError, match="takes several accesses"):
        Read("received", Counters(region).received)


@given(st.sampled_from([8, 16, 32, 64]), st.integers(1, 6), st.sampled_from(ACCESSES), st.integers(0), st.booleans())
def test_a_wide_field_is_used_like_any(part: int, parts: int, access: Any, seed: int, high: bool) -> None:
    width = part * parts
    made = (
        kind(width, {"it": Field(width - 1, width // 2, access=access)}, access) if width in (8, 16, 32, 64) else None
    )
    if made is None:
        with pytest.raises(ValueError, match="give the access_width"):
            Register(0, width=width)
    wide = Register(0, width=width, access_width=part, access=access, first="high" if high else "low")
    plain = Plain(bytes(width // 8))
    register = wide._bound(plain, 0, "it")
    value = seed % (1 << width)
    if EFFECTS[access].writable:
        register.write(value)
        assert int.from_bytes(plain.memory, "little") == value
        assert len(plain.log) == parts
    if EFFECTS[access].readable:
        assert register.read() == int.from_bytes(plain.memory, "little")


@pytest.mark.parametrize(
    ("width", "access_width", "first", "message"),
    [
        (128, None, None, "give the access_width"),
        (96, 64, None, "multiple of the access_width, 64, not 96"),
        (64, 24, None, "one access has a width of 8, 16, 32 or 64 bits, not 24"),
        (0, 32, None, "not 0"),
        (64, 32, "middle", '"low" or "high"'),
    ],
)
def test_widths_that_cannot_be(width: int, access_width: Any, first: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Register(0, width=width, access_width=access_width, first=first)
    with pytest.raises(ValueError, match=message):
        RegisterType("Made", (Register,), {}, width=width, access_width=access_width, first=first)


def test_a_register_aligned_by_its_place_in_the_region(region: Any) -> None:
    class Block(RegisterMap):
        a = Register(0x0)
        b = Register(0x4, width=64)

    class Card(RegisterMap):
        block = Block.at(0x4)
        more = Array(Block.at(0x14), 2, stride=0x10)

    card = Card(region)
    assert card.block.b.read() == 0x0F0E0D0C0B0A0908
    assert card.more[1].b.info.offset == 0x28
    assert card.more[1].b.read() == 0x2F2E2D2C2B2A2928
    assert Block(region, offset=0xC).b.info.offset == 0x10
    with pytest.raises(ValueError, match="Block at 0x0: the offset is a multiple of 8 from 0, plus 4"):
        Block(region)
    with pytest.raises(ValueError, match="second at 0x10 is misaligned wherever the map is"):

        class Never(RegisterMap):
            first = Register(0x4, width=64)
            second = Register(0x10, width=64)

    with pytest.raises(ValueError, match="stride"):
        Array(Block.at(0x4), 2, stride=0xC)


class Table(Register):
    valid = Field(0)
    tag = Field(15, 8)


class WithMemory(RegisterMap):
    control = Register(0x0)
    table = Memory(Table(0x100), 64)
    rom = Memory(Register(0x200, access="ro", width=64), 1 << 40)
    keys = Memory(Register(0x400, width=128, access_width=32, access="wo"), 4)
    bank = Array(Memory(Register(0x800, width=16), 8), 2, stride=0x100)


def test_memory_by_name(region: Any) -> None:
    card = WithMemory(region)
    assert [one.path for one in WithMemory.walk()] == ["control"], "a memory may have very many words"
    assert "table" not in str(card)
    assert len(card.table) == 64
    assert len(list(card.table)) == 64
    card.table[5].tag = 0xAB
    assert region.read32(0x114) == 0x1716AB14
    assert card.table[-1].info.path == "table[63]"
    assert [word.info.offset for word in card.table[2:4]] == [0x108, 0x10C]
    assert WithMemory.find("table[63].tag").offset == 0x1FC
    assert card.bank[1][7].info.offset == 0x90E
    assert WithMemory.find("bank[1][7]").bind(region).read() == 0x0F0E
    card.table.write(0x10, b"abcdefgh")
    assert card.table.read(0x10, 8) == b"abcdefgh"
    assert card.rom.read(8, 16) == bytes(range(8, 24))
    card.keys[1].write(1 << 127)
    assert region.read32(0x41C) == 1 << 31
    card.keys.write(0, bytes(64))


def test_what_a_memory_refuses(region: Any) -> None:
    card = WithMemory(region)
    before = region.read(0, SIZE)
    for error, call in (
        (IndexError, lambda: card.table[64]),
        (ValueError, lambda: card.table.read(0xFC, 8)),
        (ValueError, lambda: card.table.read(-4, 4)),
        (ValueError, lambda: card.table.write(0x100, b"abcd")),
        (ValueError, lambda: card.table.write(0, b"abc")),
        (RegisterAccessError, lambda: card.rom.write(0, bytes(8))),
        (RegisterAccessError, lambda: card.rom[0].write(1)),
        (RegisterAccessError, lambda: card.keys.read(0, 4)),
        (RegisterNotFoundError, lambda: WithMemory.find("table[64]")),
        (RegisterNotFoundError, lambda: WithMemory.find("table")),
        (TypeError, lambda: WithMemory.table.read(0, 4)),
        (TypeError, lambda: WithMemory(Plain(bytes(SIZE))).table.read(0, 4)),
        (TypeError, lambda: Memory(Array(Register(0), 2), 2)),  # type: ignore[type-var]
        (ValueError, lambda: Memory(Register(0), 0)),
        (AttributeError, lambda: setattr(card, "table", 5)),
    ):
        with pytest.raises(error):
            call()
    assert region.read(0, SIZE) == before


class Reversed(Register):
    code = Field(7, 4, msb0=True)
    kept = Field(15, 8)
    named = Field(31, 24, Code, msb0=True)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 15))
def test_a_field_whose_bits_are_reversed(start: int, part: int) -> None:
    def turned(number: int) -> int:
        return int(f"{number:04b}"[::-1], 2)

    plain = Plain(start.to_bytes(4, "little"))
    register = Reversed(0)._bound(plain, 0, "it")
    assert register.code == turned(start >> 4 & 15)
    register.code = part
    assert register.code == part
    assert plain.read32(0) == start & ~0xF0 | turned(part) << 4
    with register.change() as held:
        held.code = 1
        assert held.code == 1
    assert plain.read32(0) == start & ~0xF0 | 0x80
    assert "code[7:4]    = 1" in str(register)


def test_a_reversed_field_in_a_bar(region: Any) -> None:
    register = Reversed(0x40)._bound(region, 0x40, "it")
    assert register.code == 0b0010
    register.code = 0b0001
    register.kept = 0x55
    assert region.read32(0x40) == 0x43425580
    register.named = Code.ALL
    assert register.named is Code.ALL
