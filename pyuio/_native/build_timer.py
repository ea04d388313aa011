# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._timer`: waking up at a time, without the GIL (cffi, API mode).

The C is in ``timer.c``; Python sees the marked part of ``timer.h``.
"""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
COMPILED = runpy.run_path(str(HERE / "extensions.py"))

ffi = FFI()
# cffi's parser knows no preprocessor, so it reads only the part of the header between the two marks.
ffi.cdef((HERE / "timer.h").read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._timer",
    '#include "timer.h"',
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=[f"pyuio/_native/{name}.c" for name in COMPILED["CFFI"]["_timer"]],
    include_dirs=["pyuio/_native"],
    depends=["pyuio/_native/timer.h"],
    extra_compile_args=list(COMPILED["CFFI_OPTIONS"]),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
