# SPDX-License-Identifier: MIT
"""Shared libraries of C for tests, compiled before the guest starts: emulated, the C compiler takes up to a minute."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

KEPT = Path(__file__).resolve().parent.parent / "build/libraries"


def compiled(name: str, source: str, otherwise: Path, processor: str = "", compiler: Sequence[str] = ()) -> Path:
    """Return the library that was compiled from a source, compiling it if there is none.

    Args:
        name: what the file's name begins with.
        source: text in C.
        otherwise: a directory to compile it in, where build/libraries has none; that directory itself, to keep it.
        processor: the one that it is for, as ``uname -m`` prints it; by default this machine's.
        compiler: the words that begin the command of a compiler for that; by default those of this Python's.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    file = f"{name}-{digest}-{processor or platform.machine()}.so"
    kept = KEPT / file
    if kept.exists():
        return kept
    otherwise.mkdir(parents=True, exist_ok=True)
    library = otherwise / file
    compiler = compiler or (sysconfig.get_config_var("CC") or "cc").split()
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-x", "c", "-"]
    unfinished = library.with_suffix(".unfinished")
    subprocess.run([*compiler, "-o", unfinished, *options], input=source, text=True, check=True, timeout=120)
    unfinished.rename(library)
    return library
