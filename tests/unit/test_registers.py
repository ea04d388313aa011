# SPDX-License-Identifier: MIT
"""Registers by name, on each kind of region: what is read, written, refused, found and printed."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyuio import (
    Array,
    ClosedError,
    DeviceTimeoutError,
    Field,
    Register,
    RegisterAccessError,
    RegisterMap,
    RegisterNotFoundError,
)
from pyuio.region import PortRegion, Region
from tests.unit.register_support import Plain
from tests.unit.support import NAME, SIZE, ports


class Speed(enum.IntEnum):
    SLOW = 0
    FAST = 2


class Control(Register):
    """What the unit is to do."""

    enable = Field(0, doc="let it run")
    speed = Field(5, 4, Speed)
    busy = Field(6, access="ro")
    level = Field(15, 8)


class Events(Register, access="w1c", width=16):
    """What happened."""

    overflow = Field(0)
    underflow = Field(1)
    mask = Field(11, 8, access="rw")


class Command(Register, access="wo"):
    go = Field(0)
    mode = Field(3, 1)


class Cleared(Register, access="rc"):
    errors = Field(7, 0)
    threshold = Field(15, 8, access="rw")
    limit = Field(31, 24, access="rw")


class Channel(RegisterMap):
    """One channel."""

    count = Register(0x0, width=16)
    control = Control(0x4)
    words = Array(Register(0x8, width=8), 4)


class Block(RegisterMap):
    channel = Array(Channel.at(0x10), 2, stride=0x10)


class Card(RegisterMap):
    """All there is."""

    identification = Register(0x00, access="ro", doc="which card it is")
    control = Control(0x04)
    events = Events(0x08)
    command = Command(0x0C)
    cleared = Cleared(0x10)
    received = Register(0x14, width=8, access="rc")
    transmitted = Register(0x14, width=8, access="wo")
    wide = Register(0x18, width=64)
    grid = Array(Array(Register(0x20, width=16), 3), 2, stride=8)
    block = Block.at(0x40)


@pytest.fixture(params=[Region, ports, "big", Plain])
def bar(request: pytest.FixtureRequest, path: Path) -> Iterator[Any]:
    """Yield each kind of region that registers can be in."""
    if request.param is Plain:
        yield Plain(bytes(range(SIZE)))
    elif request.param == "big":
        with Region(path, SIZE, name=NAME, endian="big") as region:
            yield region
    else:
        with request.param(path, SIZE, name=NAME) as region:
            yield region


def test_reads_and_writes(bar: Any) -> None:
    card = Card(bar)
    assert card.identification.read() == bar.read32(0)
    card.control.write(0x12345678)
    assert bar.read32(4) == card.control.read() == 0x12345678
    if not isinstance(bar, PortRegion):
        card.wide.write(0xFEDCBA9876543210)
        assert bar.read64(0x18) == card.wide.read() == 0xFEDCBA9876543210
    card.block.channel[1].count.write(0xABCD)
    assert bar.read16(0x40 + 0x10 + 0x10) == 0xABCD
    card.block.channel[0].words[3].write(7)
    assert bar.read8(0x40 + 0x10 + 0x8 + 3) == 7
    card.grid[1][2].write(5)
    assert bar.read16(0x20 + 8 + 4) == 5
    assert [len(row) for row in card.grid] == [3, 3]
    assert [one.count.info.offset for one in card.block.channel] == [0x50, 0x60]


def test_fields(bar: Any) -> None:
    card = Card(bar)
    bar.write32(4, 0xFFFF0041)
    assert card.control.enable is True
    assert card.control.busy is True
    assert card.control.speed is Speed.SLOW
    assert card.control.level == 0
    card.control.speed = Speed.FAST
    card.control.level = 0xA5
    card.control.enable = False
    assert bar.read32(4) == 0xFFFFA560
    assert (card.control.enable, card.control.speed, card.control.level) == (False, Speed.FAST, 0xA5)


def test_what_1_clears_is_cleared_by_itself_only(bar: Any) -> None:
    card = Card(bar)
    bar.write16(8, 0x0503)
    card.events.mask = 0xF
    assert bar.read16(8) == 0x0F00, "a change of a neighbour wrote 0 to them, which in hardware leaves them alone"
    bar.write16(8, 0x0503)
    card.events.overflow = 1
    assert bar.read16(8) == 0x0501
    for nothing in (0, False):
        with pytest.raises(ValueError, match=r"events\.overflow: writing 0 does nothing here; write 1"):
            card.events.overflow = nothing
    bar.write16(8, 0x0503)
    with card.events.change() as events:
        assert events.underflow
        events.underflow = 1
        events.mask = 1
        assert events.underflow, "what was read, until it is written"
    assert bar.read16(8) == 0x0102


def test_a_change_is_one_read_and_one_write() -> None:
    plain = Plain(bytes(SIZE))
    card = Card(plain)
    with card.control.change() as control:
        control.enable = True
        control.speed = Speed.FAST
        control.level = 3
        assert (control.enable, control.speed, control.level, control.busy) == (True, Speed.FAST, 3, False)
        assert plain.log == [("read", 4, 32)]
    assert plain.log == [("read", 4, 32), ("write", 4, 32)]
    assert plain.read32(4) == 0x321
    with pytest.raises(RegisterAccessError, match=r"control\.enable: this is the value of a change that is over"):
        control.enable = False
    plain.log.clear()
    with card.control.change() as control:
        assert control.enable
    assert plain.log == [("read", 4, 32)], "nothing was set, so nothing is written"
    with card.control.change() as control:
        control.enable = True
    assert plain.log[1:] == [("read", 4, 32), ("write", 4, 32)], "what was set is written, the same or not"
    with card.command.change(0) as command:
        command.go = True
        command.mode = 3
    with card.command.change(0x70):
        pass
    assert plain.log[3:] == [("write", 0xC, 32)] * 2, "a whole value is written, and not read"
    assert plain.read32(0xC) == 0x70


def test_a_change_that_raises_writes_nothing(bar: Any) -> None:
    card = Card(bar)
    before = bar.read32(4)

    def fail(start: int | None) -> None:
        with card.control.change(start) as control:
            control.level = 1
            raise RuntimeError("no")

    for start in (None, 0):
        with pytest.raises(RuntimeError, match="no"):
            fail(start)
    with pytest.raises(ValueError, match="does not fit"), card.control.change(0) as control:
        control.level = 256
    assert bar.read32(4) == before


def test_a_field_update_reads_only_what_it_keeps() -> None:
    class Whole(RegisterMap):
        all_of_it = type("All", (Register,), {"value": Field(31, 0)})(0)
        flags = Events(4, access="w1c")
        cleared = type("Cleared", (Register,), {"on": Field(31, 8), "seen": Field(7, 0, access="rc")})(8)
        written = type("Written", (Register,), {"value": Field(31, 0)}, access="wo")(12)

    class Flags(Register, access="w1c"):
        overflow = Field(3)

    plain = Plain(bytes(SIZE))
    card: Any = Whole(plain)
    card.all_of_it.value = 5
    card.cleared.on = 6
    card.written.value = 7
    Flags(16)._bound(plain, 16, "flags").overflow = 1
    assert plain.log == [("write", offset, 32) for offset in (0, 8, 12, 16)]
    assert [plain.read32(offset) for offset in (0, 8, 12, 16)] == [5, 0x600, 7, 8]


def refusals(card: Card) -> list[tuple[Any, type[Exception], str]]:
    def put(register: Any, name: str, value: object) -> Any:
        return lambda: setattr(register, name, value)

    return [
        (lambda: card.identification.write(1), RegisterAccessError, "identification is read-only"),
        (lambda: card.identification.change().__enter__(), RegisterAccessError, "identification is read-only"),
        (lambda: card.command.read(), RegisterAccessError, "command is write-only"),
        (lambda: card.command.snapshot(), RegisterAccessError, "command is write-only"),
        (lambda: card.command.go, RegisterAccessError, r"command\.go is write-only"),
        (lambda: card.command.change().__enter__(), RegisterAccessError, "is write-only; give the whole value"),
        (put(card.command, "go", 1), RegisterAccessError, r"command\.go cannot be changed by itself, .* is write-only"),
        (put(card.control, "busy", 1), RegisterAccessError, r"control\.busy is read-only"),
        (put(card.control, "enable", 2), ValueError, r"control\.enable: 0x2 does not fit bits \[0\]"),
        (put(card.control, "enable", -1), ValueError, r"-0x1 does not fit"),
        (put(card.control, "level", 256), ValueError, r"control\.level: 0x100 does not fit bits \[15:8\]"),
        (put(card.control, "level", 1 << 80), ValueError, "does not fit"),
        (put(card.control, "level", "1"), TypeError, "integer"),
        (put(card.control, "level", 1.0), TypeError, "integer"),
        (put(card.control, "levle", 1), AttributeError, "no attribute 'levle'"),
        (lambda: card.control.levle, AttributeError, "no attribute 'levle'"),  # type: ignore[attr-defined]
        (lambda: card.control.write(1 << 32), ValueError, "control: 0x100000000 does not fit its 32 bits"),
        (lambda: card.control.write(-1), ValueError, "does not fit"),
        (lambda: card.control.write("1"), TypeError, "integer"),  # type: ignore[arg-type]
        (lambda: card.control.change(1 << 32).__enter__(), ValueError, "does not fit"),
        (lambda: card.cleared.errors, RegisterAccessError, "reading cleared has an effect.*take a snapshot"),
        (put(card.cleared, "threshold", 1), RegisterAccessError, r"cleared\.threshold cannot be changed by itself"),
        (lambda: card.cleared.change().__enter__(), RegisterAccessError, "cannot be read, or written back, without"),
        (put(card, "control", 5), AttributeError, r"control is a register; write to it with control\.write"),
        (put(card, "cotnrol", 5), AttributeError, "Card has no register cotnrol; there is control"),
        (lambda: bool(card.control), TypeError, "neither true nor false"),
        (lambda: card.block.channel[2], IndexError, "out of range"),
        (put(Control.of(1), "enable", 0), RegisterAccessError, "this is a value by itself"),
        (lambda: Control.of(1).write(5), RegisterAccessError, "write the register itself"),
        (lambda: Control.of(1).change().__enter__(), RegisterAccessError, "change the register itself"),
        (lambda: Control.of(1 << 32), ValueError, "does not fit its 32 bits"),
        (lambda: Control(0).read(), TypeError, "is a declaration"),
        (lambda: Control(0).write(0), TypeError, "is a declaration"),
    ]


def test_what_is_refused_touches_nothing(bar: Any, path: Path) -> None:
    before = path.read_bytes()
    for call, error, message in refusals(Card(bar)):
        with pytest.raises(error, match=message):
            call()
    assert path.read_bytes() == before
    plain = Plain(bytes(SIZE))
    for call, error, _ in refusals(Card(plain)):
        with pytest.raises(error):
            call()
    assert plain.log == []


def test_a_register_that_reading_changes_is_read_by_snapshot() -> None:
    plain = Plain(bytes(range(SIZE)))
    card = Card(plain)
    for shown in (str(card.cleared), repr(card.cleared), repr(card)):
        assert "cleared" in shown or "Card" in shown
    assert "not read" in str(card.cleared)
    assert not hasattr(card.cleared, "errors")
    assert plain.log == []
    cleared = card.cleared.snapshot()
    assert (cleared.errors, cleared.threshold, cleared.read()) == (0x10, 0x11, 0x13121110)
    assert plain.log == [("read", 0x10, 32)]
    with card.cleared.change(0x500) as change:
        change.threshold = 6
    assert plain.log == [("read", 0x10, 32), ("write", 0x10, 32)]
    assert card.received.read() == 0x14


def test_after_close(path: Path) -> None:
    with Region(path, SIZE) as region:
        card = Card(region)
    calls: list[Any] = [
        lambda: card.control.read(),
        lambda: card.control.write(1),
        lambda: card.control.enable,
        lambda: setattr(card.control, "enable", 1),
        lambda: card.control.snapshot(),
        lambda: str(card.control),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert "control at 0x4" in repr(card.control)


def test_outside_of_the_region(path: Path) -> None:
    class Far(RegisterMap):
        there = Control(0x2000)

    with Region(path, SIZE) as region:
        far = Far(region)
        with pytest.raises(ValueError, match="offset 0x2000: 4 bytes there are not inside the region"):
            far.there.read()
        with pytest.raises(ValueError, match="not inside the region"):
            far.there.enable = True


def test_a_map_may_start_anywhere(bar: Any) -> None:
    channel = Channel(bar, offset=0x50)
    channel.count.write(0x1234)
    assert Card(bar).block.channel[0].count.read() == 0x1234
    with pytest.raises(ValueError, match="the offset is a multiple of 4 from 0"):
        Channel(bar, offset=2)
    with pytest.raises(ValueError, match="from 0"):
        Channel(bar, offset=-4)


def test_overridden_accesses_are_used(path: Path) -> None:
    seen = []

    class Traced(Region):
        def read32(self, offset: Any, /, *, endian: Any = None) -> int:
            seen.append(offset)
            return super().read32(offset, endian=endian)

    with Traced(path, SIZE) as region:
        assert Card(region).control.read() == 0x07060504
        assert Card(region).control.level == 5
    assert seen == [4, 4]


def test_poll(bar: Any) -> None:
    card = Card(bar)
    bar.write32(4, 0x140)
    assert card.control.poll(lambda control: control.busy and control.level == 1, 0).read() == 0x140
    with pytest.raises(DeviceTimeoutError, match=r"last read: <Control control = 0x00000140 enable=0 .* busy=1"):
        card.control.poll(lambda control: not control.busy, 0.002)
    with pytest.raises(ValueError, match="timeout must be"):
        card.control.poll(lambda control: True, -1)


# ---- Declarations ----


def test_declarations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"second at 0x4 overlaps first at 0x0, 8 bytes; only one that is read-only"):

        class Overlap(RegisterMap):
            first = Register(0, width=64)
            second = Register(4, access="ro")

    with pytest.raises(ValueError, match=r"channel\[1\]\.count at 0x10 overlaps extra at 0x10"):

        class InArray(RegisterMap):
            extra = Register(0x10)
            channel = Array(Channel.at(0), 2, stride=0x10)

    with pytest.raises(ValueError, match="control is declared twice"):

        class Twice(RegisterMap):
            control = Control(0)
            control = Control(4)  # noqa: PIE794

    with pytest.raises(ValueError, match="control is taken by Card"):

        class More(Card):
            control = Control(0x80)

    with pytest.raises(ValueError, match="find is taken by RegisterMap; call it find_"):

        class Taken(RegisterMap):
            find = Register(0)  # type: ignore[assignment]

    with pytest.raises(ValueError, match="enable is a field"):

        class Loose(RegisterMap):
            enable = Field(0)

    with pytest.raises(ValueError, match=r"stride .* is a multiple of 4, and at least 12, not 8"):
        Array(Channel.at(0), 2, stride=8)
    with pytest.raises(ValueError, match=r"stride .* is a multiple of 4, and at least 4, not 6"):
        Array(Register(0), 2, stride=6)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Array(Register(0), 0)
    with pytest.raises(ValueError, match="from 0"):
        Channel.at(-4)


def test_one_read_only_and_one_write_only_may_share_a_place(bar: Any) -> None:
    card = Card(bar)
    card.transmitted.write(0x55)
    assert card.received.read() == 0x55


def test_a_map_may_extend_another(bar: Any) -> None:
    class Newer(Card):
        more = Control(0x80)

    newer = Newer(bar)
    newer.more.write(3)
    newer.control.write(4)
    assert (bar.read32(0x80), bar.read32(4)) == (3, 4)
    assert Newer.find("more").offset == 0x80


def test_the_class_has_the_declarations() -> None:
    """A program then knows the offset without a region, and mypy checks the name."""
    assert Card.control.info == Card.find("control")
    assert (Card.control.info.path, Card.control.info.offset) == ("control", 4)
    nested = Card.block.channel[1].control.info
    assert (nested.path, nested.offset, nested.width) == ("block.channel[1].control", 0x64, 32)
    assert (Card.grid[1][2].info.path, Card.grid[1][2].info.offset) == ("grid[1][2]", 0x2C)
    with pytest.raises(TypeError, match="control is a declaration"):
        Card.control.read()
    with pytest.raises(TypeError, match=r"block\.channel\[0\]\.count is a declaration"):
        Card.block.channel[0].count.write(1)
    with pytest.raises(TypeError, match="is a declaration"):
        Card.control.enable = True


# ---- By text ----


@pytest.mark.parametrize(
    ("path", "offset", "width", "access", "field"),
    [
        ("control", 4, 32, "rw", None),
        ("control.busy", 4, 32, "ro", "busy"),
        ("events.overflow", 8, 16, "w1c", "overflow"),
        ("command.go", 0xC, 32, "wo", "go"),
        ("cleared", 0x10, 32, "rw", None),
        ("cleared.errors", 0x10, 32, "rc", "errors"),
        ("wide", 0x18, 64, "rw", None),
        ("grid[1][2]", 0x2C, 16, "rw", None),
        ("block.channel[1].control.level", 0x64, 32, "rw", "level"),
        ("block.channel[0x1].words[3]", 0x6B, 8, "rw", None),
        ("block.channel[0x1].control.level", 0x64, 32, "rw", "level"),
    ],
)
def test_find(path: str, offset: int, width: int, access: str, field: str | None) -> None:
    found = Card.find(path)
    assert (found.offset, found.width, found.access) == (offset, width, access)
    assert (found.field and found.field.name) == field
    assert found.path == path.replace("0x1", "1")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cotnrol", "the map has no register cotnrol; there is control"),
        ("CONTROL", "there is control"),
        ("control.enabel", "control has no field enabel; there is enable"),
        ("control.enable.x", "control.enable is a field"),
        ("control[0]", r"control has no field \[0\]"),
        ("identification.x", "and none at all"),
        ("block", "'block' is no register; block has channel"),
        ("block.channel", r"block.channel has \[0\] to \[1\]"),
        ("block.channel[1]", r"block.channel\[1\] has count, control, words"),
        ("block.channel[2].count", r"block.channel is an array, of block.channel\[0\] to block.channel\[1\]"),
        ("block.channel[-1].count", "is an array"),
        ("block.channel[one].count", "is an array"),
        ("block.channel[1.count", "is an array"),
        ("block.channel.count", "is an array"),
        ("", "is no register; the map has identification"),
        ("zzz", "there is identification, control, .* and more"),
        ("control.", "'control.' is no"),
        (".control", "is no"),
        ("control..enable", "is no"),
    ],
)
def test_find_lists_what_there_is(path: str, message: str) -> None:
    with pytest.raises(RegisterNotFoundError, match=message):
        Card.find(path)


def test_a_register_has_the_fields_of_all_its_bases() -> None:
    class Started(Register):
        start = Field(0)

    class Seen(Register):
        done = Field(1, access="w1c")

    class Both(Started, Seen):
        last = Field(31)

    class Map(RegisterMap):
        both = Both(0)

    region = Plain(b"\2\0\0\0")
    Map(region).both.start = True
    assert region.read32(0) == 1, "without the 1 that clears the other base's field"
    with pytest.raises(ValueError, match="overlap"):

        class Neither(Started, Control):
            pass


def test_what_is_found_reads_and_writes(bar: Any) -> None:
    Card.find("control.level").write(bar, 0x42)
    assert Card.find("control.level").read(bar) == 0x42
    Card.find("events.overflow").write(bar, 1)
    assert Card.find("cleared.errors").read(bar) == bar.read8(0x10) or isinstance(bar, Region)
    Card.find("block.channel[1].count").write(bar, 9)
    assert bar.read16(0x60) == Card.find("block.channel[1].count").read(bar) == 9
    with pytest.raises(RegisterAccessError, match=r"command\.go cannot be changed by itself"):
        Card.find("command.go").write(bar, 1)
    with pytest.raises(RegisterAccessError, match=r"command\.go is write-only"):
        Card.find("command.go").read(bar)


def test_walk() -> None:
    walked = list(Card.walk())
    assert [one.offset for one in walked] == sorted(one.offset for one in walked)
    assert len(walked) == 8 + 6 + 2 * (2 + 4)
    for one in walked:
        assert Card.find(one.path) == one
    by_path = {one.path: one for one in walked}
    assert by_path["identification"].doc == "which card it is"
    assert by_path["control"].doc == "What the unit is to do."
    assert by_path["control"].fields["enable"].doc == "let it run"
    assert [one.path for one in walked if one.read_effect] == ["cleared", "received"]
    assert [one.path for one in walked if not one.readable] == ["command", "transmitted"]
    assert [one.path for one in walked if not one.writable] == ["identification", "received"]


# ---- For people ----


def test_printing() -> None:
    plain = Plain(bytes(SIZE))
    card = Card(plain)
    plain.write32(4, 0xA561)
    plain.log.clear()
    assert str(card.control) == (
        "control = 0x0000a561\n  enable[0]   = 1\n  speed[5:4]  = 2 (FAST)\n  busy[6]     = 1\n  level[15:8] = 0xa5"
    )
    assert plain.log == [("read", 4, 32)], "one read for all fields"
    plain.log.clear()
    assert repr(card.control) == "<Control control at 0x4, 32 bits, rw: enable[0] speed[5:4] busy[6] level[15:8]>"
    assert repr(card.block.channel[1].count) == "<Register block.channel[1].count at 0x60, 16 bits, rw>"
    assert str(card.command) == "command is write-only"
    assert repr(Card.control) == repr(card.control)
    assert "at 0x40" in repr(card.block)
    assert "block.channel[2] of <Channel" in repr(card.block.channel)
    assert str(Control(4)) == repr(Control(4))
    assert str(Card.at(0)) == repr(Card.at(0)) == "<Card declared at 0x0, 0x6c bytes>"
    assert plain.log == [], "a repr reads nothing"
    held = card.control.snapshot()
    assert repr(held) == "<Control control = 0x0000a561 enable=1 speed=2 (FAST) busy=1 level=0xa5>"
    assert str(held) == str(card.control)
    plain.log.clear()
    lines = str(card).splitlines()
    assert "0x0004 control = 0x0000a561 enable=1 speed=2 (FAST) busy=1 level=0xa5" in lines
    assert "0x000c command = write-only" in lines
    assert "0x0010 cleared = not read, as that has an effect" in lines
    assert len(lines) == len(list(Card.walk()))
    assert not {0x0C, 0x10, 0x14} & {offset for _, offset, _ in plain.log}
    assert all(kind == "read" for kind, _, _ in plain.log)
