# SPDX-License-Identifier: MIT
"""The compiled parts; everything else is in pyproject.toml."""

from setuptools import Extension, setup

ACCESS_HEADERS = [
    f"pyuio/_native/{name}.h" for name in ("access_bus", "access_check", "clipped", "main_interpreter", "presence")
]

setup(
    ext_modules=[
        Extension(
            "pyuio._native._access",
            sources=["pyuio/_native/_access.c", "pyuio/_native/presence.c"],
            depends=[*ACCESS_HEADERS, "pyuio/_native/access_run.h"],
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._registers",
            sources=["pyuio/_native/_registers.c"],
            depends=ACCESS_HEADERS,
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._memory",
            sources=["pyuio/_native/_memory.c"],
            depends=["pyuio/_native/clipped.h", "pyuio/_native/main_interpreter.h"],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"],
        ),
    ],
    cffi_modules=[
        "pyuio/_native/build_waiting.py:ffi",
        "pyuio/_native/build_realtime.py:ffi",
        "pyuio/_native/build_timer.py:ffi",
    ],
)
