# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._waiting`: waiting for an interrupt in one call, without the GIL (cffi, API mode).

The C is in ``waiting.c`` and ``command.c``, the part of it that Python sees in ``waiting.h``.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffi = FFI()
# cffi's own parser knows no preprocessor: what it reads is the part of the header between the two marks.
ffi.cdef((HERE / "waiting.h").read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._waiting",
    '#include "waiting.h"',
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=["pyuio/_native/waiting.c", "pyuio/_native/command.c"],
    include_dirs=["pyuio/_native"],
    depends=["pyuio/_native/waiting.h", "pyuio/_native/command.h"],
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
