# SPDX-License-Identifier: MIT
"""The kernel's log, as ``/dev/kmsg`` has it: Documentation/ABI/testing/dev-kmsg."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_KMSG = Path("/dev/kmsg")
_ESCAPED = re.compile(r"(?:\\x[0-9a-f]{2})+")  # bytes that are not printable ASCII, and the backslash
_LONGEST = 8192  # bytes; CONSOLE_EXT_LOG_MAX in kernel/printk/internal.h


class Message(NamedTuple):
    """A line of the log.

    Attributes:
        time: seconds since the start of the machine.
        text: what ``dmesg`` shows behind the time.
    """

    time: float
    text: str


def parse_record(record: str) -> Message | None:
    """Return the message of a record, ``6,1234,1559209,-;text``; None if it has another form."""
    head, separator, rest = record.partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 4 or not fields[2].isdecimal():
        return None
    line = rest.partition("\n")[0]
    text = _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace(r"\x", "")).decode(errors="replace"), line)
    return Message(int(fields[2]) / 1e6, text)


def messages() -> list[Message]:
    """Return what the log still has, oldest first. OSError: this user may not read it, or there is no such file."""
    found: list[Message] = []
    file = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(file, _LONGEST)
            except BrokenPipeError:  # the log has lost what came next
                continue
            except BlockingIOError:
                return found
            message = parse_record(record.decode(errors="replace"))
            if message is not None:
                found.append(message)
    finally:
        os.close(file)
