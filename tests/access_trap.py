# SPDX-License-Identifier: MIT
"""Counts accesses to a page by having the processor trap each of them; access_trap.c beside this file does it."""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import capstone
import pytest
from capstone import x86

from tests.shared_library import compiled

PROCESSORS = {
    "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
}
PROCESSOR = platform.machine()
needs_trap = pytest.mark.skipif(
    sys.platform != "linux" or PROCESSOR not in PROCESSORS, reason=f"the access trap is for {', '.join(PROCESSORS)}"
)
# The widths of arm64's registers, by the first letter of their names.
ARM64_BITS = {"w": 32, "x": 64, "b": 8, "h": 16, "s": 32, "d": 64, "q": 128}
PAGE = mmap.PAGESIZE
SOURCE = Path(__file__).with_suffix(".c").read_text()


class Access(NamedTuple):
    """One access to the page: "read" or "write", where, and how wide by the operand of the instruction."""

    kind: str
    offset: int
    bits: int


class Event(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("write", ctypes.c_uint64), ("instruction", ctypes.c_uint8 * 16))


class Trap:
    """A page, the first of a mapping, on which every access is recorded while a call runs."""

    def __init__(self, memory: mmap.mmap, library: ctypes.CDLL) -> None:
        self.memory = memory
        self._library = library
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self._events = (Event * 4096)()
        self._disassembler = capstone.Cs(*PROCESSORS[PROCESSOR])
        self._disassembler.detail = True

    def record(self, call: Callable[..., object], *arguments: object) -> list[Access]:
        start, size = ctypes.c_void_p(self._start), ctypes.c_size_t(PAGE)
        assert self._library.trap_arm(start, size) == 0
        try:
            call(*arguments)
        finally:
            count = self._library.trap_disarm(self._events, len(self._events))
        assert count <= len(self._events)
        return [access for event in self._events[:count] for access in self._decode(event)]

    def _decode(self, event: Event) -> list[Access]:
        instruction = next(self._disassembler.disasm(bytes(event.instruction), 0))
        if PROCESSOR == "aarch64":
            return _decode_arm64(instruction, event)
        flag = capstone.CS_AC_WRITE if event.write else capstone.CS_AC_READ
        operands = [operand for operand in instruction.operands if operand.type == x86.X86_OP_MEM]
        # A string instruction has two; and the fault knows better than capstone, which takes a masked store for a read.
        operand = next((one for one in operands if one.access & flag), operands[0])
        if operand.access == capstone.CS_AC_READ | capstone.CS_AC_WRITE:  # changes memory in place
            kinds = ["read", "write"]
        else:
            kinds = ["write" if event.write else "read"]
        return [Access(kind, event.offset, operand.size * 8) for kind in kinds]


def _decode_arm64(instruction: Any, event: Event) -> list[Access]:
    """Return the accesses of a load or store: the width is in its name (ldrb, ldrh, ldrsw), or that of its register."""
    name = re.match(r"(?:ldu?r|stu?r|ldp|stp|ldnp|stnp)(?:s?(b|h)|sw)?$", instruction.mnemonic)
    assert name is not None, f"{instruction.mnemonic} {instruction.op_str} accesses memory in a way unknown here"
    bits = {"b": 8, "h": 16}.get(name[1]) or ARM64_BITS[instruction.op_str[0]]
    if instruction.mnemonic.endswith("sw"):
        bits = 32
    times = 2 if "p" in instruction.mnemonic else 1
    kind = "write" if event.write else "read"
    return [Access(kind, event.offset + number * bits // 8, bits) for number in range(times)]


def build(directory: Path) -> ctypes.CDLL:
    """Load the trap, compiling it in a directory if that was not done before."""
    return ctypes.CDLL(str(compiled("access_trap", SOURCE, directory)))
