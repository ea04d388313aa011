# SPDX-License-Identifier: MIT
"""mypy --strict on programs that use named registers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DECLARED = """
import enum
from pyuio import Array, Field, Register, RegisterMap
from pyuio.region import Region

class Speed(enum.IntEnum):
    SLOW = 0
    FAST = 2

class Control(Register):
    enable = Field(0)
    speed = Field(5, 4, Speed)
    single = Field(6, enum=Speed)
    level = Field(15, 8)

class Channel(RegisterMap):
    control = Control(0)

class Card(RegisterMap):
    control = Control(0x00)
    plain = Register(0x04, width=64, access="ro")
    channel = Array(Channel.at(0x40), 4, stride=0x10)
    word = Array(Register(0x80), 4)

def use(region: Region) -> None:
    card = Card(region)
"""

GOOD = """
    enable: bool = card.control.enable
    speed: Speed = card.control.speed
    single: Speed = card.control.single
    level: int = card.control.level + 1
    value: int = card.plain.read()
    card.control.enable = 1
    card.control.enable = True
    card.control.speed = Speed.FAST
    card.control.level = 5
    with card.control.change() as control:
        control.speed = Speed.SLOW
        inside: bool = control.enable
    held: Control = card.control.snapshot()
    of: Speed = Control.of(5).speed
    polled: Control = card.control.poll(lambda control: control.enable, 1.0)
    element: Channel = card.channel[1]
    card.channel[2].control.level = 3
    for one in card.channel:
        one.control.enable = False
    card.word[3].write(7)
    mask: int = Control.speed.mask
    where: int = Card.find("control.enable").offset
    where = card.control.info.offset
"""

# Each line is an error, whose message contains this text.
BAD = {
    "card.contrl": 'has no attribute "contrl"',
    "card.control.enabel": 'has no attribute "enabel"',
    "card.control.enabel = 1": 'has no attribute "enabel"',
    "card.control.speed = 2": 'expression has type "int", variable has type "Speed"',
    "card.control.level = 'x'": 'expression has type "str", variable has type "int"',
    "card.control = 5": "Incompatible types in assignment",
    "number: str = card.control.speed": 'expression has type "Speed", variable has type "str"',
    "wrong: Speed = card.control.level": 'expression has type "int", variable has type "Speed"',
    "card.control.snapshot().lvl": 'has no attribute "lvl"',
    "Control.of(1).lvl": 'has no attribute "lvl"',
    "card.channel[0].contrl": 'has no attribute "contrl"',
    "card.channel.control": 'has no attribute "control"',
    "card.plain.write('x')": 'incompatible type "str"',
    "Register(0, access='readonly')": "incompatible type",
    "Field(3, 0, int)": "type variable",
    "card.control.poll(lambda control: control.lvl, 1)": 'has no attribute "lvl"',
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """Return mypy's messages for the good lines and then the bad ones, by line number."""
    program = tmp_path_factory.mktemp("typing") / "program.py"
    program.write_text(DECLARED + GOOD + "".join(f"    {line}\n" for line in BAD))
    root = Path(__file__).resolve().parents[2]
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        root / "pyproject.toml",
        program,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=root)
    assert not done.stderr
    found: dict[int, list[str]] = {}
    for line in re.finditer(r"program\.py:(\d+): error: (.*)", done.stdout):
        found.setdefault(int(line[1]), []).append(line[2])
    return found


def test_what_is_right_is_not_complained_about(complaints: dict[int, list[str]]) -> None:
    good = (DECLARED + GOOD).count("\n")
    assert {line: said for line, said in complaints.items() if line <= good} == {}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_is(complaints: dict[int, list[str]], bad: str) -> None:
    line = (DECLARED + GOOD).count("\n") + 1 + list(BAD).index(bad)
    assert any(BAD[bad] in said for said in complaints.get(line, [])), complaints.get(line)
