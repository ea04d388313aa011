# SPDX-License-Identifier: MIT
"""Helpers with which the guest tests read the kernel without pyuio, and names that they share.

Programs that run beside tests import it, too: pytest, which takes 2 s to import under emulation, is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import dis
import functools
import gc
import importlib
import io
import linecache
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Any, ClassVar, NoReturn

from pyuio_drivers.edu import Direction, Edu

import pyuio
from pyuio import cli, installed_drivers
from pyuio.claim import binding
from pyuio.dma import Dma
from pyuio.kernel import preempt_rt
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI, bound_driver
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.sysfs import PCI_DEVICES
from tests import edu_mask  # noqa: F401  # it changes the driver

EDU = "1234:11e8"
E1000E = "8086:10d3"  # Intel 82574L
PCI_SERIAL = "1b36:0002"  # bound to the kernel's driver "serial" from the start
PCI_TESTDEV = "1b36:0005"  # no INTx pin
SDHCI = "1b36:0007"  # a BAR of 256 bytes
XHCI = "1b36:000d"  # PCI Express, a 64-bit BAR

PROCESSOR = os.uname().machine
REALTIME_KERNEL = preempt_rt.is_realtime()

# How the tests drive a card: where an IOMMU is on, through VFIO; else by UIO, by the driver that the variable names.
WITH_IOMMU = os.path.isdir("/sys/kernel/iommu_groups/0")  # noqa: PTH112
DRIVER = VFIO_PCI if WITH_IOMMU else os.environ.get("UIO_DRIVER", UIO_PCI_GENERIC)

IO_URING_SETUP, IO_URING_REGISTER = 425, 427  # system calls

_HANDLER_EXIT = Path("/sys/kernel/tracing/events/irq/irq_handler_exit")

BUS_MASTER, INTERRUPT_DISABLE = 1 << 2, 1 << 10  # in the command register

# Limits that no test is about. They are many times what a slow machine takes, and less than pytest allows a test.
PATIENCE = 60  # seconds for what another thread or process does
PROGRAM_LIMIT = 240  # seconds for a program that a test starts; killed, it would leave its card bound

PYUIO = [sys.executable, "-m", "pyuio.cli"]

Cards = Callable[[str], list[str]]
Later = Callable[[Callable[[], object]], threading.Thread]


def signals_come(frame: FrameType) -> bool:
    """Return whether Python may handle a signal at the traced line: at each but those that do nothing, such as `try:`.

    What a trace function raises there passes by the handlers of the whole function, and leaves a lock locked
    (https://github.com/python/cpython/issues/148278).
    """
    return frame.f_code.co_code[frame.f_lasti] != dis.opmap["NOP"]


def leaves_a_with(frame: FrameType, entered: set[int]) -> bool:
    """Return whether the traced line is that of a ``with`` that is left, which is traced once more.

    Python handles no signal there, and one that came all the same would leave what is entered, a lock
    (https://bugs.python.org/issue29988). `entered` is a set of the frame's own, empty at first.
    """
    if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
        return False
    left = frame.f_lineno in entered
    entered.add(frame.f_lineno)
    return left


@functools.cache
def load_command() -> None:
    """Import once, before forking, what commands import when they run, and make the tree of commands."""
    # Here, because other programs in a guest use this module, too, and these take seconds to import.
    import typer

    from pyuio.cli import app as command_line

    command: Any = typer.main.get_command(command_line.app)
    for name in command.list_commands(None):
        command.get_command(None, name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        # What typer has for errors takes two seconds; where an IOMMU is on, no test is about those.
        errors = [] if WITH_IOMMU else [["no such command"]]
        for words in (["list"], ["probe"], ["info", "none"], ["bench", "latency", "none"], *errors):
            with contextlib.suppress(SystemExit, pyuio.PyuioError):
                command(words)
    for name in (
        "pyuio.claim.holders",
        "pyuio.claim.permission",
        "pyuio.device",
        "pyuio.driver",
        "pyuio.inspect.cells",
        "pyuio.inspect.chosen_driver",
        "pyuio.inspect.inspection",
        "pyuio.inspect.location",
    ):
        importlib.import_module(name)
    command_line.app = command
    known_drivers()


_read_drivers = installed_drivers.installed_drivers  # `known_drivers` may be in its place later


@functools.cache
def known_drivers() -> list[installed_drivers.InstalledDriver]:
    """Return the drivers of all installed packages: those do not change here, and to read them takes half a second."""
    return _read_drivers()


def command_in_a_fork() -> None:
    """Do what ``pyuio`` does."""
    vars(installed_drivers)["installed_drivers"] = known_drivers
    cli.main()


def pyuio_command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``pyuio`` with these words to its end, as `forked` does."""
    load_command()
    return forked(command_in_a_fork, "pyuio", *words)


def forked(program: Callable[[], object], *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these words to its end, in a fork, because Python takes 5 s to start under emulation."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            _become(program, *command)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


kept: list[binding.Binding] = []
"""The edu card that stays bound from one test that wants it so to the next: binding takes longer than most tests."""


def keep_bound(address: str, driver: str = DRIVER) -> None:
    """Bind the card to a driver until a test wants it otherwise."""
    if [(one.address, one.driver) for one in kept] != [(address, driver)] or bound_driver(address) != driver:
        let_go()
        kept.append(binding.bind(address, driver))


def keep_in_a_ring(*files: int) -> int:
    """Have an io_uring keep files open, and return its descriptor."""
    library = ctypes.CDLL(None, use_errno=True)
    ring: int = library.syscall(IO_URING_SETUP, 4, ctypes.create_string_buffer(120))
    registered = (ctypes.c_int * len(files))(*files)
    assert library.syscall(IO_URING_REGISTER, ring, 2, registered, len(files)) == 0  # IORING_REGISTER_FILES
    return ring


def let_go() -> None:
    """Give the card that was kept back to the driver that it had."""
    while kept:
        one = kept.pop()
        one.undo()
        assert bound_driver(one.address) == one.previous


def current_drivers() -> dict[str, str | None]:
    """Return the driver of every function. It is called twice for each test, and pathlib takes five times as long."""
    found: dict[str, str | None] = {}
    for address in os.listdir(PCI_DEVICES):  # noqa: PTH208
        try:
            found[address] = os.readlink(f"{PCI_DEVICES}/{address}/driver").rpartition("/")[2]  # noqa: PTH115
        except FileNotFoundError:
            found[address] = None
    return found


def rebind(address: str, driver: str | None) -> None:
    """Take a function from its kernel driver and give it to another or none, without pyuio."""
    directory = PCI_DEVICES / address
    if (directory / "driver").exists():
        (directory / "driver/unbind").write_text(address)
    (directory / "driver_override").write_text("\n")
    if driver is not None:
        Path("/sys/bus/pci/drivers", driver, "bind").write_text(address)


def attribute(address: str, name: str) -> str:
    """Return a sysfs attribute, read without pyuio."""
    return Path("/sys/bus/pci/devices", address, name).read_text().strip()


def command_register(address: str) -> int:
    """Return the command register as the kernel's file shows it, read without pyuio."""
    with Path("/sys/bus/pci/devices", address, "config").open("rb") as file:
        return int.from_bytes(file.read(6)[4:], "little")


def interrupts_of_line(address: str) -> int:
    """Return how often the device's interrupt line fired, on all processors, according to /proc/interrupts."""
    irq = attribute(address, "irq")
    line = re.search(rf"^ *{irq}:((?: +\d+)+)", Path("/proc/interrupts").read_text(), re.MULTILINE)
    assert line is not None
    return sum(map(int, line[1].split()))


def kernel_count(device: pyuio.Device) -> int:
    """Return a number that grows by one with each interrupt of an open device that its kernel's driver handles."""
    return _handled(device.irq) if device.driver == VFIO_PCI else device.uio.event_count


def _handled(irq: int | None) -> int:
    """Return how often the handlers of an interrupt line said that it was theirs, since this was first called.

    /proc/interrupts also counts interrupts that nobody handles: of a card that another thread has acknowledged already.
    """
    if REALTIME_KERNEL:
        import pytest  # not above, as programs beside tests need this module and not pytest

        pytest.skip("on PREEMPT_RT a handler is a thread, and the kernel traces what the part before it returns")
    trigger = _HANDLER_EXIT / "trigger"
    if not trigger.read_text().startswith("hist:"):
        trigger.write_text("hist:keys=irq,ret")
    found = re.search(rf"irq: +{irq}, ret: +1 }} hitcount: +(\d+)", (_HANDLER_EXIT / "hist").read_text())
    return int(found[1]) if found else 0


def kernel_agrees(device: pyuio.Device, before: int, total: int) -> bool:
    """Return whether `total` interrupts came since `kernel_count` was `before`.

    VFIO also reports an INTx interrupt that it finds asserted when it unmasks, and that does not fire for it.
    """
    handled = kernel_count(device) - before
    return handled <= total if device.driver == VFIO_PCI and device.interrupt.kind == "INTx" else handled == total


def interrupt_threads(number: str = r"\d+") -> dict[int, tuple[int, int]]:
    """Return the policy and the priority of the kernel's threads that handle interrupts.

    Some tests look often, and there are a hundred processes: pathlib takes twice as long.
    """
    found = {}
    name = re.compile(f"irq/{number}-".encode())
    for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{process}/comm", "rb", buffering=0) as file:  # noqa: PTH123
                if name.match(file.read(16)) is None:
                    continue
            thread = int(process)
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
    return found


def result_of_a_fork(what: Callable[[], object]) -> Any:
    """Call a function in another process, and return its result; fail if it raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            result = (True, what())
        except BaseException:
            result = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(result, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        done, result = pickle.load(pipe)
    os.waitpid(child, 0)
    assert done, result
    return result


def killed_amid(begin: Callable[[], tuple[int, object]]) -> int:
    """Have a process of its own begin something, kill it amid that, and return the number that `begin` returned there.

    What it returned besides is kept until then.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            number, _kept = begin()
            os.write(writing, number.to_bytes(8, "little"))
            signal.pause()
        os._exit(1)
    os.close(writing)
    told = os.read(reading, 8)
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    return int.from_bytes(told, "little")


def write_in_a_fork(file: Path, text: str) -> None:
    """Write to a file of the kernel in another process, and wait for that: VFIO makes the write wait for this one."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            file.write_text(text)
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline, f"writing {text} to {file} goes on"
        time.sleep(0.001)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail if it does not after a minute."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.001)


def set_aside_what_the_card_reaches() -> None:
    """Set aside one hugepage that an edu card reaches; without it, each driver of the card would search for seconds."""
    size = hugepages()[0]
    if size.free == 0:
        size.change(1)
    try:
        _free_one_that_the_card_reaches(size.size)
    except pyuio.DmaMemoryError:
        # Files and small pieces have all that is low, as they may after a boot.
        Path("/proc/sys/vm/drop_caches").write_text("3")
        Path("/proc/sys/vm/compact_memory").write_text("1")
        _free_one_that_the_card_reaches(size.size)


def _free_one_that_the_card_reaches(size: int) -> None:
    """Take hugepages until one is low, and give them back: the last one taken is the one that stays."""
    assert Edu.dma_mask is not None
    with contextlib.closing(Dma("whoever is first")) as first:
        while first.alloc(size).address > Edu.dma_mask:
            pass


def start_dma(card: Edu, source: int, destination: int, count: int, to_memory: bool) -> None:
    """Start a transfer of an edu card without waiting for its end."""
    card.registers.dma_source.write(source)
    card.registers.dma_destination.write(destination)
    card.registers.dma_count.write(count)
    with card.registers.dma_command.change(0) as command:
        command.start = True
        command.direction = Direction.TO_MEMORY if to_memory else Direction.FROM_MEMORY


def wait_for_dma(card: Edu) -> None:
    """Wait until the card's transfer has ended."""
    card.registers.dma_command.poll(lambda command: not command.start, PATIENCE)


def raise_and_wait(card: Edu, bits: int = 1) -> None:
    """Raise an interrupt and wait until the kernel has counted it."""
    before = kernel_count(card.device)
    card.raise_interrupt(bits)
    wait_until(lambda: kernel_count(card.device) != before)


class Beside:
    """Python in a fork, as `forked`, but running beside the test, with the needed part of subprocess.Popen.

    As a context manager it closes its streams and waits for the program. If the program has not ended within
    `PATIENCE`, it is killed and the test fails.

    Attributes:
        pid: of the program.
        stdout: what it prints, as it prints it.
        stderr: what it prints there.
        returncode: its exit status once it has been waited for, of a signal the negative number; None before.
    """

    _streams: ClassVar[list[IO[str]]] = []  # our ends of all pipes, which a program that forks later must not keep open

    def __init__(self, program: Callable[[], object], *command: str) -> None:
        output, errors = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            for stream in self._streams:
                if not stream.closed:
                    os.close(stream.fileno())
            for number, (reader, writer) in ((1, output), (2, errors)):
                os.dup2(writer, number)
                os.close(reader)
                os.close(writer)
            _become(program, *command)
        os.close(output[1])
        os.close(errors[1])
        self.stdout, self.stderr = os.fdopen(output[0]), os.fdopen(errors[0])
        self._streams.extend((self.stdout, self.stderr))

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stderr):
            stream.close()
            self._streams.remove(stream)
        try:
            self.wait(PATIENCE)
        finally:
            if self.returncode is None:
                self.send_signal(signal.SIGKILL)
                self.wait(PATIENCE)

    def send_signal(self, number: int) -> None:
        """Send the program a signal, unless it has been waited for."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return its exit status if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return its exit status; TimeoutExpired if it does not end within so many seconds."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return status

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Return the rest of its output once it has ended; TimeoutExpired if it does not end within `timeout`."""
        self.wait(timeout)  # what it prints has room in the pipes
        return self.stdout.read(), self.stderr.read()


def _become(program: Callable[[], object], *command: str) -> NoReturn:
    """Do in this fork what Python does with a program, and end the fork."""
    status = 1
    gc.freeze()  # or a collection would touch all objects of the tests, and have the kernel copy their pages
    try:
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)  # as Python has them
        logging.getLogger().handlers.clear()  # pytest's
        sys.argv = [*command]
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                status = 120  # as Python ends then
        os._exit(status)


def pyuio_beside(*words: str) -> Beside:
    """Start the command ``pyuio`` with these words, which runs beside the test."""
    load_command()
    return Beside(command_in_a_fork, "pyuio", *words)
