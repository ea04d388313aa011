# SPDX-License-Identifier: MIT
"""Registers from LiteX's csr.json and csr.csv."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyuio import CsrFileError, RegisterMap, litex
from pyuio.litex.__main__ import main
from tests.unit.register_support import Plain

BASE = 0xF0000000


def listed(**registers: tuple[int, int, str]) -> dict[str, Any]:
    """Return what csr.json has for registers of which the address, the words and the type are given."""
    keys = ("addr", "size", "type")
    return {
        "csr_bases": {"ctrl": BASE, "dna": BASE + 0x800},
        "csr_registers": {name: dict(zip(keys, one, strict=True)) for name, one in registers.items()},
        "constants": {"config_clock_frequency": 125000000, "config_csr_data_width": 32, "config_cpu_type": "none"},
        "memories": {"csr": {"base": BASE, "size": 65536, "type": "io"}},
    }


SOC = listed(
    ctrl_reset=(BASE, 1, "rw"),
    ctrl_scratch=(BASE + 4, 1, "rw"),
    ctrl_bus_errors=(BASE + 8, 1, "ro"),
    dna_id=(BASE + 0x800, 2, "ro"),
    dma_table=(BASE + 0x1004, 2, "rw"),
    uart_ev_pending=(BASE + 0x1810, 1, "ro"),
    uart_ev_enable=(BASE + 0x1814, 1, "rw"),
    find=(BASE + 0x1818, 1, "rw"),
)
SOC_CSV = """\
#--------------------------------------------------------------------------------
# Auto-generated
csr_base,ctrl,0xf0000000,,
csr_register,ctrl_reset,0xf0000000,1,rw
csr_register,ctrl_scratch,0xf0000004,1,rw
csr_register,dna_id,0xf0000800,2,ro
constant,config_csr_data_width,32,,
constant,config_cpu_type,none,,
memory_region,csr,0xf0000000,65536,io
"""


def written(directory: Path, data: object, name: str = "csr.json") -> Path:
    path = directory / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def places(registers: type[RegisterMap]) -> dict[str, tuple[int, int, str]]:
    return {one.path: (one.offset, one.width, one.access) for one in registers.walk()}


def test_the_registers(tmp_path: Path) -> None:
    assert places(litex.load(written(tmp_path, SOC))) == {
        "ctrl_reset": (0, 32, "rw"),
        "ctrl_scratch": (4, 32, "rw"),
        "ctrl_bus_errors": (8, 32, "ro"),
        "dna_id": (0x800, 64, "ro"),
        "dma_table": (0x1004, 64, "rw"),
        "uart_ev_pending": (0x1810, 32, "w1c"),
        "uart_ev_enable": (0x1814, 32, "rw"),
        "find_": (0x1818, 32, "rw"),
    }


def test_a_register_of_several_words(tmp_path: Path) -> None:
    plain = Plain(bytes(0x2000))
    soc = litex.load(written(tmp_path, SOC))(plain)
    soc.dma_table.write(0x11223344_55667788)
    assert plain.log == [("write", 0x1004, 32), ("write", 0x1008, 32)]
    assert (plain.read32(0x1004), plain.read32(0x1008)) == (0x11223344, 0x55667788)
    assert soc.dma_table.read() == 0x11223344_55667788


def test_a_bus_of_bytes(tmp_path: Path) -> None:
    soc = listed(timer_load=(BASE + 0x10, 4, "rw"), timer_enable=(BASE + 0x20, 1, "rw"))
    soc["constants"]["config_csr_data_width"] = 8
    registers = litex.load(written(tmp_path, soc))
    assert places(registers) == {
        **{f"timer_load[{word}]": (0x10 + 4 * word, 32, "rw") for word in range(4)},
        "timer_enable": (0x20, 32, "rw"),
    }


def test_the_table_is_the_same(tmp_path: Path) -> None:
    found = places(litex.load(written(tmp_path, SOC_CSV, "csr.csv")))
    assert found == {name: place for name, place in places(litex.load(written(tmp_path, SOC))).items() if name in found}
    assert list(found) == ["ctrl_reset", "ctrl_scratch", "dna_id"]


def test_where_the_map_starts(tmp_path: Path) -> None:
    path = written(tmp_path, SOC)
    assert places(litex.load(path, base=BASE - 0x100))["ctrl_scratch"][0] == 0x104
    without = {**SOC, "memories": {}, "csr_bases": {"ctrl": BASE - 0x1000}}
    assert places(litex.load(written(tmp_path, without)))["ctrl_scratch"][0] == 0x1004
    with pytest.raises(CsrFileError, match="ctrl_reset at 0xf0000000 is before 0xf0000004, where the map starts"):
        litex.load(written(tmp_path, SOC), base=BASE + 4)


def test_the_module_is_the_same_map(tmp_path: Path) -> None:
    path = written(tmp_path, SOC)
    made = subprocess.run(
        [sys.executable, "-m", "pyuio.litex", str(path), "--base", "0xefffff00"], capture_output=True, check=True
    )
    (tmp_path / "made.py").write_bytes(made.stdout)
    namespace: dict[str, Any] = {"__name__": "made"}
    exec(made.stdout, namespace)
    assert places(namespace["Soc"]) == places(litex.load(path, base=0xEFFFFF00))
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path / "made.py")], check=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"csr_registers": None}, "csr_registers is missing"),
        ({"csr_registers": {"a": 5}}, "a is missing, or is no table"),
        ({"csr_registers": {"a": {"addr": "5", "size": 1, "type": "rw"}}}, "addr of a is '5', not a number from 0"),
        ({"csr_registers": {"a": {"addr": BASE, "size": 0, "type": "rw"}}}, "size of a is 0, not a number from 1"),
        ({"csr_registers": {"a": {"addr": BASE, "size": True, "type": "rw"}}}, "size of a is True"),
        (
            {"csr_registers": {"a": {"addr": BASE, "size": 1, "type": "x"}}},
            """the type of a is 'x', not "ro" or "rw\"""",
        ),
        ({"csr_registers": {"a\x1b": {"addr": BASE, "size": 1}}}, r"the type of a\\x1b is None"),
        (
            {"csr_registers": {"a": {"addr": BASE + 2, "size": 1, "type": "rw"}}},
            "a at 0xf0000002 is not at a multiple of 4",
        ),
        ({"constants": {}}, "config_csr_data_width of constants is None"),
        ({"constants": {"config_csr_data_width": 16}}, "words of 16 bits, 32 bits apart, are none that LiteX makes"),
        ({"memories": {"csr": {}}}, "base of csr is None"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(CsrFileError, match=said):
        litex.load(written(tmp_path, {**SOC, **change}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("csr.json", ""),
        ("csr.json", "[]"),
        ("csr.json", "[" * 100_000),
        ("csr.csv", "csr_register,a,1,1\n"),
        ("csr.csv", "csr_register,a,x,1,rw\n"),
        ("csr.csv", ""),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, name: str, text: str, capsys: Any) -> None:
    path = written(tmp_path, text, name)
    assert main([str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    with pytest.raises(CsrFileError):
        litex.load(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CsrFileError, match="No such file"):
        litex.load(tmp_path / "csr.json")


@given(names=st.lists(st.text(max_size=30), unique=True, min_size=1, max_size=5))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_becomes_code(tmp_path: Path, names: list[str]) -> None:
    attack = "a = 1\n    __import__('os').abort()\n    b"
    given_names = [attack, *(name for name in names if name != attack)]
    registers = {name: {"addr": BASE + 4 * place, "size": 1, "type": "rw"} for place, name in enumerate(given_names)}
    found = list(litex.load(written(tmp_path, {**SOC, "csr_registers": registers})).walk())
    assert [one.offset for one in found] == [4 * place for place in range(len(given_names))]
    assert all(one.path.isidentifier() and one.path.isascii() for one in found)


@pytest.mark.long
def test_very_many_names_that_are_alike(tmp_path: Path) -> None:
    """They take no longer than others, or whoever wrote the file could have one wait for hours."""
    names = [f"a{chr(0x4E00 + number)}" for number in range(20_000)]
    soc = litex.load(written(tmp_path, listed(**{name: (BASE + 4 * at, 1, "rw") for at, name in enumerate(names)})))
    found = [info.path for info in soc.walk()]
    assert found[:5] == ["a_", "a__", "a___", "a____", "a__5"]
    assert len(set(found)) == len(names)


@pytest.mark.parametrize("line", ["csr_base,a,{},,", "csr_register,a_b,{},1,rw", "csr_register,a_b,0,{},rw"])
@pytest.mark.parametrize("number", ["0x" + "f" * 6000, "9" * 6000])
def test_a_number_of_csr_csv_is_not_endless(tmp_path: Path, line: str, number: str) -> None:
    file = tmp_path / "csr.csv"
    file.write_text(line.format(number) + "\n")
    with pytest.raises(CsrFileError, match="digits"):
        litex.load(file)
