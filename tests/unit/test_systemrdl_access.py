# SPDX-License-Identifier: MIT
"""Each combination of sw, onread and onwrite (SystemRDL 2.0, sections 9.5, 9.6), on a card that does what it says."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest

from pyuio import RegisterAccessError, RegisterMap, SystemRdlError, systemrdl

READS = ("", "rclr", "rset", "ruser")
WRITES = ("", "woset", "woclr", "wot", "wzs", "wzc", "wzt", "wclr", "wset", "wuser")
COMBINATIONS = [
    *(("r", onread, "") for onread in READS),
    *itertools.product(("rw", "rw1"), READS, WRITES),
    *itertools.product(("w", "w1"), ("",), WRITES),
]
ONES, ZEROS = {"woset", "woclr", "wot"}, {"wzs", "wzc", "wzt"}
ANY = {"wclr", "wset", "wuser"}
START = 0x3C


def name(combination: tuple[str, str, str]) -> str:
    return "_".join(("sw", *(part for part in combination if part)))


class Card:
    """Registers of which bits 7 to 0 are a field of each kind, and bits 31 to 24 plain storage in every other one."""

    def __init__(self) -> None:
        self.field = [START] * (2 * len(COMBINATIONS))
        self.plain = [0x5A] * (2 * len(COMBINATIONS))
        self.effects: set[int] = set()  # registers whose field has been affected by an access
        self.log: list[str] = []

    def read32(self, offset: int, /) -> int:
        index = offset // 4
        software, onread, _ = COMBINATIONS[index // 2]
        self.log.append("read")
        value = self.plain[index] << 24 if index % 2 else 0
        if software in ("w", "w1"):
            return value | 0xFF
        value |= self.field[index]
        if onread:
            self.effects.add(index)
            self.field[index] = {"rclr": 0, "rset": 0xFF, "ruser": 0x11}[onread]
        return value

    def write32(self, offset: int, value: int, /) -> None:
        index, data = offset // 4, value & 0xFF
        software, _, onwrite = COMBINATIONS[index // 2]
        self.log.append("write")
        self.plain[index] = value >> 24
        if software == "r":
            return
        old = self.field[index]
        does: dict[str, int] = {
            "": data,
            "woset": old | data,
            "woclr": old & ~data,
            "wot": old ^ data,
            "wzs": old | ~data & 0xFF,
            "wzc": old & data,
            "wzt": old ^ ~data & 0xFF,
            "wclr": 0,
            "wset": 0xFF,
            "wuser": 0x22,
        }
        stored = does[onwrite]
        if software in ("rw1", "w1"):
            stored = old if index in self.effects else stored
            self.effects.add(index)
        elif stored != old or onwrite in ANY:
            self.effects.add(index)
        self.field[index] = stored


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> type[RegisterMap]:
    """Two registers for each combination: one with the field by itself, one with a field of plain storage beside it."""
    text = ""
    for number, combination in enumerate(COMBINATIONS):
        software, onread, onwrite = combination
        properties = f"sw = {software}; hw = rw;"
        properties += f" onread = {onread};" * bool(onread) + f" onwrite = {onwrite};" * bool(onwrite)
        field = f"field {{ {properties} }} it[7:0];"
        text += f"external reg {{ {field} }} {name(combination)} @ {8 * number};\n"
        text += f"external reg {{ {field} field {{ sw = rw; hw = r; }} other[31:24]; }} "
        text += f"beside_{name(combination)} @ {8 * number + 4};\n"
    path = tmp_path_factory.mktemp("rdl") / "kinds.rdl"
    path.write_text(f"addrmap kinds {{\n{text}}};\n")
    return systemrdl.load(path)


def bound(kinds: type[RegisterMap], place: str, card: Card) -> Any:
    region: Any = card
    return kinds.find(place).bind(region)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=name)
def test_a_field_does_what_its_properties_say(kinds: type[RegisterMap], combination: tuple[str, str, str]) -> None:
    software, onread, onwrite = combination
    readable, writable = software not in ("w", "w1"), software != "r"
    for place, beside in ((f"{name(combination)}", False), (f"beside_{name(combination)}", True)):
        card = Card()
        register = bound(kinds, place, card)
        index = register.info.offset // 4
        untouched = (card.field[index], card.plain[index])
        print(register, repr(register))

        # What reading costs.
        if readable and not onread:
            assert register.it == START
            assert not card.effects
        else:
            card.log.clear()
            with pytest.raises(RegisterAccessError):
                print(register.it)
            assert card.log == []
        if readable:
            card.log.clear()
            assert register.snapshot().it == START
            assert card.log == ["read"]
            assert (index in card.effects) == bool(onread)

        # What setting it does, to it and to its neighbour.
        for value in (0, 0x0F, 0xFF):
            card = Card()
            register = bound(kinds, place, card)
            expected = Card()
            expected.write32(4 * index, value)
            idle = {**dict.fromkeys(ONES, 0), **dict.fromkeys(ZEROS, 0xFF)}.get(onwrite)
            if software in ("rw", "w") and value == idle:
                with pytest.raises(ValueError, match="does nothing"):
                    register.it = value
                assert card.log == []
            elif not writable or (beside and onread):
                with pytest.raises(RegisterAccessError):
                    register.it = value
                assert card.log == []
            else:
                register.it = value
                assert card.field[index] == expected.field[index]
                assert card.plain[index] == (untouched[1] if beside else 0)
                assert card.log.count("write") == 1
                assert card.log.count("read") == (beside or (readable and not onread and combination == ("rw", "", "")))

        # What a change of its neighbour does to it.
        if not beside:
            continue
        acts = writable and (onwrite in ANY or software in ("rw1", "w1"))
        lost = writable and not onwrite and bool(onread)  # to keep its value, a read would be needed
        for in_a_block, refused in ((False, acts or lost), (True, acts or bool(onread))):
            card = Card()
            register = bound(kinds, place, card)
            with contextlib.ExitStack() as stack:
                if refused:
                    stack.enter_context(pytest.raises(RegisterAccessError))
                held = stack.enter_context(register.change()) if in_a_block else register
                held.other = 0xC3
            if refused:
                assert card.log == []
                assert (card.field[index], card.plain[index]) == untouched
                continue
            assert card.log == ["write"] if onread else ["read", "write"]
            assert card.plain[index] == 0xC3
            if combination == ("w", "", ""):  # its value cannot be kept: 0, which pyuio takes for no effect
                assert card.field[index] == 0
            else:
                assert (card.field[index], card.effects) == (START, set())


def test_a_block_changes_what_it_sets(kinds: type[RegisterMap]) -> None:
    """In a block, a field that a written 0 or 1 changes still reads as it was read."""
    card = Card()
    registers: Any = kinds(card)  # type: ignore[arg-type]
    with registers.beside_sw_rw_wzc.change() as held:
        held.it = 0xF0
        held.other = 1
        assert held.it == START
    assert card.field[registers.beside_sw_rw_wzc.info.offset // 4] == START & 0xF0
    with registers.beside_sw_rw_woclr.change() as held:
        held.it = 0xF0
        assert held.it == START
    assert card.field[registers.beside_sw_rw_woclr.info.offset // 4] == START & 0x0F
    with registers.beside_sw_rw1.change(0) as held:  # a whole value may be given to any
        held.it = 7
    assert card.field[registers.beside_sw_rw1.info.offset // 4] == 7


def test_printing_changes_nothing(kinds: type[RegisterMap]) -> None:
    card = Card()
    shown = str(kinds(card))  # type: ignore[arg-type]
    assert not card.effects
    assert "sw_rw_rclr = not read, as that has an effect" in shown
    assert "sw_rw1_wzc = 0x0000003c it=0x3c" in shown


def test_the_names_of_the_accesses(kinds: type[RegisterMap]) -> None:
    named = {
        "r": "ro",
        "r_rclr": "rc",
        "r_rset": "rs",
        "r_ruser": "ru",
        "rw": "rw",
        "rw_rclr": "wrc",
        "rw_woclr": "w1c",
        "rw_rset_woclr": "w1crs",
        "rw_wzt": "w0t",
        "rw_wclr": "wc",
        "rw_rclr_wset": "wsrc",
        "rw_wuser": "wu",
        "rw1": "rw1",
        "rw1_woclr": "rw1",
        "w": "wo",
        "w_woset": "wo1s",
        "w_wclr": "woc",
        "w1": "wo1",
    }
    assert {place: kinds.find(f"sw_{place}.it").access for place in named} == named


def test_what_software_cannot_access_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.rdl"
    path.write_text("addrmap card {\n  reg { field { sw = na; hw = rw; } it[7:0]; } one;\n};\n")
    with pytest.raises(SystemRdlError, match=r"none\.rdl:2: .*'na'"):
        systemrdl.load(path)


def test_fields_of_which_one_is_read_and_one_is_written_share_bits(tmp_path: Path) -> None:
    path = tmp_path / "port.rdl"
    path.write_text("""
        addrmap port {
            reg {
                field { sw = w; hw = r; } outgoing[7:0];
                field { sw = r; hw = w; } incoming[9:2];
                field { sw = rw; hw = r; } mode[31:24];
            } data @ 0x0;
            reg {
                field { sw = w; onwrite = woset; hw = r; } start[0:0];
                field { sw = r; onread = rclr; hw = w; } done[0:0];
            } control @ 0x4;
        };""")

    class Port:
        log: list[tuple[str, int, int]]

        def __init__(self) -> None:
            self.log = []

        def read32(self, offset: int) -> int:
            self.log.append(("read", offset, 0xAB0003A5))
            return 0xAB0003A5

        def write32(self, offset: int, value: int) -> None:
            self.log.append(("write", offset, value))

    port = Port()
    registers = systemrdl.load(path)(port)  # type: ignore[arg-type]
    assert registers.data.incoming == 0xE9
    assert "incoming[9:2] = 0xe9" in str(registers.data)
    assert "outgoing" not in str(registers.data), "what is read there is not what it holds"
    with pytest.raises(RegisterAccessError, match=r"outgoing is write-only"):
        print(registers.data.outgoing)
    with pytest.raises(RegisterAccessError, match=r"incoming is read-only"):
        registers.data.incoming = 1
    port.log.clear()
    registers.data.outgoing = 0x42
    registers.data.mode = 0xCD
    with registers.data.change() as data:
        data.outgoing = 0x24
        assert data.incoming == 0xE9
    assert [value for verb, _, value in port.log if verb == "write"] == [0xAB000342, 0xCD000300, 0xAB000324]
    port.log.clear()
    registers.control.start = 1
    assert port.log == [("write", 4, 1)]
    with pytest.raises(RegisterAccessError, match="has an effect"):
        print(registers.control.done)
    assert registers.control.snapshot().done
    assert not type(registers).find("data.outgoing").readable
