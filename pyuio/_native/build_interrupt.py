# SPDX-License-Identifier: MIT
"""Builds `pyuio._native._interrupt`: waiting for an interrupt and serving it, without the GIL (cffi, API mode).

The C is in the files named below; Python sees the marked part of their headers.
"""

import runpy
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
COMPILED = runpy.run_path(str(HERE / "extensions.py"))
# In this order: each uses types of those before it.
PYTHON_SEES = ("command_register", "interrupt", "program", "service")
HEADERS = (*PYTHON_SEES, "access_bus", "interrupt_state", "syscall_breaker")

ffi = FFI()
# cffi's parser knows no preprocessor, so it reads only the part of each header between the two marks.
for name in PYTHON_SEES:
    ffi.cdef((HERE / f"{name}.h").read_text().split("/* cdef */")[1])
ffi.set_source(
    "pyuio._native._interrupt",
    '#include "service.h"',
    # Relative: setuptools accepts no absolute path, and builds from the project's root.
    sources=[f"pyuio/_native/{name}.c" for name in COMPILED["CFFI"]["_interrupt"]],
    include_dirs=["pyuio/_native"],
    depends=[f"pyuio/_native/{name}.h" for name in HEADERS],
    extra_compile_args=list(COMPILED["CFFI_OPTIONS"]),
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
