# SPDX-License-Identifier: MIT
"""What differs from this virtual environment in a guest with another processor: Python, and compiled packages."""

from __future__ import annotations

import importlib.metadata
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyuio.vm import apt, cache, native_build
from pyuio.vm.architecture import Architecture
from pyuio.vm.errors import GuestStartError, KernelError

PIP_TIME_LIMIT = 1800.0  # seconds
_BUILD_TIME_LIMIT = 300.0
# The C libraries for which packages on PyPI are compiled; Debian 12 has 2.36.
_MANYLINUX = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37)))


def _compiled_distributions() -> Iterator[importlib.metadata.Distribution]:
    """Yield the packages of this environment, other than pyuio, that have compiled parts."""
    for distribution in importlib.metadata.distributions(path=[sysconfig.get_path("platlib")]):
        if distribution.metadata["Name"] != "pyuio-framework" and any(
            file.suffix == ".so" for file in distribution.files or ()
        ):
            yield distribution


def prepare(
    architecture: Architecture, tree: Path, python: tuple[int, int], base: Path, say: cache.Say, refresh: bool
) -> Path:
    """Return the directory of what is laid over this virtual environment; make it unless it is there.

    Args:
        architecture: The guest's processor.
        tree: The guest's system, which has Python's and the C library's headers.
        python: The version of its Python.
        base: Where the directory is kept, with others.
        say: Called with a line of text before each step that takes long.
        refresh: Check the content of every file, not only its size.

    Raises:
        GuestStartError: Python here is of another version or not in a virtual environment, or pip does not find cffi.
    """
    if sys.prefix == sys.base_prefix:
        raise GuestStartError(
            f"a guest for {architecture.name} needs pyuio in a virtual environment, whose packages it takes for it: "
            "python3 -m venv .venv && .venv/bin/pip install ..."
        )
    if python != sys.version_info[:2]:
        here = ".".join(map(str, sys.version_info[:2]))
        there = ".".join(map(str, python))
        raise GuestStartError(
            f"this environment has Python {here}, and Debian's for {architecture.name} is {there}: make the "
            f"environment with python{there}"
        )
    wanted = sorted(f"{one.metadata['Name']}=={one.version}" for one in _compiled_distributions())
    final = (
        base / f"environment-{cache.key(architecture.name, python, sys.prefix, wanted, Path(__file__).read_bytes())}"
    )
    if cache.check(final, thorough=refresh) is None:
        with cache.locked(base, say):
            if cache.check(final, thorough=refresh) is None:
                with cache.staging(base) as stage:
                    _make(stage / "venv", architecture, tree, python, wanted, say)
                    cache.finish(stage, final, {})
                    cache.remove_unused(base, "environment")
    return cache.use(final) / "venv"


def _make(
    directory: Path, architecture: Architecture, tree: Path, python: tuple[int, int], wanted: list[str], say: cache.Say
) -> None:
    version = f"{python[0]}.{python[1]}"
    (directory / "bin").mkdir(parents=True)
    for name in ("python", "python3", f"python{version}"):
        (directory / "bin" / name).symlink_to(f"/usr/bin/python{version}")
    (directory / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    site = directory / f"lib/python{version}/site-packages"
    say(f"fetching {len(wanted)} compiled Python packages for {architecture.name} (once)")
    try:
        _install(wanted, site, architecture, python)
    except KernelError:
        for requirement in wanted:
            try:
                _install([requirement], site, architecture, python)
            except KernelError as error:
                if requirement.startswith("cffi=="):  # pyuio itself needs it, and it needs libffi
                    raise GuestStartError(str(error)) from error
                _build(requirement, site, architecture, tree, python, say)


def _install(wanted: list[str], site: Path, architecture: Architecture, python: tuple[int, int]) -> None:
    """Have pip install packages that were compiled for another processor."""
    platforms = [f"--platform={tag}_{architecture.processor}" for tag in (*_MANYLINUX, "linux")]
    version = f"--python-version={python[0]}.{python[1]}"
    options = ["--only-binary=:all:", "--no-deps", "--no-warn-conflicts", "--upgrade", "--quiet"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    apt.run([*pip, version, *platforms, "--target", str(site), *wanted], PIP_TIME_LIMIT)


def _build(
    requirement: str, site: Path, architecture: Architecture, tree: Path, python: tuple[int, int], say: cache.Say
) -> None:
    """Have pip compile and install a package that is not there for that processor; say so if the guest does without."""
    compiler = " ".join(native_build.compiler(architecture, tree))
    # What setuptools goes by: the compiler, the headers, and the names of wheel and module.
    variables = [
        f"CC={compiler}",
        f"LDSHARED={compiler} -shared",
        f"CFLAGS=-I{tree}/usr/include/python{python[0]}.{python[1]}",
        f"_PYTHON_HOST_PLATFORM=linux-{architecture.processor}",
        f"SETUPTOOLS_EXT_SUFFIX=.cpython-{python[0]}{python[1]}-{architecture.triplet}.so",
    ]
    name = requirement.partition("==")[0]
    say(f"compiling {requirement} for {architecture.name} (once)")
    try:
        with tempfile.TemporaryDirectory() as directory:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--quiet"]
            options = [f"--no-binary={name}", f"--wheel-dir={directory}"]
            apt.run(["env", *variables, *pip, *options, requirement], _BUILD_TIME_LIMIT)
            _install([str(wheel) for wheel in Path(directory).iterdir()], site, architecture, python)
    except KernelError:
        say(f"the guest does without {requirement}, which pip neither finds nor compiles for {architecture.name}")
