# SPDX-License-Identifier: MIT
"""Helpers for the tests of named registers: register classes made on the fly, and accesses written in Python."""

from __future__ import annotations

from typing import Any

from pyuio import Register
from pyuio.registers.register import RegisterType


def kind(width: int, fields: dict[str, Any], access: Any = "rw") -> Any:
    """Return a class with these fields, made as by a class statement."""
    namespace = RegisterType.__prepare__("Made", (Register,))
    for name, field in fields.items():
        namespace[name] = field
    return RegisterType("Made", (Register,), namespace, width=width, access=access)


class Plain:
    """The methods that registers need, and no others, on bytes; `log` records each access."""

    def __init__(self, memory: bytes) -> None:
        self.memory = bytearray(memory)
        self.log: list[tuple[str, int, int]] = []

    def _read(self, bits: int, offset: Any) -> int:
        self.log.append(("read", offset, bits))
        return int.from_bytes(self.memory[offset : offset + bits // 8], "little")

    def _write(self, bits: int, offset: Any, value: Any) -> None:
        self.log.append(("write", offset, bits))
        self.memory[offset : offset + bits // 8] = value.to_bytes(bits // 8, "little")

    def read8(self, offset: Any, /) -> int:
        return self._read(8, offset)

    def read16(self, offset: Any, /) -> int:
        return self._read(16, offset)

    def read32(self, offset: Any, /) -> int:
        return self._read(32, offset)

    def read64(self, offset: Any, /) -> int:
        return self._read(64, offset)

    def write8(self, offset: Any, value: Any, /) -> None:
        self._write(8, offset, value)

    def write16(self, offset: Any, value: Any, /) -> None:
        self._write(16, offset, value)

    def write32(self, offset: Any, value: Any, /) -> None:
        self._write(32, offset, value)

    def write64(self, offset: Any, value: Any, /) -> None:
        self._write(64, offset, value)
