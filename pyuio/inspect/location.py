# SPDX-License-Identifier: MIT
"""The place of a register, as people write it: ``bar0+0x24``, ``config+4``, ``bar0.status.computing``."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORMS = "bar0 to bar5 or config, with an offset in bytes, as in bar0+0x24 or config+4, or a name, as in bar0.status"

_SPACE = re.compile(r"(bar[0-9]+|config)\s*(?:([+.])\s*(.*))?", re.IGNORECASE | re.ASCII)
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
    """A place in a BAR or in configuration space.

    Attributes:
        bar: 0 to 5, or None for configuration space.
        offset: in bytes; 0 if there is a name.
        name: of a register of a BAR, or of a field of a register, with dots between; "" if there is an offset.
    """

    bar: int | None
    offset: int = 0
    name: str = ""

    @property
    def space(self) -> str:
        """``bar0`` or ``config``."""
        return "config" if self.bar is None else f"bar{self.bar}"

    def __str__(self) -> str:
        return f"{self.space}.{self.name}" if self.name else f"{self.space}+{self.offset:#04x}"


def parse_location(text: str) -> Location:
    """Return the place that `text` names.

    Raises:
        ValueError: the text has no such form; the message lists the forms.
    """
    match = _SPACE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a place in a device; a place is {FORMS}")
    space, mark, rest = match.groups()
    bar = None if space.lower() == "config" else int(space[3:])
    if bar is not None and bar > 5:
        raise ValueError(f"{text!r}: a device has bar0 to bar5 at most")
    if mark == "+":
        return Location(bar, parse_number(rest, f"{text!r}: the offset"))
    if mark == ".":
        if bar is None:
            raise ValueError(f"{text!r}: configuration space has no names here; pyuio info shows it decoded")
        if not _NAMES.fullmatch(rest):
            raise ValueError(f"{text!r}: after the dot comes a name, as in bar0.status or bar0.status.computing")
        return Location(bar, name=rest)
    return Location(bar)
