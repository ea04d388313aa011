# SPDX-License-Identifier: MIT
"""The place of a register, as people write it: ``bar0+0x24``, ``map0+4``, ``config+4``, ``bar0.status.computing``."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORMS = (
    "bar0 to bar5 or config, with an offset in bytes, as in bar0+0x24 or config+4, or a name, as in bar0.status; of a "
    "UIO node, map0 and so on or a map's name, as in map0+0x24 or regs+0x24"
)

_SPACE = re.compile(r"(bar[0-9]+|config)\s*(?:([+.])\s*(.*))?", re.IGNORECASE | re.ASCII)
# A map whose name has other characters is to be given by its index.
_MAP = re.compile(r"(?!bar(?:[^A-Za-z_]|$))([A-Za-z_][A-Za-z0-9_@:-]*)\s*(?:([+.])\s*(.*))?", re.ASCII)
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[[0-9]+\])*(?:\.[A-Za-z_][A-Za-z0-9_]*(?:\[[0-9]+\])*)*")


def parse_number(text: str, what: str) -> int:
    """Return a number from 0 up, in decimal or with the prefix 0x, 0o or 0b; ``_`` may stand between digits.

    Args:
        text: the number.
        what: the name of the number in the message.

    Raises:
        ValueError: the text is not such a number.
    """
    try:
        number = int(text, 0) if text.isascii() else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"{what} is a number from 0, in decimal or as in 0x24 or 0b101; not {text!r}")
    return number


@dataclass(frozen=True)
class Location:
    """A place in a BAR, in a map of a UIO node, or in configuration space.

    Attributes:
        bar: 0 to 5, or None for a map and for configuration space.
        offset: in bytes; 0 if there is a name.
        name: of a register, or of a field of a register, with dots between; "" if there is an offset.
        map: the map, by its name or as ``map0``; "" for a BAR and for configuration space.
    """

    bar: int | None
    offset: int = 0
    name: str = ""
    map: str = ""

    @property
    def is_config(self) -> bool:
        """Whether it is in configuration space."""
        return self.bar is None and not self.map

    @property
    def space(self) -> str:
        """``bar0``, ``config``, ``map0``, or a map's name."""
        return self.map or ("config" if self.bar is None else f"bar{self.bar}")

    def at(self, offset: int, name: str = "") -> Location:
        """Return another place in the same BAR, map or configuration space."""
        return Location(self.bar, offset, name, self.map)

    def __str__(self) -> str:
        return f"{self.space}.{self.name}" if self.name else f"{self.space}+{self.offset:#04x}"


def parse_location(text: str) -> Location:
    """Return the place that `text` names.

    Raises:
        ValueError: the text has no such form; the message lists the forms.
    """
    match = _SPACE.fullmatch(text.strip()) or _MAP.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a place in a device; a place is {FORMS}")
    space, mark, rest = match.groups()
    if match.re is _MAP:
        where = Location(None, map=space)
    else:
        where = Location(None if space.lower() == "config" else int(space[3:]))
    if where.bar is not None and where.bar > 5:
        raise ValueError(f"{text!r}: a device has bar0 to bar5 at most")
    if mark == "+":
        return where.at(parse_number(rest, f"{text!r}: the offset"))
    if mark == ".":
        if where.is_config:
            raise ValueError(f"{text!r}: configuration space has no names here; pyuio info shows it decoded")
        if not _NAMES.fullmatch(rest):
            raise ValueError(f"{text!r}: after the dot comes a name, as in bar0.status or bar0.status.computing")
        return where.at(0, rest)
    return where
