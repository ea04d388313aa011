# SPDX-License-Identifier: MIT
"""A check of the doctor, and its finding."""

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
    """The result of one check.

    Attributes:
        name: of the check, the same on every box: "clock_source".
        subject: the group of the check: "processors".
        state: "good"; "advice" (costs latency); "blocks" (part of a driver cannot work); "unknown" (cannot be told).
        found: what the check found, or why it cannot tell.
        why: why it matters.
        remedy: what to do, a command or a setting; "" if there is nothing to do.
    """

    name: str
    subject: str
    state: State
    found: str
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Answer:
    """The answer of a check: the part of a `Finding` that depends on the box."""

    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A check of this box or of a device.

    Attributes:
        name, subject, why: as in `Finding`.
        look: does the check. It gets the named device, or None. It returns None if the check does not apply.
    """

    name: str
    subject: str
    why: str
    look: Callable[[FoundDevice | None], Answer | None]

    def run(self, device: FoundDevice | None) -> Finding | None:
        """Do the check and return its finding; None if it does not apply. An error gives "unknown" with the reason."""
        try:
            answer = self.look(device)
        except (PyuioError, OSError, ValueError, subprocess.SubprocessError) as error:
            as_root = "run pyuio doctor as root" if isinstance(error, PermissionError) and os.geteuid() else ""
            answer = Answer("unknown", _message(error), as_root)
        if answer is None:
            return None
        return Finding(self.name, self.subject, answer.state, answer.found, self.why, answer.remedy)


def _message(error: Exception) -> str:
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
    """Return the answer that the check cannot tell."""
    return Answer("unknown", reason, remedy)


def box(look: Callable[[], Answer | None]) -> Callable[[FoundDevice | None], Answer | None]:
    """Return a `look` function for `Check` from one that examines only the box."""
    return lambda _: look()


def counted(items: list[str], most: int = 8) -> str:
    """Return the items for a message, separated by commas; after the first `most`, only how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
