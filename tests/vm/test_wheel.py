# SPDX-License-Identifier: MIT
"""A wheel, made from a source distribution, in a virtual environment that knows neither the clone nor a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import LIMIT, Vm

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # pip fetches much by name

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("_interrupt.c", "_realtime.c", "_timer.c")  # in pyuio/_native
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.so", "*.egg-info", *GENERATED)
COMPILER = re.compile(r"(.*-)?(cc|c\+\+|cpp|gcc|g\+\+|clang|clang\+\+|tcc|c[89]9)(-[0-9.]+)?")
INSTALL_LIMIT = 280  # seconds, for what pip fetches by name

EDU = """
import sys
from pyuio_drivers import edu
assert edu.__file__.startswith(sys.prefix), edu.__file__
with edu.Edu.open() as card:
    card.to_device(b"there")
    print(card.factorial_by_interrupt(5), bytes(card.from_device(5)))
"""


@dataclass
class Installed:
    """A virtual environment with the wheel in it, and a working directory that has nothing to do with the clone."""

    wheel: Path
    bin: Path
    directory: Path
    environment: dict[str, str]

    def run(self, *command: str, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
        program = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(
            program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment,
            timeout=limit,
            check=False,
        )


def without_compiler(directory: Path) -> str:
    """Make a directory with a link to each program of the PATH except the compilers; return it as the new PATH."""
    directory.mkdir()
    for place in [*os.get_exec_path(), "/usr/sbin", "/sbin"]:
        for program in sorted(Path(place).glob("*")):
            if not COMPILER.fullmatch(program.name) and not (directory / program.name).is_symlink():
                (directory / program.name).symlink_to(program)
    return str(directory)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    directory = tmp_path_factory.mktemp("elsewhere")
    source = directory / "source"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    # By default build makes the wheel from the source distribution, and not from the tree.
    command = [sys.executable, "-m", "build", "--outdir", str(directory / "dist"), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    shutil.rmtree(source)
    (wheel,) = (directory / "dist").glob("*.whl")
    assert len(list((directory / "dist").glob("*.tar.gz"))) == 1

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment.pop("VIRTUAL_ENV", None)
    environment["PATH"] = without_compiler(directory / "programs")
    assert shutil.which("cc", path=environment["PATH"]) is None
    subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True, timeout=LIMIT)
    made = Installed(wheel, directory / "venv/bin", directory, environment)
    done = made.run("python", "-m", "pip", "install", "--quiet", f"{wheel}[vm]", limit=INSTALL_LIMIT)
    assert done.returncode == 0, done.stderr[-2000:]
    return made


def test_the_wheel_has_everything_and_nothing_else(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"pyuio", "pyuio_drivers", "pyuio_benchmarks"}
    for package, directory in (("pyuio", "pyuio"), ("pyuio_drivers", "drivers"), ("pyuio_benchmarks", "benchmarks")):
        modules = {f"{package}/{path.relative_to(ROOT / directory)}" for path in (ROOT / directory).rglob("*.py")}
        assert modules == {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")}
    data = {
        "pyuio/py.typed",
        "pyuio/vm/guest_init.sh",
        "pyuio/vm/initramfs_init.sh",
        "pyuio_drivers/py.typed",
        *(f"pyuio/_native/{path.name}" for path in (ROOT / "pyuio/_native").glob("*.pyi")),
        *(f"pyuio_benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.c")),
    }
    # pyuio vm compiles these for a guest with another processor.
    native = {path.name for path in (ROOT / "pyuio/_native").glob("*.[ch]")} - {*GENERATED}
    data |= {f"pyuio/_native/{name}" for name in native}
    assert data <= set(names)
    assert not {name for name in names if name.endswith((".c", ".h"))} - data


def test_the_command_line_works(installed: Installed) -> None:
    where = installed.run("python", "-c", "import pyuio, pyuio_drivers; print(pyuio.__file__, pyuio_drivers.__file__)")
    assert where.returncode == 0, where.stderr
    assert all(path.startswith(str(installed.bin.parent)) for path in where.stdout.split())

    doctor = installed.run("pyuio", "doctor")
    assert doctor.returncode in (0, 1), doctor.stderr  # 1: something on this machine blocks a driver
    assert "uio_pci_generic" in doctor.stdout
    assert doctor.stderr == ""

    listed = installed.run("pyuio", "probe")
    assert listed.returncode == 0, listed.stderr


def test_what_an_extra_installs_is_asked_for(installed: Installed) -> None:
    bench = installed.run("pyuio", "bench", "timer", "--count", "1")
    assert (bench.returncode, bench.stdout) == (1, "")
    assert bench.stderr.startswith("pyuio: ")
    assert bench.stderr.endswith("pip install 'pyuio-framework[bench]'\n")
    assert "Traceback" not in bench.stderr


def test_edu_is_driven_in_the_guest(installed: Installed, vm: Vm) -> None:
    guest = ["pyuio", "vm", "run", "--qemu", f"-name {vm.mark}", "--device", "edu", "--"]
    done = installed.run(*guest, str(installed.bin / "python"), "-c", EDU)
    assert (done.returncode, done.stdout) == (0, "120 b'there'\n"), done.stderr

    done = installed.run(*guest, str(installed.bin / "pyuio"), "doctor")
    assert done.returncode in (0, 1), done.stderr
    assert "uio_pci_generic" in done.stdout
