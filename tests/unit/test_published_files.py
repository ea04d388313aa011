# SPDX-License-Identifier: MIT
"""Register files that PeakRDL's projects publish, or that LiteX writes, become maps of the same registers.

They come out of the source distributions at the Python Package Index; LiteX's out of a system that is made with it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peakrdl_ipxact import IPXACTImporter  # type: ignore[import-untyped]
from systemrdl.compiler import RDLCompiler
from systemrdl.messages import MessagePrinter, RDLCompileError
from systemrdl.node import AddrmapNode, MemNode, RegNode, RootNode
from systemrdl.rdltypes.builtin_enums import AccessType

from pyuio import RegisterMap, litex
from pyuio.systemrdl.python_classes import Source
from tests.unit.test_peakrdl import last_map

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

PROJECTS = ("peakrdl-ipxact==3.5.0", "peakrdl-python==4.0.0")
LEAST = 58  # files that can be compiled by themselves
Place = tuple[int, int, tuple[str, ...]]  # of a register: address, width, bits of its fields


class Silent(MessagePrinter):
    """Prints no message."""

    def emit_message(self, lines: list[str]) -> None:
        pass


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("published")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary=:all:",
        "--no-build-isolation",
    ]
    subprocess.run([*command, f"--dest={directory}", *PROJECTS], check=True, timeout=300)
    for path in directory.glob("*.tar.gz"):
        shutil.unpack_archive(path, directory)
    return sorted([*directory.rglob("*.rdl"), *directory.rglob("*.xml")])


def compiled(path: Path) -> RootNode | None:
    """Return what a file describes; None if it needs another one."""
    compiler = RDLCompiler(message_printer=Silent())
    try:
        if path.suffix == ".xml":
            IPXACTImporter(compiler).import_file(str(path))
        else:
            compiler.compile_file(str(path))
        return compiler.elaborate()
    except RDLCompileError:
        return None


def in_file(top: AddrmapNode) -> Iterator[Place]:
    """Yield each register that software can access, as the compiler has it; of a mem those that are no array."""
    for node in top.descendants(unroll=True):
        if isinstance(node, RegNode) and not (isinstance(node.parent, MemNode) and node.is_array):
            fields = [field for field in node.fields() if field.get_property("sw") != AccessType.na]
            bits = tuple(sorted(f"[{one.low}]" if one.low == one.high else f"[{one.high}:{one.low}]" for one in fields))
            if bits:
                yield node.absolute_address - top.absolute_address, node.get_property("regwidth"), bits


def in_map(registers: type[RegisterMap]) -> Iterator[Place]:
    for info in registers.walk():
        yield info.offset, info.width, tuple(sorted(field.bits for field in info.fields.values()))


def test_each_file_becomes_a_map_of_its_registers(files: list[Path]) -> None:
    done = 0
    for path in files:
        root = compiled(path)
        if root is None:
            continue
        source = Source(root.top, "RegisterMap", None, "low")
        registers = source.run(path.name)[source.top]
        assert set(in_map(registers)) == set(in_file(root.top)), path
        done += 1
    assert done >= LEAST


def test_what_litex_writes(tmp_path: Path) -> None:
    """Its three files tell of the same registers; the SVD file has a register of 64 bits as two."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=300)
    python = str(tmp_path / "venv/bin/python")
    wanted = ("litex==2024.12", "migen==0.10.0", "setuptools")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, timeout=300)
    program = Path(__file__).with_name("litex_system.py")
    subprocess.run([python, program, tmp_path], check=True, timeout=120, cwd=tmp_path, capture_output=True)
    command = [sys.executable, "-m", "peakrdl", "pyuio", "csr.svd", "-o", "made.py"]
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)
    system = litex.load(tmp_path / "csr.json")
    words = {info.path: (info.offset, info.width, info.access) for info in system.walk()}
    assert words == {
        info.path: (info.offset, info.width, info.access) for info in litex.load(tmp_path / "csr.csv").walk()
    }
    assert words["dma_base"] == (0x800, 64, "rw")
    assert words["dma_count"] == (0x80C, 32, "ro")
    svd = {info.path.lower().replace(".", "_"): info for info in last_map(tmp_path / "made.py").walk()}
    assert svd.pop("dma_base1").offset == 0x800, "the most significant word"
    assert svd.pop("dma_base0").offset == 0x804
    assert {path: info.offset for path, info in svd.items()} == {
        path: place for path, (place, _, _) in words.items() if path != "dma_base"
    }
    assert {name: field.bits for name, field in svd["dma_control"].fields.items()} == {"enable": "[0]", "mode": "[5:4]"}
    memory = bytearray(0x2000)
    registers: Any = system(memory)
    registers.dma_base.write(0x1_0000_2000)
    assert memory[0x800:0x808] == bytes.fromhex("01000000 00200000")
