# SPDX-License-Identifier: MIT
"""``pyuio bench latency``: from the raising of an interrupt until its handler has it, in three ways in turn.

A program in C raises the interrupts from another CPU, at irregular times of its own: a handler that is slow does not
put the next one off, and each that came meanwhile is a sample with all the time it waited (no coordinated omission).
Each interrupt sets a bit of the card's status by which it is told from the 31 before it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pyuio_drivers.edu import Edu

from pyuio.errors import LoadError
from pyuio.latency import environment, tuning
from pyuio.latency.load import Load
from pyuio.latency.output import Output
from pyuio.latency.patch_loop import PatchLoop, Records
from pyuio.latency.plan import Plan
from pyuio.latency.progress import Bar
from pyuio.latency.results import REFERENCE, Run, Series
from pyuio.latency.timer import default_cpu
from pyuio.program import Stamp
from pyuio.realtime import realtime
from pyuio.service import Service

PYTHON = "Python read loop"
NATIVE = "native service"
WAYS = (REFERENCE, PYTHON, NATIVE)

_GRACE = 3.0  # seconds after the last interrupt was raised, for what is still to be served

Handled = list[tuple[int, int, int]]
"""When the read returned, when the status had been read, and the bits that were found in it."""


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        plan: how much of it.
        loads: under which loads.
        cpu: where the interrupt is handled.
        raising_cpu: where it is raised; another one.
        priority: SCHED_FIFO's, 1 to 99; 0 for ordinary scheduling.
    """

    plan: Plan
    loads: Sequence[type[Load]]
    cpu: int
    raising_cpu: int
    priority: int


def choose_cpus(reading: int | None, raising: int | None) -> tuple[int, int]:
    """Return the CPUs to handle and to raise on, as asked for, or chosen.

    Raises:
        ValueError: there is only one, both are the same, or this process may not use one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ValueError("one CPU handles the interrupt and another raises it, and this process may use one only")
    for name, cpu in (("--cpu", reading), ("--raising-cpu", raising)):
        if cpu is not None and cpu not in allowed:
            raise ValueError(f"{name} {cpu}: this process may use {', '.join(map(str, allowed))}")
    if reading is None:
        reading = next(cpu for cpu in (default_cpu(), *allowed) if cpu != raising)
    if raising is None:
        raising = next(cpu for cpu in allowed if cpu != reading)
    if reading == raising:
        raise ValueError(f"--cpu and --raising-cpu are both {reading}; the raising CPU must be another")
    return reading, raising


def latencies(raised: Sequence[int], handled: Handled) -> tuple[dict[int, int], int]:
    """Match what was raised with what was handled.

    Args:
        raised: the time of each interrupt; number K has bit K modulo 32, which was clear when it was raised.
        handled: times, ascending, and bits.

    Returns:
        The latency of each number that was handled, and how many bits were found that nobody had raised. It ends when
        the read returned; or, for one that was raised later and still found, when the status had been read.
    """
    numbers: dict[int, Iterator[int]] = {bit: iter(range(bit, len(raised), 32)) for bit in range(32)}
    found: dict[int, int] = {}
    impossible = 0
    for returned, found_at, bits in handled:
        for bit in range(32):
            if bits >> bit & 1:
                number = next(numbers[bit], None)
                if number is None:
                    impossible += 1
                else:
                    found[number] = (returned if returned >= raised[number] else found_at) - raised[number]
    return found, impossible


class _Reader(Protocol):
    """One way of reading the interrupt, which runs from its construction on."""

    def finish(self) -> Handled:
        """End it, and return what it handled."""


class _InC:
    """The patch's loop, in a process of its own."""

    def __init__(self, card: Edu, program: PatchLoop, options: Options, count: int) -> None:
        self._records = Records(count)
        self._process = program.read(card, self._records, count, options.cpu, options.priority)

    def finish(self) -> Handled:
        self._process.end(_GRACE)
        with self._records:
            return self._records.triples()


class _InPython:
    """The same loop in Python, in a thread of this process."""

    def __init__(self, card: Edu, options: Options, count: int) -> None:
        self._card = card
        self._options = options
        self._count = count
        self._handled: Handled = []
        self._stop = False
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=PYTHON, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        try:
            with recipe(self._options.cpu, self._options.priority):
                self._ready.set()
                self._loop()
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def _loop(self) -> None:
        read, registers = self._card.device.interrupt.read, self._card.registers
        status, acknowledge = Edu.status_offset, Edu.acknowledge_offset
        seen = 0
        while seen < self._count and not self._stop:
            try:
                read(_GRACE)
            except TimeoutError:
                continue
            now = time.monotonic_ns()
            bits = registers.read32(status)
            then = time.monotonic_ns()
            registers.write32(acknowledge, bits)
            if bits:
                self._handled.append((now, then, bits))
                seen += bits.bit_count()

    def finish(self) -> Handled:
        self._thread.join(_GRACE)
        self._stop = True
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._handled


class _InService:
    """The native service."""

    def __init__(self, card: Edu, options: Options, count: int) -> None:
        status, acknowledge = card.acknowledge_program()
        program = (status, Stamp("found"), acknowledge)
        around = partial(recipe, options.cpu, options.priority)
        self._service = Service(card.device.interrupt, program, capacity=2 * count, around=around)

    def finish(self) -> Handled:
        with self._service:
            handled: Handled = []
            with contextlib.suppress(TimeoutError):
                while True:
                    for event in self._service.read(0.1):
                        values = event.values
                        handled.append((event.time, values["found"], values["status"]))
            return [one for one in handled if one[2]]


def recipe(cpu: int, priority: int) -> contextlib.AbstractContextManager[object]:
    """Return what the two ways of this process run in: the recipe of the patch, as the C program has it."""
    if priority:
        return realtime(priority, cpus=cpu, strict=False)
    return realtime(policy=None, cpus=cpu, lock_memory=False, cpu_dma_latency=None, strict=False)


@contextlib.contextmanager
def common_tuning(card: Edu, cpu: int, priority: int, run: Run) -> Iterator[None]:
    """Steer the interrupt, and raise its thread where it has one, for all ways alike; note in `run` what came of it."""
    with realtime(
        policy=None,
        lock_memory=False,
        freeze_garbage=False,
        interrupt=card.device,
        interrupt_cpu=cpu,
        interrupt_priority=None if priority else 0,
        strict=False,
    ) as tuned:
        run.tuning = tuning.of(tuned.report)
        yield


def drain(card: Edu) -> None:
    """Forget what came before, and leave the interrupt masked."""
    card.acknowledge()
    with contextlib.suppress(BlockingIOError):
        while True:
            card.device.interrupt.read(0)
    card.device.interrupt.mask()


class Measurement:
    """One run of ``pyuio bench latency``.

    Args:
        card: the edu card, open.
        program: the C program.
        options: what is measured.
        output: where it is written to as it goes on; None for nowhere.
        bar: shows how far it is.
    """

    def __init__(self, card: Edu, program: PatchLoop, options: Options, output: Output | None, bar: Bar) -> None:
        self._card = card
        self._program = program
        self._options = options
        self._output = output
        self._bar = bar
        settings = {
            **options.plan.as_dict(),
            "loads": [load.name for load in options.loads],
            "cpu": options.cpu,
            "raising cpu": options.raising_cpu,
            "priority": options.priority,
        }
        device = f"{card.device.ids} at {card.device.name}, {card.device.uio.driver_name}"
        self.run = Run("latency", device=device, environment=environment.read(), settings=settings)
        self._series = {(way, load.name): self.run.add(way, load.name) for load in options.loads for way in WAYS}

    def measure(self) -> Run:
        """Measure; Ctrl-C ends it early, with what there is by then.

        Raises:
            LoadError: a load cannot be started.
            OutputDirectoryError: results cannot be written any more.
            MeasurementError: the C program failed.
            PyuioError: something about the card.
        """
        with common_tuning(self._card, self._options.cpu, self._options.priority, self.run):
            try:
                self._rounds()
            except KeyboardInterrupt:
                self.run.interrupted = True
        return self.run

    def _rounds(self) -> None:
        for number in range(self._options.plan.rounds):
            # Another way is first in each round: none has always the same one before it.
            shift = number % len(WAYS)
            for load in self._options.loads:
                with load() as running:
                    for way in WAYS[shift:] + WAYS[:shift]:
                        self._bar.next(f"{way}, {load.name}")
                        self._turn(way, running)
                        self._bar.done()
            if self._output:
                self._output.save(self.run)

    def _turn(self, way: str, load: Load) -> None:
        plan, series = self._options.plan, self._series[way, load.name]
        count = plan.warm_up + plan.count
        began = time.time()
        drain(self._card)
        with Records(count) as records:
            raising = self._program.raise_interrupts(
                self._card, records, count, plan.interval, self._options.raising_cpu, self._options.priority
            )
            try:
                reader = self._reader(way, count)
                try:
                    raising.go()
                    raising.wait(2 * count * plan.interval / 1e9 + 30)
                finally:
                    handled = reader.finish()
            finally:
                raising.end(0)
            raised = records.times()
        try:
            load.check()
        except LoadError as error:
            series.reasons.append(str(error))
        self._record(series, raised, handled, began)

    def _reader(self, way: str, count: int) -> _Reader:
        if way == REFERENCE:
            return _InC(self._card, self._program, self._options, count)
        return (_InPython if way == PYTHON else _InService)(self._card, self._options, count)

    def _record(self, series: Series, raised: Sequence[int], handled: Handled, began: float) -> None:
        plan = self._options.plan
        found, impossible = latencies(raised, handled)
        series.impossible += impossible
        series.lost += plan.warm_up + plan.count - len(found)
        series.warm_up += min(plan.warm_up, len(raised))
        kept = [latency for number, latency in found.items() if number >= plan.warm_up]
        series.seconds += (raised[-1] - raised[min(plan.warm_up, len(raised) - 1)]) / 1e9 if raised else 0.0
        histogram = series.record(kept)
        if self._output:
            self._output.add_round(series, histogram, began, time.time())
