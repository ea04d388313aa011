# SPDX-License-Identifier: MIT
"""Running a module of Python in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

# What ``python -m`` does, but for the current directory: there, another user may have put a json.py.
_RUN = """import sys
sys.path = [*filter(None, sys.path), {path!r}]
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def command(name: str) -> list[str]:
    """Return the words that run a module by this program's Python; arguments may follow.

    It imports from where any program of this Python does (PYTHONPATH, site-packages), and pyuio from where this program
    has it. It imports nothing from the current directory by itself.
    """
    return [sys.executable, "-c", _RUN.format(path=str(Path(__file__).parents[2])), name]
