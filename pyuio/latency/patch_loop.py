# SPDX-License-Identifier: MIT
"""Builds, runs and ends the C program ``benchmarks/patch_loop.c``, and reads the files that it fills."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from pyuio_drivers.edu import Edu, EduRegisters

from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.programs import environment, find_program
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.kernel.trusted_directory import temporary
from pyuio.latency.errors import MeasurementError
from pyuio.region import Region

_READY_LIMIT = 30.0  # seconds
_MEMORY = "/dev/shm"

_STATUS = EduRegisters.interrupt_status.info.offset
_RAISE = EduRegisters.raise_interrupt.info.offset
_ACKNOWLEDGE = EduRegisters.acknowledge_interrupt.info.offset


class Records:
    """A file in memory that the program maps: a count, then 64-bit numbers.

    Args:
        count: the number of interrupts that there is room for.
    """

    def __init__(self, count: int) -> None:
        self._file = tempfile.NamedTemporaryFile(dir=_MEMORY, prefix="pyuio-")  # noqa: SIM115
        size = 8 * (1 + 3 * count)
        os.ftruncate(self._file.fileno(), size)
        self._memory = mmap.mmap(self._file.fileno(), size)
        self.path = self._file.name

    def _numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"={count}q", self._memory, 8)

    @property
    def count(self) -> int:
        """How many records there are by now."""
        return int(struct.unpack_from("=q", self._memory)[0])

    def times(self) -> list[int]:
        """Return the records, each of one number."""
        return list(self._numbers(self.count))

    def triples(self) -> list[tuple[int, int, int]]:
        """Return the records, each of three numbers."""
        numbers = self._numbers(3 * self.count)
        return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory.close()
        self._file.close()


class Running:
    """The running program, when it is ready. MeasurementError: it did not get ready.

    Args:
        command: its command line.
        descriptors: what it inherits.
    """

    def __init__(self, command: list[str], descriptors: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=descriptors,
        )
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], _READY_LIMIT)[0]
        if not ready or os.read(self._process.stdout.fileno(), 6) != b"ready\n":
            self._process.kill()
            raise MeasurementError(self._failure("did not get ready"))

    def _failure(self, otherwise: str) -> str:
        said = self._process.communicate()[1].decode(errors="replace").strip()
        return said or f"patch_loop {otherwise}"

    def go(self) -> None:
        """Let the program begin its work."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"!")
        self._process.stdin.flush()

    def wait(self, limit: float) -> None:
        """Wait for the program's end. MeasurementError: it failed, or took longer than `limit` seconds."""
        try:
            status = self._process.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"patch_loop did not end within {limit:.0f} s") from error
        if status:
            raise MeasurementError(self._failure(f"ended with status {status}"))

    def end(self, grace: float) -> None:
        """Give the program `grace` seconds to end by itself, then kill it. MeasurementError: it failed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        ended = self._process.poll() is not None
        self._process.kill()
        said = self._failure("")
        if ended and self._process.returncode:
            raise MeasurementError(said)


class Lent(NamedTuple):
    """The card as the program gets it."""

    arguments: tuple[str, str, str]
    """Where it reads, by what it masks, and the BAR."""
    descriptors: tuple[int, ...]
    """What it inherits for that."""


def _resource(card: Edu) -> tuple[str, tuple[int, ...]]:
    """Return the BAR for the program, and what the program inherits for that."""
    if card.device.driver != VFIO_PCI:
        return str(PCI_DEVICES / str(card.device.address) / "resource0"), ()
    assert isinstance(card.bar, Region)
    file, offset = card.bar.file_and_offset
    return f"fd:{file}:{offset}:{card.bar.size}", (file,)


@contextlib.contextmanager
def lent(card: Edu) -> Iterator[Lent]:
    """Lend the card to the program in a ``with`` block; the program must end in it.

    By UIO it opens the card's files itself. VFIO's cannot be opened twice: it inherits them, and this process does not
    read the interrupt meanwhile.
    """
    device = card.device
    resource, files = _resource(card)
    if device.driver != VFIO_PCI:
        config = PCI_DEVICES / str(device.address) / "config"
        yield Lent((str(device.uio.path), str(config), resource), ())
        return
    with device.interrupt.lent() as source:
        masking = f"vfio:{files[0]}" if device.interrupt.kind == "INTx" else "none"
        yield Lent((f"fd:{source}", masking, resource), (source, *files))


class PatchLoop:
    """The compiled program; a context manager, which removes it at the end.

    Attributes:
        program: its path.

    Raises:
        MeasurementError: there is no C compiler, or the source is missing or does not compile.
    """

    def __init__(self) -> None:
        self._directory = temporary("pyuio-")
        self.program = Path(self._directory.name, "patch_loop")
        try:
            self._build()
        except BaseException:
            self._directory.cleanup()
            raise

    def _build(self) -> None:
        compiler = find_program("cc") or find_program("gcc") or find_program("clang")
        if compiler is None:
            raise MeasurementError("the C program to compare with needs a C compiler: install gcc")
        with resources.as_file(resources.files("pyuio_benchmarks") / "patch_loop.c") as source:
            command = [compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-o", str(self.program), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        if done.returncode:
            raise MeasurementError(f"{' '.join(command)}: {done.stderr.strip()}")

    def _run(self, descriptors: Sequence[int], *arguments: object) -> Running:
        return Running([str(self.program), *map(str, arguments)], descriptors)

    def read(self, lent: Lent, records: Records, count: int, cpu: int, priority: int) -> Running:
        """Start the loop. It ends after `count` interrupts, and records both times and the status of each."""
        arguments = *lent.arguments, records.path, count, _STATUS, _ACKNOWLEDGE, cpu, priority
        return self._run(lent.descriptors, "read", *arguments)

    def raise_interrupts(
        self, card: Edu, records: Records, count: int, interval: int, cpu: int, priority: int
    ) -> Running:
        """Get ready to raise interrupts every `interval` ns on average, and to record their times."""
        resource, descriptors = _resource(card)
        return self._run(descriptors, "raise", resource, records.path, count, _STATUS, _RAISE, interval, cpu, priority)

    def rate(self, lent: Lent, records: Records, count: int, cpu: int, priority: int) -> Running:
        """Start to raise, read and acknowledge `count` interrupts in one thread, and record when each was read."""
        registers = _STATUS, _ACKNOWLEDGE, _RAISE
        return self._run(lent.descriptors, "rate", *lent.arguments, records.path, count, *registers, cpu, priority)

    def __enter__(self) -> PatchLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()
