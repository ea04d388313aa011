# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._realtime`: the calls of the kernel and the C library for real time (cffi, API mode).

The C is in ``scheduling.c``, ``memory_lock.c`` and ``throttling.c``; Python sees the marked part of their headers.
"""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
COMPILED = runpy.run_path(str(HERE / "extensions.py"))
NAMES = COMPILED["CFFI"]["_realtime"]

ffi = FFI()
# cffi's parser knows no preprocessor, so it reads only the part of each header between the two marks.
for name in NAMES:
    ffi.cdef((HERE / f"{name}.h").read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._realtime",
    "".join(f'#include "{name}.h"\n' for name in NAMES),
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=[f"pyuio/_native/{name}.c" for name in COMPILED["CFFI"]["_realtime"]],
    include_dirs=["pyuio/_native"],
    depends=[f"pyuio/_native/{name}.h" for name in NAMES],
    extra_compile_args=list(COMPILED["CFFI_OPTIONS"]),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
