# SPDX-License-Identifier: MIT
"""What a check is, and what it finds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pyuio.errors import PyuioError
from pyuio.pci.discovery import FoundDevice

State = Literal["good", "advice", "blocks", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the check, the same on every box: "clock_source".
        subject: the group that it belongs to: "processors".
        state: "good"; "advice" (costs latency); "blocks" (part of a driver cannot work); "unknown" (could not be told).
        found: what was found, or why it could not be told.
        why: why it matters.
        remedy: what to do, a command or a setting; "" when there is nothing to do.
    """

    name: str
    subject: str
    state: State
    found: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Answer:
    """What a check says: the part of a `Finding` that is not the same on every box."""

    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """Something to look at.

    Attributes:
        name, subject, why: as in `Finding`.
        look: does it, for this box and the device that was named, if one was; None when it has nothing to say of them.
    """

    name: str
    subject: str
    why: str
    look: Callable[[FoundDevice | None], Answer | None]

    def run(self, device: FoundDevice | None) -> Finding | None:
        """Look, and return what was found; what goes wrong on the way is a finding, too: "unknown", with the reason."""
        try:
            answer = self.look(device)
        except (PyuioError, OSError, ValueError, subprocess.SubprocessError) as error:
            as_root = "run pyuio doctor as root" if isinstance(error, PermissionError) and os.geteuid() else ""
            answer = Answer("unknown", _told(error), as_root)
        if answer is None:
            return None
        return Finding(self.name, self.subject, answer.state, answer.found, self.why, answer.remedy)


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def good(found: str) -> Answer:
    """Return the answer that all is well."""
    return Answer("good", found)


def advice(found: str, remedy: str) -> Answer:
    """Return the answer that something costs latency."""
    return Answer("advice", found, remedy)


def blocks(found: str, remedy: str) -> Answer:
    """Return the answer that part of a driver cannot work."""
    return Answer("blocks", found, remedy)


def unknown(reason: str, remedy: str = "") -> Answer:
    """Return the answer that it could not be told."""
    return Answer("unknown", reason, remedy)


def box(look: Callable[[], Answer | None]) -> Callable[[FoundDevice | None], Answer | None]:
    """Return a check's `look` from one that concerns the box, whatever the device."""
    return lambda _: look()


def counted(items: list[str], most: int = 8) -> str:
    """Return items for a message, with commas; the rest as a number when there are more than `most`."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
