# SPDX-License-Identifier: MIT
"""What a card says about a driver that uses it wrongly."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from types import FrameType

_PYUIO = str(Path(__file__).parent.parent / "_").removesuffix("_")  # with the separator: pyuio_drivers is another
# Through these files a driver comes to a card. Named as Python names them, also where a link leads to the package.
_ENTRANCES = tuple(
    str(Path(__file__).with_name(name)) for name in ("region.py", "interrupt.py", "backend.py", "clock.py")
)
_GUEST_ENTRANCE = str(Path(__file__).resolve().with_name("loop.py"))  # behind it is a driver in another process


class Complaint(AssertionError):
    """A driver did what no driver of the card may do; real hardware would do something bad, or nothing, in silence."""


def driver_line() -> str:
    """Return the driver's line that led here, as ``edu.py:120, in start: self.registers.go.write(1)``; or ""."""
    frame: FrameType | None = sys._getframe(1)
    line = ""
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _GUEST_ENTRANCE:
            return ""
        if name in _ENTRANCES:
            line = ""  # what came before was the card's own
        elif not line and not name.startswith((_PYUIO, "<")):
            line = line_of(frame)
        frame = frame.f_back
    return line


def line_of(frame: FrameType) -> str:
    """Return the line that a frame is at, as ``edu.py:120, in start: self.registers.go.write(1)``."""
    name = frame.f_code.co_filename
    text = linecache.getline(name, frame.f_lineno).strip()
    return f"{Path(name).name}:{frame.f_lineno}, in {frame.f_code.co_name}: {text}"
