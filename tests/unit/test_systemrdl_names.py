# SPDX-License-Identifier: MIT
"""Names in SystemRDL: whatever they are, there is a map with all registers and fields, and a module that imports."""

from __future__ import annotations

import builtins
import enum
import keyword
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyuio import Register, RegisterMap, systemrdl
from tests.unit.register_support import Plain

# Python's keywords and builtins, what pyuio's classes and the module use, and what begins or ends with underscores.
AWKWARD = [
    *keyword.kwlist,
    *dir(builtins),
    *(name for base in (RegisterMap, Register, enum.IntEnum) for name in dir(base)),
    *("Array", "Field", "Memory", "Register", "RegisterMap", "DescribedMap", "enum", "pyuio", "entries", "self", "cls"),
    *("_2G5", "__2G5", "_2G5_", "_", "__", "___", "_1v8_good", "in_", "_in", "read_", "_read", "Field_", "_Field"),
    *("Lane", "lane", "LANE", "Lane2", "_Lane", "name", "value", "mro", "T", "property", "match", "type", "print"),
]
NAMES = st.one_of(st.sampled_from(AWKWARD), st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True))
UNIQUE = st.lists(NAMES, min_size=1, max_size=6, unique=True)


@given(types=st.lists(NAMES, min_size=4, max_size=4, unique=True), fields=UNIQUE, members=UNIQUE, registers=UNIQUE)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_of_any_kind(
    tmp_path: Path, types: list[str], fields: list[str], members: list[str], registers: list[str]
) -> None:
    register, code, block, top = (f"\\{name}" for name in types)  # a backslash, as it may be a keyword of SystemRDL
    codes = " ".join(f"\\{name} = {value};" for value, name in enumerate(members))
    bits = " ".join(
        f"field {{ sw = rw; hw = r; encode = {code}; }} \\{name}[{3 * bit + 2}:{3 * bit}];"
        for bit, name in enumerate(fields)
    )
    places = " ".join(f"{register} \\{name}[2] @ {8 * place};" for place, name in enumerate(registers))
    path = tmp_path / "names.rdl"
    path.write_text(
        f"enum {code} {{ {codes} }}; reg {register} {{ {bits} }}; regfile {block} {{ {places} }};\n"
        f"addrmap {top} {{ {block} \\{registers[0]} @ 0; {block} \\{registers[0]}_ @ 0x100; }};\n"
    )
    namespace: dict[str, Any] = {"__name__": "names"}
    exec(systemrdl.python_source(path), namespace)
    made: type[RegisterMap] = [one for one in namespace.values() if isinstance(one, type)][-1]
    found = list(made.walk())
    assert [info.offset for info in found] == [
        0x100 * half + 8 * place + 4 * index for half in range(2) for place in range(len(registers)) for index in (0, 1)
    ]
    for info in found:
        assert [(one.high, one.low) for one in info.fields.values()] == [
            (3 * bit + 2, 3 * bit) for bit in range(len(fields))
        ]
        for one in info.fields.values():
            assert one.enum is not None
            assert [int(member) for member in one.enum] == list(range(len(members)))
    plain = Plain(bytes(0x200))
    last = found[-1]
    setattr(last.bind(plain), list(last.fields)[-1], len(members) - 1)
    assert plain.read32(last.offset) == len(members) - 1 << 3 * len(fields) - 3
    assert str(made(plain)).count("\n") + 1 == len(found)


def test_names_stay_if_they_can(tmp_path: Path) -> None:
    path = tmp_path / "names.rdl"
    path.write_text("""
        enum Mode { OFF = 0; _2G5 = 1; in = 2; in_ = 3; };
        reg Lane {
            field { sw = rw; hw = r; encode = Mode; } Mode[1:0];
            field { sw = rw; hw = r; encode = Mode; } Next[3:2];
            field { sw = rw; hw = r; } Field[4:4];
            field { sw = rw; hw = r; } _1v8_good[5:5];
            field { sw = rw; hw = r; } class[6:6];
            field { sw = rw; hw = r; } class_[7:7];
            field { sw = rw; hw = r; } _path[8:8];
        };
        addrmap card { Lane Lane[2] @ 0x0; Lane Array[2] @ 0x10; Lane find @ 0x20; };""")
    card = systemrdl.load(path)
    assert [info.path for info in card.walk()] == ["Lane[0]", "Lane[1]", "Array[0]", "Array[1]", "find_"]
    fields = card.find("find_").fields
    assert list(fields) == ["Mode", "Next", "Field", "_1v8_good", "class__", "class_", "path_"]
    mode = fields["Next"].enum
    assert mode is not None
    assert [member.name for member in mode] == ["OFF", "_2G5", "in__", "in_"]


def test_names_that_hide_others_are_typed(tmp_path: Path) -> None:
    (tmp_path / "names.rdl").write_text("""
        enum Mode { OFF = 0; ON = 1; };
        reg Lane {
            field { sw = rw; hw = r; encode = Mode; } Mode[1:0];
            field { sw = rw; hw = r; encode = Mode; } Next[3:2];
            field { sw = rw; hw = r; } Field[4:4];
        };
        addrmap card {
            Lane Lane @ 0x0; Lane Array[2] @ 0x10; external mem { mementries = 4; memwidth = 32; } ram @ 0x40;
        };
    """)
    (tmp_path / "names.py").write_text(systemrdl.python_source(tmp_path / "names.rdl"))
    (tmp_path / "program.py").write_text(
        "from names import Card, Mode\n"
        "from pyuio.region import Region\n"
        "def use(region: Region) -> Mode:\n"
        "    card = Card(region)\n"
        "    card.Lane.Field = card.ram[1].read()\n"
        "    return card.Array[1].Mode\n"
        "def misuse(region: Region) -> str:\n"
        "    return Card(region).Lane.Next\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "pyproject.toml")]
    files = [str(tmp_path / "names.py"), str(tmp_path / "program.py")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=250, check=False, cwd=root)
    errors = [line for line in done.stdout.splitlines() if " error: " in line]
    assert len(errors) == 1, done.stdout
    assert "program.py:8" in errors[0]


def test_documentation_with_any_characters(tmp_path: Path) -> None:
    text = "\\\\N{x} \u00e9\u2028\x1b\x00 ''' {} %s \\\\\\\\"
    path = tmp_path / "doc.rdl"
    path.write_text(
        f'addrmap card {{ desc = "{text}"; reg {{ desc = "{text}"; field {{ desc = "{text}"; }} a[7:0]; }} it; }};',
        encoding="utf-8",
    )
    it = systemrdl.load(path).find("it")
    assert it.doc == it.fields["a"].doc
    assert "\u00e9" in it.doc
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "pyuio.systemrdl", str(path)]
    made = subprocess.run(command, capture_output=True, timeout=60, check=True, env=environment)
    assert made.stdout.decode("utf-8") == systemrdl.python_source(path)
