# SPDX-License-Identifier: MIT
"""What an access of the driver does to a register of a card, for each `Access`; and the card's own view."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

import pyuio.model
from pyuio.model import Card, Complaint
from pyuio.registers import Array, Field, FieldArray, Memory, Register, RegisterMap
from pyuio.registers.access import ACCESSES, Access

OLD, WRITTEN = 0b0011, 0b0101
# What a write of WRITTEN makes of OLD, in a register of four bits that are declared, by the name of the effect.
AFTER_WRITE = {
    "value": 0b0101,
    "1c": 0b0010,
    "1s": 0b0111,
    "1t": 0b0110,
    "0c": 0b0001,
    "0s": 0b1011,
    "0t": 0b1001,
    "c": 0b0000,
    "s": 0b1111,
    "u": OLD,
    "1": 0b0101,
}
AFTER_READ = {"rc": 0b0000, "rs": 0b1111, "ru": None, "": None}
# The names of uvm_reg_field, in the table of "Field access policies" of UVM 1.2, and those made in the same way.
WRITES: dict[str, str] = {
    "ro": "",
    "wo": "value",
    "rw": "value",
    "special": "u",
    **{f"w{name}": name for name in ("1c", "1s", "1t", "0c", "0s", "0t", "c", "s", "u")},
    "rw1": "1",
    **{f"wo{name}": name for name in ("1c", "1s", "1t", "0c", "0s", "0t", "c", "s", "u", "1")},
}


def effects_of(access: str) -> tuple[str, str]:
    """Return what a write and what a read does, by name."""
    if access in ("rc", "rs", "ru"):
        return "", access
    if access in WRITES:
        return WRITES[access], ""
    write, read = access[:-2], access[-2:]
    return ("value" if write == "w" else WRITES[write]), read


def card_with(access: Access) -> Card:
    class Word(Register, width=8):
        nibble = Field(3, 0, access=access)
        rest = Field(7, 4, access="ro")

    class Words(RegisterMap):
        word = Word(0)

    class WordCard(Card):
        vendor, device, bars = 1, 2, {0: 16}
        registers: ClassVar = {0: Words}

    return WordCard()


@pytest.mark.parametrize("access", ACCESSES)
def test_each_access_does_what_its_name_says(access: Access) -> None:
    card = card_with(access)
    write, read = effects_of(access)
    with pyuio.model.open(card) as device:
        bar = device.bar(0)
        card.regs.word.write(0xA0 | OLD)
        if not write:
            with pytest.raises(Complaint, match="read-only"):
                bar.write8(0, WRITTEN)
            after = OLD
        else:
            bar.write8(0, 0x50 | WRITTEN)
            after = AFTER_WRITE[write]
            assert card.regs.word.read() == 0xA0 | after
            if write == "1":
                bar.write8(0, 0)
                assert card.regs.word.read() == 0xA0 | after
        # The upper half can be read always.
        assert bar.read8(0) == 0xA0 | after
        changed = AFTER_READ[read]
        assert card.regs.word.read() == 0xA0 | (after if changed is None else changed)


class Mode(Register):
    kind = Field(3, 0)
    ready = Field(4, access="ro")
    lamp = FieldArray(Field(8), 4, stride=2)


class Channel(RegisterMap):
    count = Register(0x00)
    address = Register(0x08, width=64)


class Group(RegisterMap):
    channel = Array(Channel.at(0x10), 2, stride=0x20)
    total = Register(0x00, access="ro")


class Port(Register):
    came = Field(7, 0, access="ro")
    goes = Field(7, 0, access="wo")


class Display(Register):
    digit = FieldArray(Field(3, 0, access="wo"), 2)
    seen = Field(7, 0, access="ro")


class Everything(RegisterMap):
    mode = Mode(0x00)
    received = Register(0x04, access="ro")
    sent = Register(0x04, access="wo")
    wide = Register(0x10, width=128, access_width=32)
    backwards = Register(0x20, width=64, access_width=32, first="high")
    turned = Register(0x48, width=64, access_width=32, first="high", word_order="big")
    group = Array(Group.at(0x100), 2, stride=0x80)
    table = Memory(Register(0x1000, width=16), 32)
    narrow = Register(0x30, width=64)
    taken = Register(0x38, access="rc")
    port = Port(0x50)
    halves = Register(0x58, width=64, access_width=32)
    display = Display(0x54)
    sample = Memory(Register(0x60), 1)
    state = Register(0x64)


class EverythingCard(Card):
    vendor, device, bars = 1, 2, {0: 8192}
    registers: ClassVar = {0: Everything}
    narrow: ClassVar = ("narrow", "halves", "state")
    reset_values: ClassVar = {"received": 7, "port": 0x11, "display": 0x21, "group[1].channel[0].count": 9}

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.shows_seven = False
        super().__init__()

    def on_write_wide(self, value: int) -> None:
        self.calls.append(("wide", value))

    def on_write_backwards(self, value: int) -> None:
        self.calls.append(("backwards", value))

    def on_read_backwards(self) -> int:
        self.calls.append("read backwards")
        return 0x1122334455667788

    def on_write_turned(self, value: int) -> None:
        self.calls.append(("turned", value))

    def on_write_group_channel_count(self, group: int, channel: int, value: int) -> None:
        self.calls.append((group, channel, value))

    def on_read_group_total(self, group: int) -> int:
        return 100 + group

    def on_write_table(self, word: int, value: int) -> None:
        self.calls.append(("table", word, value))

    def on_write_narrow(self, value: int) -> None:
        self.calls.append(("narrow", value))

    def on_write_port(self, value: int) -> None:
        self.calls.append(("port", value))

    def on_write_halves(self, value: int) -> None:
        self.calls.append(("halves", value))

    def on_read_table(self, word: int) -> int | None:
        return 7 if word == 9 and self.shows_seven else None

    def on_read_sample(self, word: int) -> int:
        return 100 + word

    def on_read_state(self) -> None:
        if self.regs.received.read() == 0:
            self.remove()

    def on_read_halves(self) -> int:
        self.calls.append("read halves")
        return 0x1122334455667788


@pytest.fixture
def card() -> EverythingCard:
    return EverythingCard()


def test_arrays_memories_and_wide_registers(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        registers = Everything(device.bar(0))
        registers.wide.write(0x11112222_33334444_55556666_77778888)
        assert registers.wide.read() == 0x11112222_33334444_55556666_77778888 == card.regs.wide.read()
        registers.backwards.write(0xAAAA_BBBB_CCCC_DDDD)
        assert card.regs.backwards.read() == 0xAAAA_BBBB_CCCC_DDDD
        assert registers.backwards.read() == 0x1122334455667788
        registers.turned.write(0x1122_3344_5566_7788)
        assert [device.bar(0).read32(place) for place in (0x48, 0x4C)] == [0x11223344, 0x55667788]
        assert registers.turned.read() == card.regs.turned.read() == 0x1122_3344_5566_7788
        registers.group[1].channel[0].count.write(5)
        assert [one.total.read() for one in registers.group] == [100, 101]
        assert card.regs.group[1].channel[0].count.read() == 5
        registers.table[3].write(0xBEEF)
        registers.table.write(8, b"\1\2\3\4")
        assert registers.table.read(6, 6) == b"\xef\xbe\1\2\3\4"
        assert card.regs.table[4].read() == 0x0201
    assert card.calls == [
        ("wide", 0x11112222_33334444_55556666_77778888),
        ("backwards", 0xAAAA_BBBB_CCCC_DDDD),
        "read backwards",
        ("turned", 0x1122_3344_5566_7788),
        (1, 0, 5),
        ("table", 3, 0xBEEF),
        ("table", 4, 0x0201),
        ("table", 5, 0x0403),
    ]


def test_two_registers_at_one_place_are_two(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        registers = Everything(device.bar(0))
        registers.sent.write(1)
        assert (registers.received.read(), card.regs.sent.read(), card.regs.received.read()) == (7, 1, 7)


def test_two_fields_on_the_same_bits_are_two(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        port = Everything(device.bar(0)).port
        port.goes = 0x55
        assert (port.came, card.regs.port.came, card.calls) == (0x11, 0x11, [("port", 0x55)])


def test_an_array_of_fields_and_a_field_on_the_same_bits_are_two(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        display = Everything(device.bar(0)).display
        display.write(0x98)
        assert (display.seen, card.regs.display.seen) == (0x21, 0x21)


def test_what_a_hook_shows_is_not_stored(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        registers = Everything(device.bar(0))
        card.shows_seven = True
        assert registers.table[9].read() == 7
        card.shows_seven = False
        assert (registers.table[9].read(), card.regs.table[9].read()) == (0, 0)
        assert registers.halves.read() == 0x1122334455667788
        assert card.regs.halves.read() == 0
        assert registers.sample[0].read() == 100, "a memory of one word"


@pytest.mark.parametrize("read", ["read8", "read32"])
def test_a_card_that_a_hook_removes_reads_as_ones(card: EverythingCard, read: str) -> None:
    with pyuio.model.open(card) as device:
        card.regs.received.write(0)
        with pytest.raises(pyuio.DeviceRemovedError):
            getattr(device.bar(0), read)(0x64)


def test_the_card_may_change_what_the_driver_may_not(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        registers = Everything(device.bar(0))
        card.regs.mode.ready = True
        card.regs.mode.lamp[2] = True
        card.regs.taken.write(3)
        assert card.regs.taken.read() == 3
        assert registers.mode.ready
        assert list(registers.mode.lamp) == [False, False, True, False]
        assert (registers.taken.read(), card.regs.taken.read()) == (3, 0)
        with pytest.raises(AttributeError, match="no register mood; did you mean mode"):
            _ = card.regs.mood


def test_some_registers_take_narrower_accesses(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        bar = device.bar(0)
        bar.write64(0x30, 0x1122334455667788)
        bar.write32(0x34, 0xAABBCCDD)
        bar.write8(0x31, 0xEE)
        assert (bar.read64(0x30), bar.read16(0x30), bar.read32(0x34)) == (0xAABBCCDD_5566EE88, 0xEE88, 0xAABBCCDD)
    assert card.calls[0] == ("narrow", 0x1122334455667788)
    assert len(card.calls) == 3


def test_a_wide_register_that_takes_narrower_accesses_is_one_in_its_own(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        halves = Everything(device.bar(0)).halves
        halves.write(0x1122334455667788)
        assert halves.read() == 0x1122334455667788
        device.bar(0).write8(0x5B, 0xEE)
    assert card.calls == [("halves", 0x1122334455667788), "read halves", ("halves", 0xEE000000)]


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (lambda bar: bar.read16(0), "a 16-bit read at offset 0x0 of BAR 0: mode takes accesses of 32 bits"),
        (lambda bar: bar.read64(0), "64-bit read"),
        (lambda bar: bar.read8(0x1001), r"table at 0x1000 takes accesses of 16 bits"),
        (lambda bar: bar.read32(0x40), "a 32-bit read at offset 0x40 of BAR 0: the card has no register there"),
        (lambda bar: bar.write32(0x100, 1), r"a 32-bit write at offset 0x100 of BAR 0: group\[0\].total is read-only"),
        (lambda bar: bar.write32(0x1FFC, 1), "no register there"),
    ],
)
def test_a_wrong_access_is_a_complaint_that_names_the_line(card: EverythingCard, access: Any, said: str) -> None:
    with pyuio.model.open(card) as device:
        with pytest.raises(Complaint, match=said) as caught:
            access(device.bar(0))
        assert card.complaints == [caught.value]
        assert "test_register_effects.py" in str(caught.value)
        assert "lambda bar" in str(caught.value)


def test_a_hook_that_returns_what_does_not_fit_is_an_error(card: EverythingCard) -> None:
    card._slots["group[0].total"][0].on_read = lambda _: 1 << 32
    with (
        pyuio.model.open(card) as device,
        pytest.raises(ValueError, match="on_read_group_total returned 0x100000000, which does not fit 32 bits"),
    ):
        device.bar(0).read32(0x100)


def test_a_reset_restores_the_values(card: EverythingCard) -> None:
    with pyuio.model.open(card) as device:
        registers = Everything(device.bar(0))
        registers.group[1].channel[0].count.write(1)
        registers.mode.kind = 3
        device.reset()
        assert (registers.group[1].channel[0].count.read(), registers.received.read()) == (9, 7)
        assert registers.mode.read() == 0
