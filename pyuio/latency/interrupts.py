# SPDX-License-Identifier: MIT
"""``pyuio bench latency``: the time from raising an interrupt until its handler has it, in several ways in turn.

A `Method` raises and handles the interrupts: `pyuio.latency.open_loop` on QEMU's edu card, `pyuio.latency.closed_loop`
on any other card whose driver can trigger its interrupt, `pyuio.latency.in_process` on a card in Python.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyuio.driver import Driver
from pyuio.latency import environment, tuning
from pyuio.latency.errors import LoadError
from pyuio.latency.load import Load
from pyuio.latency.output import Output
from pyuio.latency.plan import Plan
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run
from pyuio.latency.timer import default_cpu
from pyuio.latency.trace import Trace, TraceDone
from pyuio.rt.realtime import realtime
from pyuio.rt.settings import RealTime

PYTHON = "Python read loop"
NATIVE = "native service"
IN_PROCESS = "model"  # `Device.driver` of a card in Python
GRACE = 3.0  # seconds after the last interrupt was raised, in which the rest can be served


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        plan: how much to measure.
        loads: the loads to measure under.
        cpu: the CPU that handles the interrupt.
        raising_cpu: the CPU that raises it; another one.
        priority: for SCHED_FIFO, 1 to 99; 0 for ordinary scheduling.
    """

    plan: Plan
    loads: Sequence[type[Load]]
    cpu: int
    raising_cpu: int
    priority: int


def choose_cpus(reading: int | None, raising: int | None) -> tuple[int, int]:
    """Return the CPU that handles the interrupt and the CPU that raises it. An argument of None leaves the choice.

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


def recipe(cpu: int, priority: int) -> RealTime:
    """Return the real-time settings for the two ways in this process: the recipe of the patch, as in the C program."""
    if priority:
        return realtime(priority, cpus=cpu, strict=False)
    return realtime(policy=None, cpus=cpu, lock_memory=False, cpu_dma_latency=None, strict=False)


@contextlib.contextmanager
def common_tuning(card: Driver, cpu: int, priority: int, run: Run) -> Iterator[None]:
    """Steer the interrupt and raise its thread's priority, if it has one, for all ways; note the result in `run`.

    So that `run` has what the ways in this process get, too, this thread takes the recipe for a moment.

    Raises:
        PermissionDeniedError: this process may not have the priority.
    """
    with recipe(cpu, priority) as tuned:
        tuning.require_priority(tuned, priority)
        run.tuning = tuning.of(tuned.report)
    card.device.interrupt  # noqa: B018 - VFIO sets it up at the first use, and one that is not set up cannot be steered
    if card.device.driver == IN_PROCESS:  # no kernel has its interrupt
        yield
        return
    with realtime(
        policy=None,
        lock_memory=False,
        freeze_garbage=False,
        interrupt=card.device,
        interrupt_cpu=cpu,
        interrupt_priority=None if priority else 0,
        strict=False,
    ) as tuned:
        run.tuning |= tuning.of(tuned.report)
        yield


def describe(card: Driver) -> str:
    """Return the name of a card in a result: its ids, its address, its kernel driver and the kind of its interrupt."""
    device = card.device
    return f"{device.ids} at {device.name}, {device.driver}, {device.interrupt.kind or 'interrupt'}"


def drain(card: Driver) -> None:
    """Discard the interrupts that came before, and leave the interrupt masked."""
    card.acknowledge()
    with contextlib.suppress(BlockingIOError):
        while True:
            card.device.interrupt.read(0)
    card.device.interrupt.mask()


@dataclass(frozen=True)
class Turn:
    """The result of one turn of one way.

    Attributes:
        raised: the time of each interrupt, in ns.
        latencies: the latency of each interrupt that was handled, in ns, by its index in `raised`.
        impossible: how many interrupts were handled although nobody had raised them.
    """

    raised: Sequence[int]
    latencies: dict[int, int]
    impossible: int


class Method(Protocol):
    """How the interrupts of one card are raised and handled."""

    @property
    def card(self) -> Driver:
        """The card's driver."""

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways of handling, which take turns."""

    def turn(self, way: str) -> Turn:
        """Raise the interrupts of one turn, and have them handled."""

    def settings(self) -> dict[str, object]:
        """Return the method's own entries for the run's settings, in addition to the options."""


class Measurement:
    """One run of ``pyuio bench latency``.

    Args:
        method: how to raise and handle the interrupts of an open card.
        options: what to measure.
        output: the files that are written as the measurement goes on; None for none.
        bar: shows the progress.
        trace: ends the measurement with the first sample that is too late; None for no trace.
    """

    def __init__(
        self, method: Method, options: Options, output: Output | None, bar: Bar, trace: Trace | None = None
    ) -> None:
        self._trace = trace
        self._method = method
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
        self.run = Run("latency", device=describe(method.card), environment=environment.read(), settings=settings)
        self._series = {(way, load.name): self.run.add(way, load.name) for load in options.loads for way in method.ways}

    def measure(self) -> Run:
        """Measure, and return the run. Ctrl-C ends the measurement early, and the run has the samples until then.

        Raises:
            LoadError: a load cannot be started.
            OutputDirectoryError: results can no longer be written.
            MeasurementError: the process that raises the interrupts failed.
            PyuioError: an operation on the card failed.
        """
        with common_tuning(self._method.card, self._options.cpu, self._options.priority, self.run):
            try:
                self._rounds()
            except KeyboardInterrupt:
                self.run.interrupted = True
            except TraceDone:
                assert self._trace is not None
                self.run.trace = self._trace.found
            self.run.settings.update(self._method.settings())
        return self.run

    def _rounds(self) -> None:
        ways = self._method.ways
        for number in range(self._options.plan.rounds):
            # Each round begins with another way, so that no way always comes after the same one.
            shift = number % len(ways)
            for load in self._options.loads:
                with load() as running:
                    for way in ways[shift:] + ways[:shift]:
                        self._bar.next(f"{way}, {load.name}")
                        self._turn(way, running)
                        self._bar.done()
            self.run.settings.update(self._method.settings())
            if self._output:
                self._output.save(self.run)

    def _turn(self, way: str, load: Load) -> None:
        plan, series = self._options.plan, self._series[way, load.name]
        began = time.time()
        turn = self._method.turn(way)
        try:
            load.check()
        except LoadError as error:
            series.reasons.append(str(error))
        raised = turn.raised
        series.impossible += turn.impossible
        series.lost += plan.warm_up + plan.count - len(turn.latencies)
        series.warm_up += min(plan.warm_up, len(raised))
        measured = {number: latency for number, latency in turn.latencies.items() if number >= plan.warm_up}
        kept = list(measured.values())
        series.seconds += (raised[-1] - raised[min(plan.warm_up, len(raised) - 1)]) / 1e9 if raised else 0.0
        histogram = series.record(kept)
        if self._output:
            self._output.add_round(series, histogram, began, time.time())
        if self._trace is not None:
            samples = [(raised[number], latency) for number, latency in sorted(measured.items())]
            self._trace.look((series.name, self._options.cpu, samples))
