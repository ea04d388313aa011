# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._waiting`: waiting for an interrupt, and serving it, without the GIL (cffi, API mode).

The C is in ``waiting.c``, ``command.c``, ``serving.c``, ``kick.c`` and ``service.c``, what of it Python sees in
``waiting.h`` and ``service.h``.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffi = FFI()
# cffi's own parser knows no preprocessor: what it reads is the part of each header between the two marks.
for header in ("waiting.h", "service.h"):
    ffi.cdef((HERE / header).read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._waiting",
    '#include "service.h"',
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=[f"pyuio/_native/{name}.c" for name in ("waiting", "command", "serving", "kick", "service")],
    include_dirs=["pyuio/_native"],
    depends=[
        f"pyuio/_native/{name}.h" for name in ("waiting", "command", "interrupt", "kick", "service", "access_bus")
    ],
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
