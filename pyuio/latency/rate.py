# SPDX-License-Identifier: MIT
"""``pyuio bench rate``: how many interrupts a second one thread sustains, if it raises, reads and acknowledges each.

A sample is the time from one interrupt's read to the next one's, so the figures are times per interrupt.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pyuio_drivers.edu import Edu, EduRegisters

from pyuio.driver import Driver
from pyuio.latency import closed_loop, environment, open_loop
from pyuio.latency.interrupts import NATIVE, PYTHON, common_tuning, describe, drain, recipe
from pyuio.latency.load import Load
from pyuio.latency.output import Output
from pyuio.latency.patch_loop import PatchLoop, Records, lent
from pyuio.latency.progress import Bar
from pyuio.latency.results import REFERENCE, Run, Series
from pyuio.service import Service

TURN = 2000  # interrupts in a turn of one way
WARM_UP = 20
# Seconds between two reads of a service's events. Each event that comes to an empty ring would wake a waiting reader.
_PAUSE = 0.005


def ways(card: Driver) -> tuple[str, ...]:
    """Return the ways in which the interrupts of an open card can be handled.

    The C program knows edu only.
    """
    if isinstance(card, Edu):
        return open_loop.WAYS
    return (PYTHON, NATIVE) if card.supplies("trigger_program") else (PYTHON,)


class RateMeasurement:
    """One run of ``pyuio bench rate``.

    Args:
        card: an open card, whose driver supplies the methods in `closed_loop.NEEDED`; each turn makes it quiet.
        program: the C program; None if it is not among the card's `ways`.
        cpu: the CPU on which everything runs.
        priority: for SCHED_FIFO, 1 to 99; 0 for ordinary scheduling.
        rounds: the number of turns of each way, of `TURN` interrupts each.
        output: the files that are written as the measurement goes on; None for none.
        bar: shows the progress.
    """

    def __init__(
        self,
        card: Driver,
        program: PatchLoop | None,
        cpu: int,
        priority: int,
        rounds: int,
        output: Output | None,
        bar: Bar,
    ) -> None:
        closed_loop.check(type(card))
        self._card = card
        self._program = program
        self._cpu = cpu
        self._priority = priority
        self._rounds = rounds
        self._output = output
        self._bar = bar
        all_ways: dict[str, Callable[[int], list[int]]] = {
            REFERENCE: self._in_c,
            PYTHON: self._in_python,
            NATIVE: self._in_service,
        }
        self._ways = {way: all_ways[way] for way in ways(card)}
        settings = {"count": TURN * rounds, "rounds": rounds, "warm_up": WARM_UP, "cpu": cpu, "priority": priority}
        self.run = Run("rate", device=describe(card), environment=environment.read(), settings=settings)
        self._series = {way: self.run.add(way, Load.name) for way in self._ways}

    def measure(self) -> Run:
        """Measure, and return the run, as `interrupts.Measurement.measure` does, with the same errors and Ctrl-C."""
        with common_tuning(self._card, self._cpu, self._priority, self.run):
            try:
                for number in range(self._rounds):
                    shift = number % len(self._ways)
                    names = list(self._ways)
                    for way in names[shift:] + names[:shift]:
                        self._bar.next(way)
                        self._turn(way)
                        self._bar.done()
                    if self._output:
                        self._output.save(self.run)
            except KeyboardInterrupt:
                self.run.interrupted = True
        return self.run

    def _turn(self, way: str) -> None:
        began = time.time()
        self._card.quiet()
        drain(self._card)
        times = self._ways[way](WARM_UP + TURN + 1)
        drain(self._card)
        self._record(self._series[way], times, began)

    def _record(self, series: Series, times: list[int], began: float) -> None:
        series.lost += WARM_UP + TURN + 1 - len(times)
        series.warm_up += WARM_UP
        kept = times[WARM_UP:]
        if len(kept) > 1:
            series.seconds += (kept[-1] - kept[0]) / 1e9
        histogram = series.record(after - before for before, after in itertools.pairwise(kept))
        if self._output:
            self._output.add_round(series, histogram, began, time.time())

    def _in_c(self, count: int) -> list[int]:
        assert self._program is not None
        assert isinstance(self._card, Edu)
        with Records(count) as records, lent(self._card) as taken:
            running = self._program.rate(taken, records, count, self._cpu, self._priority)
            try:
                running.wait(60)
            finally:
                running.end(0)
            return records.times()

    def _in_python(self, count: int) -> list[int]:
        loop = self._loop_of_edu if isinstance(self._card, Edu) else self._loop
        with ThreadPoolExecutor(1, PYTHON) as executor:
            return executor.submit(loop, count).result()

    def _loop_of_edu(self, count: int) -> list[int]:
        assert isinstance(self._card, Edu)
        read, bar, now = self._card.device.interrupt.read, self._card.bar, time.monotonic_ns
        status = EduRegisters.interrupt_status.info.offset
        acknowledge = EduRegisters.acknowledge_interrupt.info.offset
        raising = EduRegisters.raise_interrupt.info.offset
        times = []
        with recipe(self._cpu, self._priority):
            for _ in range(count):
                bar.write32(raising, 1)
                read(10)
                times.append(now())
                bar.write32(acknowledge, bar.read32(status))
        return times

    def _loop(self, count: int) -> list[int]:
        card, read, now = self._card, self._card.device.interrupt.read, time.monotonic_ns
        times = []
        with recipe(self._cpu, self._priority):
            for _ in range(count):
                card.trigger()
                read(10)
                times.append(now())
                card.acknowledge()
        return times

    def _in_service(self, count: int) -> list[int]:
        program = [*self._card.acknowledge_program(), *self._card.trigger_program()]
        around = partial(recipe, self._cpu, self._priority)
        times: list[int] = []
        # The service runs until it is closed, so its ring may fill up once the wanted events were read.
        with Service(self._card.device.interrupt, program, capacity=1 << 16, around=around) as service:
            self._card.trigger()
            while len(times) < count:
                time.sleep(_PAUSE)
                times += [event.time for event in service.read(10, count - len(times))]
        return times
