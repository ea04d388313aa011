# SPDX-License-Identifier: MIT
"""PeakRDL: the exporter of its command, what comes by its importers, and regions for the register layers it makes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from peakrdl.main import main

from pyuio import RegisterMap, systemrdl
from pyuio.peakrdl import callbacks
from pyuio.region import Region
from tests.unit.register_support import Plain
from tests.unit.test_systemrdl import CARD

# What an IP-XACT file has for one register; the names and descriptions are those of the tests.
IPXACT = """<?xml version="1.0"?>
<ipxact:component xmlns:ipxact="http://www.accellera.org/XMLSchema/IPXACT/1685-2014">
  <ipxact:vendor>vendor</ipxact:vendor><ipxact:library>cards</ipxact:library>
  <ipxact:name>card</ipxact:name><ipxact:version>1.0</ipxact:version>
  <ipxact:memoryMaps><ipxact:memoryMap><ipxact:name>regs</ipxact:name>
    <ipxact:addressBlock>
      <ipxact:name>block</ipxact:name><ipxact:baseAddress>'h100</ipxact:baseAddress>
      <ipxact:range>'h100</ipxact:range><ipxact:width>32</ipxact:width>
      <ipxact:register>
        <ipxact:name>{name}</ipxact:name><ipxact:description>{text}</ipxact:description>
        <ipxact:addressOffset>'h4</ipxact:addressOffset><ipxact:size>32</ipxact:size>
        <ipxact:field>
          <ipxact:name>{name}</ipxact:name><ipxact:description>{text}</ipxact:description>
          <ipxact:bitOffset>4</ipxact:bitOffset><ipxact:bitWidth>2</ipxact:bitWidth>
          <ipxact:access>read-write</ipxact:access>
          <ipxact:modifiedWriteValue>oneToClear</ipxact:modifiedWriteValue>
          <ipxact:enumeratedValues>
            <ipxact:enumeratedValue><ipxact:name>{member}</ipxact:name><ipxact:value>2</ipxact:value>
            </ipxact:enumeratedValue>
          </ipxact:enumeratedValues>
        </ipxact:field>
      </ipxact:register>
    </ipxact:addressBlock>
  </ipxact:memoryMap></ipxact:memoryMaps>
</ipxact:component>
"""

SVD = """<?xml version="1.0"?>
<device schemaVersion="1.1">
  <name>CHIP</name><width>32</width><size>32</size><access>read-write</access>
  <peripherals>
    <peripheral>
      <name>TIMER</name><baseAddress>0x400</baseAddress>
      <registers>
        <register>
          <name>CTRL</name><addressOffset>0x0</addressOffset>
          <fields>
            <field><name>EN</name><bitRange>[0:0]</bitRange></field>
            <field><name>MODE</name><bitRange>[5:4]</bitRange><enumeratedValues>
              <enumeratedValue><name>ONCE</name><value>0</value></enumeratedValue>
              <enumeratedValue><name>AGAIN</name><value>2</value></enumeratedValue>
            </enumeratedValues></field>
            <field><name>FLAG</name><lsb>8</lsb><msb>8</msb><modifiedWriteValues>oneToClear</modifiedWriteValues>
            </field>
          </fields>
        </register>
        <register>
          <name>COUNT%s</name><dim>2</dim><dimIncrement>4</dimIncrement><addressOffset>0x8</addressOffset>
          <fields><field><name>VALUE</name><bitRange>[15:0]</bitRange><access>read-only</access></field></fields>
        </register>
      </registers>
    </peripheral>
    <peripheral derivedFrom="TIMER"><name>TIMER2</name><baseAddress>0x500</baseAddress></peripheral>
  </peripherals>
</device>
"""

LAYERS = """
addrmap layers {
    reg { field { sw = rw; hw = r; } value[31:0]; } control @ 0x0;
    reg { regwidth = 64; accesswidth = 32; field { sw = rw; hw = r; } value[63:0]; } wide @ 0x8;
    reg { regwidth = 16; accesswidth = 8; field { sw = rw; hw = r; } value[15:0]; } small @ 0x10;
    reg { regwidth = 8; field { sw = rw; hw = r; } value[7:0]; } tiny @ 0x13;
    reg { regwidth = 64; field { sw = rw; hw = r; } value[63:0]; } whole @ 0x18;
    reg { field { sw = rw; hw = r; } value[31:0]; } table[4] @ 0x20;
    external mem { mementries = 16; memwidth = 32; } ram @ 0x40;
};
"""


Command = Callable[..., Path]


@pytest.fixture
def peakrdl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs ``peakrdl COMMAND`` on a text, and returns the path of what that wrote."""

    def run(command: str, text: str, kind: str, *options: str, output: str = "made.py") -> Path:
        given, path = tmp_path / f"given.{kind}", tmp_path / output
        given.write_text(text, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["peakrdl", command, str(given), "-o", str(path), *options])
        main()
        return path

    return run


def module(path: Path, name: str = "made") -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    try:
        spec.loader.exec_module(loaded)
    finally:
        del sys.modules[name]
    return loaded


def last_map(path: Path) -> type[RegisterMap]:
    loaded = module(path)
    found: type[RegisterMap] = [
        one for one in vars(loaded).values() if isinstance(one, type) and one.__module__ == loaded.__name__
    ][-1]
    return found


def test_the_command_writes_what_pyuio_reads(tmp_path: Path) -> None:
    (tmp_path / "card.rdl").write_text(CARD)
    command = [str(Path(sys.executable).parent / "peakrdl"), "pyuio", "card.rdl", "-o", "card.py"]
    subprocess.run(command, cwd=tmp_path, check=True)
    made = (tmp_path / "card.py").read_text()
    assert made == systemrdl.python_source(tmp_path / "card.rdl")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "card.py"], cwd=tmp_path, check=True)


def test_the_options_are_the_same(tmp_path: Path, peakrdl: Command) -> None:
    made = peakrdl("pyuio", LAYERS, "rdl", "--bus-width", "16", "--first", "high")
    assert made.read_text() == systemrdl.python_source(tmp_path / "given.rdl", bus_width=16, first="high")
    assert 'width=64, access_width=16, first="high"' in made.read_text()


def test_what_cannot_be_accessed_is_an_error(peakrdl: Command, tmp_path: Path, capsys: Any) -> None:
    text = """property first_access { type = string; component = reg; };
        addrmap card { reg { regwidth = 64; accesswidth = 32; first_access = "odd"; field {} a[63:0]; } it @ 0x8; };"""
    with pytest.raises(SystemExit) as caught:
        peakrdl("pyuio", text, "rdl")
    assert caught.value.code == 1
    assert 'pyuio cannot access card.it: first_access is "low" or "high", not \'odd\'' in capsys.readouterr().err
    assert not (tmp_path / "made.py").exists()
    with pytest.raises(SystemExit):
        peakrdl("pyuio", CARD, "rdl", output="none/made.py")
    assert "No such file" in capsys.readouterr().err


def test_ipxact(peakrdl: Command) -> None:
    registers = last_map(peakrdl("pyuio", IPXACT.format(name="status", text="what it does", member="FULL"), "xml"))
    it = registers.find("block.status")
    assert (it.offset, it.width, it.doc) == (0x104, 32, "what it does")
    assert [(one.name, one.bits, one.access, one.doc) for one in it.fields.values()] == [
        ("status", "[5:4]", None, "what it does")
    ]
    assert it.access == "w1c"
    assert it.fields["status"].enum is not None
    assert {member.name: int(member) for member in it.fields["status"].enum} == {"FULL": 2}


def test_systemrdl_by_way_of_ipxact_is_the_same_map(peakrdl: Command, tmp_path: Path) -> None:
    card = re.sub(r"words\[4\] .*?;", "words[4] @ 0x20;", CARD)
    card = re.sub(r"channel_rf find.*?;", "channel_rf block[3] @ 0x100 += 0x20;", card)
    card = "\n".join(line for line in card.splitlines() if " ram " not in line)
    (tmp_path / "card.rdl").write_text(card)
    direct = systemrdl.load(tmp_path / "card.rdl")
    written = peakrdl("ip-xact", card, "rdl", output="card.xml").read_text()
    found = last_map(peakrdl("pyuio", written, "xml"))
    assert _described(found, "card.") == _described(direct, "")


def _described(registers: type[RegisterMap], prefix: str) -> list[Any]:
    return [
        (
            one.path.removeprefix(prefix),
            (one.offset, one.width, one.access),
            [(field.name, field.bits, field.access or one.access, field.doc) for field in one.fields.values()],
        )
        for one in registers.walk()
    ]


def test_svd(peakrdl: Command) -> None:
    registers = last_map(peakrdl("pyuio", SVD, "svd"))
    assert {one.path: (one.offset, one.access) for one in registers.walk()} == {
        f"{block}.{name}": (place + offset, access)
        for block, place in (("TIMER", 0x400), ("TIMER2", 0x500))
        for name, offset, access in (("CTRL", 0, "rw"), ("COUNT0", 8, "ro"), ("COUNT1", 12, "ro"))
    }
    plain = Plain(bytes(0x600))
    chip: Any = registers(plain)
    chip.TIMER2.CTRL.MODE = 2
    assert chip.TIMER2.CTRL.MODE.name == "AGAIN"
    assert plain.read32(0x500) == 0x20


ATTACKS = [
    "a = 1\n    __import__('os').abort()\n    b",
    "a\n__import__('os').abort()\nclass b",
    '"""\n__import__("os").abort()\n"""',
    "a\\",
    "'''",
    "\u2028__import__('os').abort()",
    "#",
    "\u00e9\u212b",
    "1 + 2",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_becomes_code(peakrdl: Command, attack: str) -> None:
    made = peakrdl("pyuio", IPXACT.format(name="a\u00e9\u212b", text=escape(attack), member=escape(attack)), "xml")
    (it,) = last_map(made).walk()
    (field,) = it.fields.values()
    assert field.enum is not None
    (member,) = field.enum
    assert (it.path, it.offset, field.bits, int(member)) == ("block.a__", 0x104, "[5:4]", 2)
    assert member.name.isidentifier()
    assert member.name.isascii()
    assert field.doc == " ".join(attack.split())


# ---- Register layers ----


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "bar"
    path.write_bytes(bytes(4096))
    with Region(path, 4096) as region:
        yield region


def test_peakrdl_python(peakrdl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peakrdl("python", LAYERS, "rdl", "--skip_test_case_generation", output="layers")
    monkeypatch.syspath_prepend(str(tmp_path / "layers"))
    from layers.lib import NormalCallbackSet  # type: ignore[import-not-found]
    from layers.reg_model.layers import layers_cls  # type: ignore[import-not-found]

    plain = Plain(bytes(0x80))
    card = layers_cls(callbacks=NormalCallbackSet(**callbacks(plain)))
    card.control.value.write(0x12345678)
    assert card.control.read() == 0x12345678
    plain.log.clear()
    card.wide.write(0x11223344_55667788)
    card.small.write(0xABCD)
    card.tiny.write(0x5A)
    card.whole.write(1)
    assert plain.log == [
        ("write", 0x8, 32),
        ("write", 0xC, 32),
        ("write", 0x10, 16),
        ("write", 0x13, 8),
        ("write", 0x18, 64),
    ]
    assert [card.wide.read(), card.small.read(), card.tiny.read()] == [0x11223344_55667788, 0xABCD, 0x5A]
    plain.log.clear()
    card.ram.write(4, [1, 2, 3])
    assert card.ram.read(5, 2) == [2, 3]
    assert plain.log == [("write", 0x50 + 4 * word, 32) for word in range(3)] + [
        ("read", 0x54, 32),
        ("read", 0x58, 32),
    ]


def test_the_width_of_the_bus(region: Any) -> None:
    plain = Plain(bytes(16))
    narrow = callbacks(plain, bus_width=8)
    narrow["write_callback"](addr=4, width=32, accesswidth=32, data=0x11223344)
    assert plain.log == [("write", 4 + byte, 8) for byte in range(4)]
    with pytest.raises(ValueError, match="the width of a bus is 8, 16, 32 or 64 bits, not 24"):
        callbacks(plain, bus_width=24)
    real = callbacks(region)
    real["write_callback"](addr=8, width=64, accesswidth=64, data=1 << 63)
    assert region.read64(8) == real["read_callback"](addr=8, width=64, accesswidth=32) == 1 << 63
    for addr, data in ((2, 0), (4096, 0), (4, 1 << 32)):
        with pytest.raises(ValueError, match=r"0x|multiple|outside|fit"):
            real["write_callback"](addr=addr, width=32, accesswidth=32, data=data)


def test_peakrdl_pyral(peakrdl: Command, tmp_path: Path, region: Any) -> None:
    from pyuio.peakrdl.hwio import RegionHWIO

    (tmp_path / "ral").mkdir()
    peakrdl("pyral", LAYERS, "rdl", output="ral")
    ral = module(tmp_path / "ral/layers.py", "layers_ral").get_ral()
    ral.attach_hwio(RegionHWIO(region))
    ral.wide.write(0x11223344_55667788)
    ral.tiny.write(0x5A)
    with ral.control.change_fields() as control:
        control.value = 0xCAFE
    assert region.read64(8) == 0x11223344_55667788 == ral.wide.read()
    assert (region.read8(0x13), region.read32(0)) == (0x5A, 0xCAFE)
    assert ral.control.read_fields().value == 0xCAFE


def test_accesses_of_hwio(region: Any) -> None:
    from pyuio.peakrdl.hwio import RegionHWIO

    plain = Plain(bytes(64))
    hwio = RegionHWIO(plain, offset=0x10)  # type: ignore[arg-type]  # it has no runs
    for size in (1, 2, 4, 8):
        hwio.write(8, 1, size)
        assert hwio.read(8, size) == 1
    assert plain.log == [(verb, 0x18, 8 * size) for size in (1, 2, 4, 8) for verb in ("write", "read")]
    with pytest.raises(NotImplementedError, match="1, 2, 4 or 8 bytes, not 3"):
        hwio.read(0x20, 3)
    with pytest.raises(NotImplementedError, match="not 16"):
        hwio.write(0, 1, 16)
    bytes_of = RegionHWIO(region)
    bytes_of.write_bytes(4, b"12345678")
    assert bytes_of.read_bytes(8, 4) == b"5678"
    with pytest.raises(ValueError, match="not a whole number of accesses"):
        bytes_of.read_bytes(8, 3)
    with pytest.raises(ValueError, match=r"is not in 0\.\.0xffffffff"):
        bytes_of.write(0, 1 << 32)
