# SPDX-License-Identifier: MIT
"""Has LeakSanitizer look once in each program of Python, at its end. Python imports this module when it starts.

By itself, LeakSanitizer looks when any process ends, and when Python has given up much memory for the system to free.
That takes long, and it finds no end of leaks that are CPython's. In a forked child it looks for the parent's threads,
which are not there ("Running thread was not suspended"), and what it finds then may not be a leak.
"""

from __future__ import annotations

import atexit
import ctypes
import os


def look(program: int) -> None:
    """Report the blocks that nothing refers to, while all that Python refers to is still there.

    Args:
        program: the process that started as a program; those forked from it do not look.
    """
    if os.getpid() == program:
        ctypes.CDLL(None).__lsan_do_recoverable_leak_check()


atexit.register(look, os.getpid())
