# SPDX-License-Identifier: MIT
"""An access after which the kernel sends SIGBUS raises `BusError`: here the file under a mapping has lost its pages."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio._native._access import Presence
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import NominalMasking
from pyuio.interrupt.vfio_interrupt import eventfd_interrupt
from pyuio.program import Read, While, Write
from pyuio.program.run import run_once
from pyuio.region import Region
from pyuio.service import Service
from tests.unit.support import SIZE, WIDTHS

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="accesses are guarded on x86-64 and arm64"
)


class Status(pyuio.Register):
    busy = pyuio.Field(0)


class Registers(pyuio.RegisterMap):
    status = Status(0x10)


@pytest.fixture
def region(path: Path) -> Region:
    """A region whose pages are gone, after an access that was answered."""
    made = Region(path, SIZE, name="d bar0")
    assert made.read32(0) == 0x03020100
    os.truncate(path, 0)
    return made


def accesses(region: Region) -> dict[str, Callable[[], object]]:
    named: Any = Registers(region)
    found: dict[str, Callable[[], object]] = {}
    for bits in WIDTHS:
        for verb, values in {"read": (), "write": (1,), "update": (1, 1), "set": (1,), "clear": (1,)}.items():
            method = getattr(region, f"{verb}{bits}")
            found[method.__name__] = lambda method=method, values=values: method(0x10, *values)  # type: ignore[misc]
        found[f"run of reads, {bits}"] = lambda bits=bits: region.read(0x10, 16, bits // 8)  # type: ignore[misc]
        found[f"run of writes, {bits}"] = lambda bits=bits: region.write(0x10, bytes(16), bits // 8)  # type: ignore[misc]
    return found | {
        "poll32": lambda: region.poll32(0x10, 1, 1, 1),
        "register": named.status.read,
        "writing a register": lambda: named.status.write(1),
        "field": lambda: named.status.busy,
        "setting a field": lambda: setattr(named.status, "busy", 1),
    }


def test_every_access(region: Region) -> None:
    for name, access in accesses(region).items():
        with pytest.raises(pyuio.BusError, match="at offset 0x10: the bus answered with an error") as caught:
            access()
        assert caught.value.errno == 14, name
        assert str(caught.value).count("d bar0: "), name
    with pytest.raises(pyuio.BusError, match="d bar0: 16-bit write at offset 0x10"):
        region.write16(0x10, 1)


def test_the_region_goes_on_where_there_is_an_answer(region: Region, path: Path) -> None:
    for _ in range(3):
        with pytest.raises(pyuio.BusError):
            region.read32(0)
        os.truncate(path, SIZE)
        region.write32(0, 0x12345678)
        assert region.read32(0) == 0x12345678
        os.truncate(path, 0)


def test_programs(region: Region, path: Path) -> None:
    programs = (
        [Read("a", region, 0)],
        [Write(region, 0, 1)],
        [Write(region, offset, 1) for offset in range(0, 64, 4)],
        [Read("a", region, 0x10), Write(region, 0, 2)],
    )
    for program in programs:
        with pytest.raises(pyuio.BusError, match="d bar0: an access of a program"):
            run_once(program, Presence("d"), time)
    os.truncate(path, SIZE)
    program = [Read("a", region, 0), While("a", 0xFF, 0, [Read("a", region, 0)], most=3)]
    assert run_once(program, Presence("d"), time)[0].values == {"a": 0}


def test_a_program_names_all_regions_that_it_accesses(region: Region, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(bytes(SIZE))
    other = Region(tmp_path / "other", SIZE, name="d bar1")
    with pytest.raises(pyuio.BusError, match="d bar0 or d bar1: an access of a program"):
        run_once([Read("a", region, 0), Read("b", other, 0), Read("c", region, 0)], Presence("d"), time)


@pytest.mark.parametrize("config", [bytes(64), b"\xff" * 64], ids=["there", "gone"])
def test_a_service_asks_whether_the_device_is_gone(region: Region, tmp_path: Path, config: bytes) -> None:
    (tmp_path / "config").write_bytes(config)
    presence = Presence("d")
    with (tmp_path / "config").open("rb") as file:
        presence.ask_config(file.fileno())
    request = os.eventfd(0)
    eventfd, native = eventfd_interrupt(request)
    interrupt = Interrupt(native, NominalMasking(), "d", presence, "MSI")
    gone = config[0] == 0xFF
    with Service(interrupt, [Read("a", region, 0)]) as service:
        os.eventfd_write(eventfd, 1)
        assert len(service.read(30)) == 1
        with pytest.raises(pyuio.DeviceRemovedError if gone else pyuio.BusError):
            service.read(30)
    assert presence.gone is gone
    interrupt.close()
    os.close(request)


# The program has a handler, which gets a signal that somebody sends.
HANDLED = """
import os, pathlib, signal, sys, tempfile
from pyuio.region import Region
count = 0
def handler(number, frame):
    global count
    count += 1
signal.signal(signal.SIGBUS, handler if sys.argv[1] == "handled" else signal.SIG_IGN)
file = tempfile.NamedTemporaryFile(dir="/dev/shm")
os.truncate(file.name, 4096)
region = Region(pathlib.Path(file.name), 256, name="d")
for _ in range(3):
    os.kill(os.getpid(), signal.SIGBUS)
os.truncate(file.name, 0)
try:
    region.read32(0)
except OSError as error:
    print(type(error).__name__, count, flush=True)
"""

# A region is made, and something else is not answered: by a plain view of the memory.
PROGRAM = """
import ctypes, faulthandler, mmap, os, pathlib, sys, tempfile
from pyuio.region import Region
file = tempfile.NamedTemporaryFile(dir="/dev/shm")
os.truncate(file.name, 4096)
def enable(when):
    if when in sys.argv[1:]:
        faulthandler.enable()
enable("before")
region = Region(pathlib.Path(file.name), 256, name="d")
enable("between")
if "again" in sys.argv[1:]:
    region = Region(pathlib.Path(file.name), 256, name="d")
os.truncate(file.name, 0)
if "guarded" in sys.argv[1:]:
    try:
        region.read32(0)
    except OSError as error:
        print(type(error).__name__, flush=True)
if "sent" in sys.argv[1:]:
    os.kill(os.getpid(), 7)
if "instruction" in sys.argv[1:]:
    code = os.memfd_create("code")
    os.truncate(code, 4096)
    page = mmap.mmap(code, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    function = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    os.truncate(code, 0)
    function()
print(memoryview(region.mmio.mapping)[0])
"""


@pytest.mark.parametrize(
    "words",
    [
        *["", "before", "between again", "before between again", "sent", "before sent", "between again sent"],
        *["instruction", "before instruction", "between again instruction"],
    ],
)
def test_other_faults_end_the_program(words: str) -> None:
    """As without pyuio; faulthandler says its piece once, whoever was there first."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "guarded", *words.split()],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:handle_sigbus=0"},
        check=False,
    )
    assert done.returncode == -signal.SIGBUS, done.stderr
    assert done.stdout == "BusError\n"
    assert (done.stderr.count("Fatal Python error: Bus error") >= 1) is ("be" in words), done.stderr


@pytest.mark.parametrize(("kind", "count"), [("handled", 3), ("ignored", 0)])
def test_accesses_are_guarded_after_a_signal_that_was_sent(kind: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLED, kind], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"BusError {count}\n"), done.stderr
