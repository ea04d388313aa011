# SPDX-License-Identifier: MIT
"""Several SystemRDL files, parameters, registers wider than the bus, alignment and memories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyuio import SystemRdlError, systemrdl
from tests.unit.register_support import Plain

# ---- Files and parameters ----

TYPES = """
enum speed_e { SLOW = 0; FAST = 2; };
reg id_r { field { sw = r; hw = w; } version[7:0]; };
"""
PARAMETRIZED = """
addrmap card #(longint unsigned LANES = 2, string WHAT = "none", boolean WIDE = false, speed_e SPEED = speed_e::SLOW) {
    desc = WHAT;
    id_r id[LANES] @ 0x0;
    reg { regwidth = WIDE ? 64 : 32; field { sw = rw; hw = r; } a[7:0] = SPEED; } wide @ 0x1000;
};
"""


def command(*arguments: object) -> Any:
    line = [sys.executable, "-m", "pyuio.systemrdl", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_several_files_and_parameters(tmp_path: Path) -> None:
    types, card = tmp_path / "types.rdl", tmp_path / "card.rdl"
    types.write_text(TYPES)
    card.write_text(PARAMETRIZED)
    both: list[str | Path] = [types, str(card)]
    assert len(list(systemrdl.load(both).walk())) == 3
    with pytest.raises(SystemRdlError, match=r"card\.rdl:\d+: .*speed_e"):
        systemrdl.load(card)
    values = {"LANES": 5, "WHAT": "five lanes", "WIDE": True, "SPEED": "speed_e::FAST"}
    made = systemrdl.load(both, parameters=values)
    assert len(list(made.walk())) == 6
    assert made.__doc__ == "five lanes"
    assert made.find("wide").width == 64
    given = {**values, "WIDE": "true"}
    done = command(*both, *(f"--parameter={name}={value}" for name, value in given.items()))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == systemrdl.python_source(both, parameters=values)
    assert len(list(systemrdl.load(both, parameters={"LANES": "2 + 2"}).walk())) == 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"LANE": 5}, "no parameter LANE; its parameters: LANES, WHAT, WIDE, SPEED"),
        ({"LANES": "many"}, "parameter LANES of addrmap card takes a number, not 'many'"),
        ({"LANES": "'"}, "parameter LANES of addrmap card takes a number"),
        ({"LANES": 1.5}, "parameter LANES of addrmap card takes a number, not 1.5"),
        ({"LANES": None}, "parameter LANES of addrmap card takes a number"),
        ({"LANES": -1}, "card"),
        ({"LANES": 0}, "card"),
        ({"WHAT": 5}, "parameter WHAT of addrmap card takes a string, not 5"),
        ({"WIDE": "perhaps"}, "parameter WIDE of addrmap card takes a boolean"),
        ({"SPEED": "speed_e::NONE"}, "parameter SPEED of addrmap card"),
        ({"SPEED": "2"}, "parameter SPEED of addrmap card"),
        ({"SPEED": object()}, "parameter SPEED of addrmap card"),
    ],
)
def test_parameters_that_cannot_be(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    card = tmp_path / "card.rdl"
    card.write_text(TYPES + PARAMETRIZED)
    with pytest.raises(SystemRdlError, match=message):
        systemrdl.load(card, parameters=parameters)


def test_the_command_takes_what_load_takes(tmp_path: Path) -> None:
    card = tmp_path / "card.rdl"
    card.write_text("addrmap card { reg { regwidth = 64; field { sw = r; hw = w; } a[63:0]; } it @ 0x0; };")
    done = command(card, "--bus-width=16", "--first=high")
    assert done.stdout == systemrdl.python_source(card, bus_width=16, first="high")
    assert 'width=64, access_width=16, first="high"' in done.stdout
    for wrong in ("--parameter=NAME", "--bus-width=24", "--first=middle"):
        done = command(card, wrong)
        assert done.returncode == 2
        assert "usage" in done.stderr
    for options in ({"bus_width": 24}, {"first": "middle"}):
        with pytest.raises(ValueError, match="not"):
            systemrdl.load(card, **options)


def test_what_there_is_instead(tmp_path: Path) -> None:
    (tmp_path / "card.rdl").write_text("addrmap one { reg { field {} a[7:0]; } it; }; addrmap two { one x; };")
    (tmp_path / "types.rdl").write_text(TYPES)
    for path, top, message in (
        ("missing.rdl", None, r"missing\.rdl.* has card\.rdl, types\.rdl"),
        ("card.rdl", "three", "no addrmap three; there is one, two"),
        ("types.rdl", None, r"types\.rdl: no addrmap"),
    ):
        with pytest.raises(SystemRdlError, match=message):
            systemrdl.load(tmp_path / path, top=top)
    with pytest.raises(SystemRdlError, match="no SystemRDL file was given"):
        systemrdl.load([])


# ---- Widths ----


def loaded(tmp_path: Path, text: str, **options: Any) -> Any:
    path = tmp_path / "card.rdl"
    path.write_text(text)
    return systemrdl.load(path, **options)


def test_a_register_may_be_accessed_by_less_than_its_width(tmp_path: Path) -> None:
    """The standard's accesswidth is the smallest access, not the only one."""
    text = """addrmap card {
        reg { regwidth = 32; accesswidth = 8; field { sw = rw; hw = r; } a[7:0]; field { sw = rw; hw = r; } b[31:24]; }
            id @ 0x0; };"""
    plain = Plain(bytes(range(4)))
    assert loaded(tmp_path, text)(plain).id.read() == 0x03020100
    assert loaded(tmp_path, text, bus_width=8)(plain).id.read() == 0x03020100
    assert plain.log == [("read", 0, 32), *(("read", offset, 8) for offset in range(4))]


def test_registers_wider_than_the_bus(tmp_path: Path) -> None:
    text = """
        property first_access { type = string; component = reg; };
        addrmap card {
            reg { field { sw = rw; hw = r; } enable[0:0]; } control @ 0x0;
            reg { regwidth = 64; accesswidth = 32; field { sw = r; hw = w; } count[63:0]; } packets @ 0x8;
            reg { regwidth = 64; accesswidth = 32; first_access = "high"; field { sw = r; hw = w; } count[63:0]; }
                latched @ 0x10;
            reg { regwidth = 256; accesswidth = 32; field { sw = rw; hw = r; } key[255:0]; } key @ 0x20;
        };"""
    plain = Plain(bytes(range(0x40)))
    card = loaded(tmp_path, text)(plain)
    assert card.packets.count == 0x0F0E0D0C0B0A0908
    assert card.latched.count == 0x1716151413121110
    assert plain.log == [("read", 8, 32), ("read", 12, 32), ("read", 20, 32), ("read", 16, 32)]
    assert card.key.key == int.from_bytes(range(0x20, 0x40), "little")
    card.key.key = 1 << 255
    assert plain.memory[0x20:] == bytes(31) + b"\x80"
    plain.log.clear()
    assert loaded(tmp_path, text, first="high")(plain).packets.count == 0x0F0E0D0C0B0A0908
    assert plain.log == [("read", 12, 32), ("read", 8, 32)]
    plain.log.clear()
    assert loaded(tmp_path, text, bus_width=64)(plain).packets.count == 0x0F0E0D0C0B0A0908
    assert plain.log == [("read", 8, 64)]


def test_the_largest_accesswidth_tells_what_the_bus_can_do(tmp_path: Path) -> None:
    text = """addrmap card {
        reg { regwidth = 128; field { sw = rw; hw = r; } value[127:0]; } it @ 0x0;
        reg { regwidth = 64; accesswidth = 32; field { sw = rw; hw = r; } value[63:0]; } whole @ 0x10; };"""
    plain = Plain(bytes(range(0x18)))
    card = loaded(tmp_path, text)(plain)
    assert card.it.value == int.from_bytes(range(16), "little")
    assert card.whole.value == int.from_bytes(range(16, 24), "little")
    assert plain.log == [("read", 0, 64), ("read", 8, 64), ("read", 16, 64)]


def test_alignment_is_of_the_address(tmp_path: Path) -> None:
    text = """addrmap card {
        regfile {
            reg { field { sw = rw; hw = r; } v[31:0]; } a @ 0x0;
            reg { regwidth = 64; field { sw = rw; hw = r; } v[63:0]; } b @ 0x4;
        } block @ 0x4; };"""
    assert loaded(tmp_path, text)(Plain(bytes(range(16)))).block.b.v == 0x0F0E0D0C0B0A0908


def test_fields_whose_bits_are_reversed(tmp_path: Path) -> None:
    text = "addrmap card { msb0; reg { field { sw = rw; hw = r; } a[0:7]; field { sw = rw; hw = r; } b[8:11]; } it; };"
    plain = Plain(bytes.fromhex("01020000"))
    it = loaded(tmp_path, text)(plain).it
    assert (it.a, it.b) == (0x80, 0b0100)
    it.a = 0x40
    assert plain.read32(0) == 0x202


def test_memories(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        """addrmap card {
        external mem { mementries = 16; memwidth = 32; desc = "packets"; } ram @ 0x0;
        external mem { mementries = 8; memwidth = 16; sw = r; } rom[2] @ 0x80 += 0x20;
        external mem { mementries = 4; memwidth = 128; sw = w; } keys @ 0x100;
        external mem { mementries = 0x10000000; memwidth = 64; } dram @ 0x80000000;
        external mem {
            mementries = 32; memwidth = 32;
            reg { field { sw = rw; } length[15:0]; field { sw = rw; } last[31:31]; } descriptor[16] @ 0x0 += 4;
            reg { field { sw = rw; } entries[31:0]; } entries @ 0x40;
        } ring @ 0x200;
        reg { field { sw = rw; hw = r; } v[31:0]; } after @ 0x300;
    };""",
    )
    assert [info.path for info in made.walk()] == ["ring.entries", "after"]
    for name, offset, width, access in (
        ("ram[15]", 0x3C, 32, "rw"),
        ("rom[1][7]", 0xAE, 16, "ro"),
        ("keys[3]", 0x130, 128, "wo"),
        ("dram[0xfffffff]", 0x80000000 + 8 * 0xFFFFFFF, 64, "rw"),
        ("ring.descriptor[2]", 0x208, 32, "rw"),
        ("ring.entries_[31]", 0x27C, 32, "rw"),
    ):
        found = made.find(name)
        assert (found.offset, found.width, found.access) == (offset, width, access), name
    assert made.find("ram[0]").doc == "packets"
    plain = Plain(bytes(0x304))
    card = made(plain)
    card.ring.descriptor[2].length = 0x123
    card.keys[1].write(0xA << 124)
    card.ram[3].write(7)
    assert card.ring.entries_[2].read() == 0x123
    assert plain.read32(0x11C) == 0xA0000000
    assert plain.read32(0xC) == 7
    assert len(card.dram) == 1 << 28
