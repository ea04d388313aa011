# SPDX-License-Identifier: MIT
"""Names and helpers that the tests of register access share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyuio.region import PortRegion, Region

NAME = "BAR 0 of 0000:00:04.0"
SIZE = 256
WIDTHS = (8, 16, 32, 64)
VERBS = ("read", "write", "update", "set", "clear")


def ports(path: Path, size: int, kind: type[PortRegion] = PortRegion, **keywords: Any) -> PortRegion:
    """Return a PortRegion on a file that has the bytes as they are on the bus, as VFIO's does.

    Sysfs's has values in the processor's byte order: on a big-endian processor that is not the same.
    """
    with path.open("r+b", buffering=0) as file:
        return kind(path, size, file=file.fileno(), **keywords)


def widths(bar: Region | PortRegion) -> tuple[int, ...]:
    return WIDTHS if isinstance(bar, Region) else WIDTHS[:3]


def call(bar: Any, verb: str, bits: int, offset: Any, **keywords: Any) -> Any:
    """Call any method that makes one access, with valid arguments except for the offset."""
    arguments = {"read": (), "write": (1,), "update": (1, 1), "set": (1,), "clear": (1,)}[verb]
    return getattr(bar, f"{verb}{bits}")(offset, *arguments, **keywords)
