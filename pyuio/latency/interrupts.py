# SPDX-License-Identifier: MIT
"""``pyuio bench latency``: from the raising of an interrupt until its handler has it, in several ways in turn.

How interrupts are raised and handled is a `Method`'s: `pyuio.latency.open_loop` for QEMU's edu card,
`pyuio.latency.closed_loop` for any other card whose driver can trigger its interrupt.
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
from pyuio.rt.realtime import realtime

PYTHON = "Python read loop"
NATIVE = "native service"
GRACE = 3.0  # seconds after the last interrupt was raised, for what is still to be served


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


def recipe(cpu: int, priority: int) -> contextlib.AbstractContextManager[object]:
    """Return what the two ways of this process run in: the recipe of the patch, as the C program has it."""
    if priority:
        return realtime(priority, cpus=cpu, strict=False)
    return realtime(policy=None, cpus=cpu, lock_memory=False, cpu_dma_latency=None, strict=False)


@contextlib.contextmanager
def common_tuning(card: Driver, cpu: int, priority: int, run: Run) -> Iterator[None]:
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


def describe(card: Driver) -> str:
    """Return what a result calls a card: ids, where it is, and its kernel driver."""
    return f"{card.device.ids} at {card.device.name}, {card.device.uio.driver_name}"


def drain(card: Driver) -> None:
    """Forget what came before, and leave the interrupt masked."""
    card.acknowledge()
    with contextlib.suppress(BlockingIOError):
        while True:
            card.device.interrupt.read(0)
    card.device.interrupt.mask()


@dataclass(frozen=True)
class Turn:
    """What one way did in one turn.

    Attributes:
        raised: the time of each interrupt, ns.
        latencies: of those that were handled, by their index in `raised`, ns.
        impossible: what was handled and nobody had raised.
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
        """Return what the run's settings have to say of it beside the options."""


class Measurement:
    """One run of ``pyuio bench latency``.

    Args:
        method: on the card, which is open.
        options: what is measured.
        output: where it is written to as it goes on; None for nowhere.
        bar: shows how far it is.
    """

    def __init__(self, method: Method, options: Options, output: Output | None, bar: Bar) -> None:
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
        """Measure; Ctrl-C ends it early, with what there is by then.

        Raises:
            LoadError: a load cannot be started.
            OutputDirectoryError: results cannot be written any more.
            MeasurementError: what raises the interrupts failed.
            PyuioError: something about the card.
        """
        with common_tuning(self._method.card, self._options.cpu, self._options.priority, self.run):
            try:
                self._rounds()
            except KeyboardInterrupt:
                self.run.interrupted = True
        return self.run

    def _rounds(self) -> None:
        ways = self._method.ways
        for number in range(self._options.plan.rounds):
            # Another way is first in each round: none has always the same one before it.
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
        kept = [latency for number, latency in turn.latencies.items() if number >= plan.warm_up]
        series.seconds += (raised[-1] - raised[min(plan.warm_up, len(raised) - 1)]) / 1e9 if raised else 0.0
        histogram = series.record(kept)
        if self._output:
            self._output.add_round(series, histogram, began, time.time())
