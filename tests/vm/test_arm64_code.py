# SPDX-License-Identifier: MIT
"""What the compiler makes of an access for arm64: one load or store of that width, with the barrier beside it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pyuio.vm import native_build, system
from tests.run import ARCHITECTURE

# A load and a store of each width in bits, as instructions and the register's first letter.
INSTRUCTIONS = {8: ("ldrb", "strb", "w"), 16: ("ldrh", "strh", "w"), 32: ("ldr", "str", "w"), 64: ("ldr", "str", "x")}
# The functions return 0 for an access that is not answered.
SOURCE = '#include "access_bus.h"\n' + "".join(
    f"unsigned long load{bits}(const volatile void *at) {{ unsigned long v; return load(at, {bits}, &v) ? v : 0; }}\n"
    f"int store{bits}(volatile void *at, unsigned long value) {{ return store(at, value, {bits}); }}\n"
    for bits in INSTRUCTIONS
)


@pytest.fixture(scope="module")
def ready() -> system.System:
    return system.prepare(ARCHITECTURE, print)


def disassembled(path: Path) -> dict[str, list[str]]:
    """Return the instructions of each function in a compiled file, with one space between name and operands."""
    program = f"{ARCHITECTURE.triplet}-objdump"
    text = subprocess.run(
        [program, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if head := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            name = head[1]
            found[name] = []
        elif body := re.match(r" +[0-9a-f]+:\s+(\S.*)", line):
            found[name].append(" ".join(body[1].split()))
    return found


@pytest.fixture(scope="module")
def functions(ready: system.System, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    compiled = tmp_path_factory.mktemp("code") / "accesses.o"
    command = [*native_build.compiler(ARCHITECTURE, ready.tree), "-std=c11", "-O2", f"-I{native_build.SOURCES}"]
    subprocess.run([*command, "-x", "c", "-c", "-o", compiled, "-"], input=SOURCE, text=True, check=True)
    return disassembled(compiled)


@pytest.mark.parametrize("bits", INSTRUCTIONS)
def test_one_access_of_the_width_and_one_barrier(functions: dict[str, list[str]], bits: int) -> None:
    load, store, register = INSTRUCTIONS[bits]
    code = [line for line in functions[f"load{bits}"] if re.match("ld|st|d[ms]b ", line)]
    assert len(code) == 2
    assert re.fullmatch(rf"{load} {register}\d+, \[x0\]", code[0])
    assert code[1] == "dmb oshld"
    code = [line for line in functions[f"store{bits}"] if re.match("ld|st|d[ms]b ", line)]
    assert code == ["dmb oshst", f"{store} {register}1, [x0]"]


def test_the_barriers_of_the_modules(ready: system.System) -> None:
    """Those of DMA are two functions. Those of accesses are in each module that makes accesses; there are no others."""
    for name, least in (("_memory", 1), ("_access", 8), ("_registers", 3), ("_interrupt", 1)):
        (module,) = ready.native.glob(f"{name}.*")
        barriers = [line for code in disassembled(module).values() for line in code if re.match("d[ms]b ", line)]
        assert set(barriers) == {"dmb oshld", "dmb oshst"}, name
        counts = [barriers.count(kind) for kind in ("dmb oshld", "dmb oshst")]
        assert counts == [1, 1] if name == "_memory" else min(counts) >= least, (name, counts)
