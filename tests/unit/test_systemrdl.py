# SPDX-License-Identifier: MIT
"""Registers from a SystemRDL file, and the Python module made from such a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyuio import RegisterAccessError, SystemRdlError, SystemRdlUnavailableError, systemrdl
from tests.unit.register_support import Plain

CARD = """
enum speed_e {
    SLOW = 2'd0 { desc = "the slow one"; };
    FAST = 2'd2;
    name = 2'd3;
};

reg control_r {
    name = "Control";
    desc = "What the unit
            is to \\"do\\".";
    field { sw = rw; hw = r; desc = "let it run"; } enable[0:0];
    field { sw = rw; hw = r; encode = speed_e; } speed[5:4];
    field { sw = r; hw = w; } busy[6:6];
    field { sw = rw; onwrite = woclr; hw = w; } overflow[8:8];
    field { sw = rw; onwrite = woset; hw = w; } set_it[9:9];
    field { sw = rw; onwrite = wot; hw = w; } flip[10:10];
    field { sw = w; hw = r; } go[11:11];
    field { sw = rw; hw = r; } class[31:24];
};

regfile channel_rf {
    control_r control;
    reg { regwidth = 16; accesswidth = 16; field { sw = r; hw = w; } value[15:0]; } count @ 0x8;
};

addrmap card {
    name = "The card";
    control_r control @ 0x0;
    reg { field { sw = r; onread = rclr; hw = w; } seen[7:0]; } status @ 0x4;
    reg { field { sw = w; hw = r; } value[7:0]; } doorbell @ 0x8;
    reg { field { sw = rw; onwrite = wclr; hw = w; } value[7:0]; } odd @ 0xC;
    reg { regwidth = 64; field { sw = rw; hw = r; } value[63:0]; } wide @ 0x10;
    reg { field { sw = r; hw = w; } data[31:0]; } words[4] @ 0x20 += 0x8;
    channel_rf find[2][3] @ 0x100 += 0x10;
    external mem { mementries = 16; memwidth = 32; } ram @ 0x400;
};
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.rdl"
    path.write_text(CARD)
    return path


def test_the_registers(card: Path) -> None:
    registers = systemrdl.load(card)
    found = {one.path: one for one in registers.walk()}
    assert {path: (one.offset, one.width, one.access) for path, one in found.items() if "find" not in path} == {
        "control": (0x0, 32, "rw"),
        "status": (0x4, 32, "rc"),
        "doorbell": (0x8, 32, "wo"),
        "odd": (0xC, 32, "wc"),
        "wide": (0x10, 64, "rw"),
        "words[0]": (0x20, 32, "ro"),
        "words[1]": (0x28, 32, "ro"),
        "words[2]": (0x30, 32, "ro"),
        "words[3]": (0x38, 32, "ro"),
    }
    assert {path: one.offset for path, one in found.items() if path.endswith("count")} == {
        f"find_[{row}][{column}].count": 0x108 + 0x30 * row + 0x10 * column for row in range(2) for column in range(3)
    }
    assert found["find_[1][2].count"].width == 16
    fields = found["control"].fields
    assert {name: (one.high, one.low, one.access or "rw") for name, one in fields.items()} == {
        "enable": (0, 0, "rw"),
        "speed": (5, 4, "rw"),
        "busy": (6, 6, "ro"),
        "overflow": (8, 8, "w1c"),
        "set_it": (9, 9, "w1s"),
        "flip": (10, 10, "w1t"),
        "go": (11, 11, "wo"),
        "class_": (31, 24, "rw"),
    }
    assert found["control"].doc == 'Control: What the unit is to "do".'
    assert fields["enable"].doc == "let it run"
    assert registers.__doc__ == "The card"
    speed = fields["speed"].enum
    assert speed is not None
    assert {member.name: int(member) for member in speed} == {"SLOW": 0, "FAST": 2, "name_": 3}


def test_they_are_used_like_any(card: Path) -> None:
    plain = Plain(bytes(0x400))
    registers = systemrdl.load(card)(plain)
    registers.control.enable = 1
    registers.control.speed = 2
    assert registers.control.speed.name == "FAST"
    assert plain.read32(0) == 0x21
    registers.find_[1][2].control.class_ = 0xA5
    assert plain.read32(0x100 + 0x30 + 0x20) == 0xA5000000
    registers.control.overflow = 1
    assert plain.read32(0) == 0x121
    registers.control.enable = 0
    assert plain.read32(0) == 0x20, "what 1 clears was written as 0"
    plain.log.clear()
    for refused in (
        lambda: registers.status.seen,
        lambda: registers.doorbell.read(),
        lambda: registers.words[0].write(1),
        lambda: setattr(registers.control, "busy", 1),
        lambda: registers.odd.change().__enter__(),
    ):
        with pytest.raises(RegisterAccessError):
            refused()
    assert plain.log == []
    assert registers.status.snapshot().seen == 0


def test_the_module_declares_the_same_and_is_typed(card: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "pyuio.systemrdl", str(card)], capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == systemrdl.python_source(card)
    namespace: dict[str, Any] = {"__name__": "card_registers"}
    exec(made.stdout, namespace)
    assert [(one.path, one.offset, one.width, one.access, one.doc) for one in namespace["Card"].walk()] == [
        (one.path, one.offset, one.width, one.access, one.doc) for one in systemrdl.load(card).walk()
    ]
    (tmp_path / "card_registers.py").write_text(made.stdout)
    (tmp_path / "program.py").write_text(
        "from card_registers import Card, SpeedE\n"
        "from pyuio.region import Region\n"
        "def use(region: Region) -> SpeedE:\n"
        "    card = Card(region)\n"
        "    card.control.enable = 1\n"
        "    card.find_[1][2].control.class_ = 5\n"
        "    return card.control.speed\n"
        "def misuse(region: Region) -> int:\n"
        "    return Card(region).contrl  # type: ignore[no-any-return]\n"
    )
    root = Path(__file__).resolve().parents[2]
    files = [tmp_path / "card_registers.py", tmp_path / "program.py"]
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        root / "pyproject.toml",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=root)
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert len(errors) == 1, done.stdout
    assert "program.py:9" in errors[0]
    assert '"Card" has no attribute "contrl"' in errors[0]


def test_a_type_used_twice_is_one_class(card: Path) -> None:
    text = systemrdl.python_source(card)
    assert text.count("class ControlR(") == 1
    assert text.count("class SpeedE(") == 1
    plain = Plain(bytes(0x400))
    registers = systemrdl.load(card)(plain)
    assert type(registers.control) is type(registers.find_[0][0].control)


def test_instances_that_differ_are_two(tmp_path: Path) -> None:
    path = tmp_path / "two.rdl"
    path.write_text(
        "reg pair_r { field { sw = rw; hw = r; } a[7:0]; };\n"
        'addrmap two { pair_r first; pair_r second; second->desc = "another \\\\ \\"one\\""; second.a->sw = r; };\n'
    )
    first, second = systemrdl.load(path).walk()
    assert (first.doc, second.doc) == ("", 'another \\ "one"')
    assert (first.writable, second.writable) == (True, False)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("addrmap bad {\n  reg { field { sw = rw } a[7:0]; } it;\n};", 2, "missing ';'"),
        ("addrmap bad {\n  nothing x;\n};", 2, "nothing"),
        ("addrmap bad {\n  reg { field {} a[7:0]; field {} b[7:7]; } it;\n};", 2, "overlap"),
        ("addrmap bad {\n  reg { field {} a[7:0]; } it[2] += 6;\n};", 0, "stride"),
        (
            "addrmap two { reg { field {} a[7:0]; } it; };\naddrmap bad {\n  bridge;\n  two x @ 0;\n  two y @ 0;\n};",
            2,
            "bridge, x and y overlap",
        ),
        (
            "property first_access { type = string; component = reg; };\naddrmap bad {\n"
            '  reg { regwidth = 64; accesswidth = 32; first_access = "middle"; field {} a[7:0]; } it;\n};',
            3,
            '"low" or "high", not .middle',
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "bad.rdl"
    path.write_text(text)
    with pytest.raises(SystemRdlError, match=message) as caught:
        systemrdl.load(path)
    place = f"{path}:{line}: " if line else f"{path}: "
    assert place in str(caught.value)
    made = subprocess.run(
        [sys.executable, "-m", "pyuio.systemrdl", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 1
    assert made.stdout == ""
    assert place in made.stderr
    assert "Traceback" not in made.stderr


def test_includes(card: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/shared.rdl").write_text("reg common_r { field { sw = rw; hw = r; } a[7:0]; };\n")
    path = tmp_path / "including.rdl"
    path.write_text('`include "shared.rdl"\naddrmap one { common_r p; };\naddrmap other { common_r q; };\n')
    assert [one.path for one in systemrdl.load(path, include=[tmp_path / "more"]).walk()] == ["q"]
    assert [one.path for one in systemrdl.load(path, top="one", include=[tmp_path / "more"]).walk()] == ["p"]


def test_without_the_compiler(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "systemrdl.compiler", None)
    monkeypatch.delitem(sys.modules, "pyuio.systemrdl.compiling", raising=False)
    with pytest.raises(SystemRdlUnavailableError, match="pip install systemrdl-compiler"):
        systemrdl.load(card)
    with pytest.raises(ImportError):
        systemrdl.python_source(card)
