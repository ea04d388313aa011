# SPDX-License-Identifier: MIT
"""Compiles pyuio's own parts in C for a guest with another processor, by a compiler for that processor here."""

from __future__ import annotations

import contextlib
import hashlib
import io
import runpy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyuio._native
from pyuio.vm import apt, cache
from pyuio.vm.architecture import Architecture
from pyuio.vm.errors import GuestStartError, KernelError

COMPILE_TIME_LIMIT = 120.0  # seconds for one module
SOURCES = Path(pyuio._native.__file__).resolve().parent


def prepare(
    architecture: Architecture, tree: Path, python: tuple[int, int], base: Path, say: Callable[[str], None]
) -> Path:
    """Return the directory of the compiled modules; compile them unless they are there and as new as their sources.

    Args:
        architecture: The processor.
        tree: The guest's system, which has Python's and the C library's headers.
        python: The version of its Python.
        base: Where the directory is kept, with others.
        say: Called with a line of text before each step that takes long.

    Raises:
        GuestStartError: There is no compiler, there are no sources, or they do not compile.
    """
    parts = runpy.run_path(str(SOURCES / "extensions.py"))
    names = {f"{name}.c" for group in (parts["CPYTHON"], parts["CFFI"]) for files in group.values() for name in files}
    sources = sorted([*SOURCES.glob("*.h"), *SOURCES.glob("[!_]*.py"), *(SOURCES / name for name in names)])
    digest = hashlib.sha256(repr((str(tree), python)).encode() + Path(__file__).read_bytes())
    for path in sources:
        digest.update(path.name.encode() + path.read_bytes())
    final = base / f"native-{digest.hexdigest()[:12]}"
    if cache.check(final) is None:
        with cache.locked(base, say):
            if cache.check(final) is None:
                say(f"compiling pyuio's C for {architecture.name} (once)")
                with cache.staging(base) as stage:
                    _compile(stage / "native", architecture, tree, python, parts)
                    cache.finish(stage, final, {})
                    cache.remove_unused(base, "native")
    return cache.use(final) / "native"


def compiler(architecture: Architecture, tree: Path) -> list[str]:
    """Return the words that begin a command of the compiler for a processor.

    Args:
        architecture: The processor.
        tree: The guest's system, which has the C library and its headers.

    Raises:
        GuestStartError: It is not installed.
    """
    name = f"{architecture.triplet}-gcc"
    if shutil.which(name) is None:
        package = f"gcc-{architecture.triplet.replace('_', '-')}"
        raise GuestStartError(
            f"{name} is not installed, which compiles pyuio for {architecture.name}: apt install {package}"
        )
    return [name, f"--sysroot={tree}"]


def _compile(
    directory: Path, architecture: Architecture, tree: Path, python: tuple[int, int], parts: dict[str, Any]
) -> None:
    begin = compiler(architecture, tree)
    directory.mkdir()
    with tempfile.TemporaryDirectory() as work:
        generated = {name: Path(work, f"{name}.c") for name in parts["CFFI"]}
        with contextlib.redirect_stdout(io.StringIO()):  # cffi says what it generates
            for name, path in generated.items():
                runpy.run_path(str(SOURCES / f"build{name}.py"))["ffi"].emit_c_code(str(path))
        include = [f"-I{tree}/usr/include/python{python[0]}.{python[1]}", f"-I{SOURCES}"]
        command = [*begin, "-shared", "-fPIC", *include]
        for name, names in {**parts["CPYTHON"], **parts["CFFI"]}.items():
            options = parts["CFFI_OPTIONS" if name in generated else "OPTIONS"]
            files = [
                *map(str, (generated[name],) if name in generated else ()),
                *(f"{SOURCES}/{one}.c" for one in names),
            ]
            module = directory / f"{name}.cpython-{python[0]}{python[1]}-{architecture.triplet}.so"
            try:
                apt.run([*command, *options, "-o", str(module), *files], COMPILE_TIME_LIMIT)
            except KernelError as error:
                raise GuestStartError(f"pyuio does not compile for {architecture.name}: {error}") from error
