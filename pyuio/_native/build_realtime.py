# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._realtime`: what real time needs of the kernel and the C library (cffi, API mode).

The C is in ``realtime.c`` and ``watch.c``, the part of it that Python sees in ``realtime.h``.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffi = FFI()
# cffi's own parser knows no preprocessor: what it reads is the part of the header between the two marks.
ffi.cdef((HERE / "realtime.h").read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._realtime",
    '#include "realtime.h"',
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=["pyuio/_native/realtime.c", "pyuio/_native/watch.c"],
    include_dirs=["pyuio/_native"],
    depends=["pyuio/_native/realtime.h"],
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
