# SPDX-License-Identifier: MIT
"""The compiled parts, and where the packages are; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

# drivers/ installs as pyuio_drivers, and benchmarks/ as pyuio_benchmarks.
DIRECTORIES = {"pyuio": "pyuio", "pyuio_drivers": "drivers", "pyuio_benchmarks": "benchmarks"}
PACKAGES = [*DIRECTORIES, *(f"{name}.{inner}" for name, path in DIRECTORIES.items() for inner in find_packages(path))]


def editable_directory() -> str:
    """Make a directory with a link for each package under its own name, and return its path.

    For names that differ from their directories' setuptools would install an import hook. It costs every start 15 ms,
    mypy does not know it, and beside the clone Python finds the clone's directory, which has the package's name, first.
    A directory on `sys.path` has none of these faults.
    """
    links = Path(".editable")
    links.mkdir(parents=True, exist_ok=True)
    for name, directory in DIRECTORIES.items():
        link = links / name
        if not link.is_symlink():
            link.symlink_to(Path("..", directory), target_is_directory=True)
    return str(links)


ACCESS_HEADERS = [
    f"pyuio/_native/{name}.h" for name in ("access_bus", "access_check", "clipped", "main_interpreter", "removal")
]
WAITING_HEADERS = [f"pyuio/_native/{name}.h" for name in ("command_register", "interrupt")]

setup(
    packages=PACKAGES,
    package_dir={"": editable_directory()} if "editable_wheel" in sys.argv else DIRECTORIES,
    ext_modules=[
        Extension(
            "pyuio._native._access",
            sources=["pyuio/_native/_access.c", "pyuio/_native/presence.c"],
            depends=[*ACCESS_HEADERS, "pyuio/_native/access_block.h"],
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._registers",
            sources=["pyuio/_native/_registers.c"],
            depends=ACCESS_HEADERS,
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._program",
            sources=["pyuio/_native/_program.c"],
            depends=[*ACCESS_HEADERS, "pyuio/_native/program.h", *WAITING_HEADERS],
            extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._reader",
            sources=["pyuio/_native/_reader.c"],
            depends=[*ACCESS_HEADERS, *WAITING_HEADERS],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"],
        ),
        Extension(
            "pyuio._native._memory",
            sources=["pyuio/_native/_memory.c"],
            depends=["pyuio/_native/clipped.h", "pyuio/_native/main_interpreter.h"],
            extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra"],
        ),
    ],
    cffi_modules=[
        "pyuio/_native/build_interrupt.py:ffi",
        "pyuio/_native/build_realtime.py:ffi",
        "pyuio/_native/build_timer.py:ffi",
    ],
)
