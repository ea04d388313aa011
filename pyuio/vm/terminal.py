# SPDX-License-Identifier: MIT
"""The terminal that this program runs on."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator


def standard_terminals() -> list[int]:
    """Return which of the standard streams 0, 1 and 2 are a terminal that this program may use now.

    Standard input counts only in the foreground: the kernel stops a background job that touches its terminal. Without
    script(1), which makes the terminal in the guest, none counts.
    """
    if shutil.which("script") is None:
        return []
    found = [fd for fd in (0, 1, 2) if os.isatty(fd)]
    with contextlib.suppress(OSError):
        if 0 in found and os.tcgetpgrp(0) != os.getpgrp():
            found.remove(0)
    return found


def size() -> tuple[int, int]:
    """Return the terminal's rows and columns."""
    for fd in (1, 0, 2):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            if rows and columns:
                return rows, columns
    return 24, 80


@contextlib.contextmanager
def restored(fd: int) -> Iterator[None]:
    """Restore the terminal's present mode when the block is left, whatever happens."""
    before = termios.tcgetattr(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def pass_keys(fd: int, *, interrupts: bool) -> None:
    """Pass every key to the guest, whose own terminal handles it.

    Args:
        fd: The terminal's file descriptor.
        interrupts: Whether Ctrl-C goes to the guest, too; otherwise it interrupts this program.
    """
    tty.setraw(fd, termios.TCSADRAIN)
    if not interrupts:
        mode = termios.tcgetattr(fd)
        mode[3] |= termios.ISIG
        for key in (termios.VQUIT, termios.VSUSP):
            mode[6][key] = b"\0"
        termios.tcsetattr(fd, termios.TCSADRAIN, mode)


class Progress:
    """One line on standard error while the guest boots, if standard error is a terminal."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown and os.isatty(2)
        self._drawn = False
        self._start = time.monotonic()

    def tick(self) -> None:
        """Show the time since the beginning."""
        if self._shown:
            self._drawn = True
            self._write(f"\rbooting the guest, {time.monotonic() - self._start:.0f} s ")

    def clear(self) -> None:
        """Remove the line, to make room for other text or for good."""
        if self._drawn:
            self._drawn = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
