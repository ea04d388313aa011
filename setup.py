# SPDX-License-Identifier: MIT
"""The compiled parts, and where the packages are; everything else is in pyproject.toml."""

import runpy
import sys
from pathlib import Path

NATIVE = Path("pyuio/_native")
runpy.run_path(str(NATIVE / "__init__.py"))  # refuses a Python that importing pyuio refuses

from setuptools import Extension, find_packages, setup  # noqa: E402 - a refused Python need not have it

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


COMPILED = runpy.run_path(str(NATIVE / "extensions.py"))

setup(
    packages=PACKAGES,
    package_dir={"": editable_directory()} if "editable_wheel" in sys.argv else DIRECTORIES,
    ext_modules=[
        Extension(
            f"pyuio._native.{name}",
            sources=[f"{NATIVE}/{source}.c" for source in sources],
            depends=sorted(map(str, NATIVE.glob("*.h"))),
            extra_compile_args=list(COMPILED["OPTIONS"]),
        )
        for name, sources in COMPILED["CPYTHON"].items()
    ],
    cffi_modules=[f"{NATIVE}/build{name}.py:ffi" for name in COMPILED["CFFI"]],
)
