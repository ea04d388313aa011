# SPDX-License-Identifier: MIT
"""``pyuio bench timer``: how late a thread wakes up from a sleep until a given time, measured as cyclictest does.

An event is a moment on a fixed grid, `interval` apart. Each event has one sample: the time from that moment until the
thread runs. A wake-up that comes after several events is the sample of each of them, so that a long delay counts for
every event that it made wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pyuio._native._timer import ffi, lib
from pyuio.doctor import facts
from pyuio.latency import environment, tuning
from pyuio.latency.errors import LoadError
from pyuio.latency.load import Load
from pyuio.latency.output import Output
from pyuio.latency.plan import Plan
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run, Series
from pyuio.latency.trace import Trace, TraceDone
from pyuio.rt.realtime import realtime
from pyuio.rt.settings import RealTime

INTERVALS = 10_000, 1_000_000_000  # ns, the least and the most
DEFAULT_PRIORITY = 89  # the highest less ten
HIGHEST_PRIORITY = 99

Samples = tuple[Sequence[int], Sequence[int]]  # latencies in ns, and whether nobody waited yet when the event came
Turn = tuple[int, Samples]  # when its first event came, and its samples


def in_c(first: int, interval: int, count: int, stop: Any) -> Samples:
    """Run a loop in C, without the GIL from the first event to the last."""
    latencies, late = ffi.new("int64_t[]", count), ffi.new("uint8_t[]", count)
    stored = _checked(lib.pyuio_timer_run(first, interval, count, latencies, late, stop))
    return ffi.unpack(latencies, stored), list(ffi.buffer(late, count)[:stored])


def stamped_in_c(first: int, interval: int, count: int, stop: Any) -> Samples:
    """Run a loop in Python in which one call waits and takes the time in C, before it asks for the GIL."""
    return _loop(first, interval, count, stop, lambda woken: woken)


def in_python(first: int, interval: int, count: int, stop: Any) -> Samples:
    """Run a loop in Python that takes the time when it runs again, with the GIL."""
    return _loop(first, interval, count, stop, lambda _: time.monotonic_ns())


def _loop(first: int, interval: int, count: int, stop: Any, stamp: Callable[[int], int]) -> Samples:
    latencies: list[int] = []
    late: list[int] = []
    wait, in_time = lib.pyuio_timer_wait, ffi.new("int *")
    when = first
    while len(latencies) < count and not stop[0]:
        now = stamp(wait(when, in_time))
        _checked(now)
        lib.pyuio_timer_sample(when, now)
        latencies.append(now - when)
        late.append(not in_time[0])
        when += interval
        while when <= now and len(latencies) < count:
            latencies.append(now - when)
            late.append(True)
            when += interval
    return latencies, late


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, f"clock_nanosleep: {os.strerror(-result)}")
    return result


WAYS = {"C": in_c, "stamp in C": stamped_in_c, "Python loop": in_python}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        plan: how much to measure.
        loads: the loads to measure under.
        cpus: the CPUs to measure on, with a thread for each.
        priority: for SCHED_FIFO, 1 to 99; 0 for ordinary scheduling.
    """

    plan: Plan
    loads: Sequence[type[Load]]
    cpus: Sequence[int]
    priority: int = DEFAULT_PRIORITY


def default_cpu() -> int:
    """Return the CPU to measure on when none was named: the last that is isolated, or else the last."""
    allowed = os.sched_getaffinity(0)
    return max(allowed.intersection(facts.isolated_cpus() or ()) or allowed)


def check(interval: int, cpus: Sequence[int], priority: int) -> None:
    """Check what a user asked for.

    Raises:
        ValueError: something is out of range; the message gives the range.
    """
    least, most = INTERVALS
    if not least <= interval <= most:
        raise ValueError(f"--interval must be {least // 1000} to {most // 1000} us, not {interval / 1000:g}")
    if not 0 <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"--priority must be 1 to {HIGHEST_PRIORITY}, or 0 for ordinary scheduling, not {priority}")
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        if cpu not in allowed:
            raise ValueError(f"--cpu {cpu}: this process may use {', '.join(map(str, allowed))}")


class _Waiter:
    """A thread on one CPU, made real-time once, that measures one turn after the other."""

    def __init__(self, cpu: int, priority: int) -> None:
        self.cpu = cpu
        self._priority = priority
        self._tuned: RealTime | None = None
        self._thread = ThreadPoolExecutor(1, f"CPU {cpu}")

    def begin(self) -> None:
        """Make the thread real-time. PermissionDeniedError: this process may not."""
        self._tuned = self._thread.submit(self._tune).result()
        tuning.require_priority(self._tuned, self._priority)

    def _tune(self) -> RealTime:
        if self._priority:
            return realtime(self._priority, cpus=self.cpu, strict=False)
        return realtime(policy=None, cpus=self.cpu, strict=False)

    def tuning(self) -> dict[str, Any]:
        return tuning.of(self._tuned.report) if self._tuned else {}

    def start(self, way: str, plan: Plan, stop: Any, trace: Trace | None) -> Future[Turn]:
        """Start a turn; the result includes its warm-up. After that, a sample beyond the limit ends the trace."""
        return self._thread.submit(self._turn, way, plan, stop, trace)

    @staticmethod
    def _turn(way: str, plan: Plan, stop: Any, trace: Trace | None) -> Turn:
        first = time.monotonic_ns() + max(plan.interval, 1_000_000)
        if trace is not None:
            lib.pyuio_timer_trace(trace.limit, first + plan.warm_up * plan.interval, trace.switch)
        return first, WAYS[way](first, plan.interval, plan.warm_up + plan.count, stop)

    def end(self) -> None:
        """Restore all settings of the thread, from the thread itself, and end it."""
        if self._tuned:
            self._thread.submit(self._tuned.close)
        self._thread.shutdown()


class Measurement:
    """One run of ``pyuio bench timer``.

    Args:
        options: what to measure.
        output: the files that are written as the measurement goes on; None for none.
        bar: shows the progress.
        trace: ends the measurement with the first sample that is too late; None for no trace.
    """

    def __init__(self, options: Options, output: Output | None, bar: Bar, trace: Trace | None = None) -> None:
        self._options = options
        self._trace = trace
        self._output = output
        self._bar = bar
        self._stop = ffi.new("int *")
        self._waiters = [_Waiter(cpu, options.priority) for cpu in options.cpus]
        several = len(options.cpus) > 1
        settings = {
            **options.plan.as_dict(),
            "loads": [load.name for load in options.loads],
            "cpus": list(options.cpus),
            "priority": options.priority,
        }
        self.run = Run("timer", environment=environment.read(), settings=settings)
        self._series = {
            (way, load.name, cpu): self.run.add(way, load.name, cpu if several else None)
            for load in options.loads
            for cpu in options.cpus
            for way in WAYS
        }

    def measure(self) -> Run:
        """Measure, and return the run. Ctrl-C ends the measurement early, and the run has the samples until then.

        Raises:
            PermissionDeniedError: the priority was refused.
            LoadError: a load cannot be started.
            OutputDirectoryError: results can no longer be written.
        """
        try:
            for waiter in self._waiters:
                waiter.begin()
            self._note_tuning()
            self._rounds()
        except KeyboardInterrupt:
            self.run.interrupted = True
        except TraceDone:
            assert self._trace is not None
            self.run.trace = self._trace.found
        finally:
            self._stop[0] = 1
            self._note_tuning()
            for waiter in self._waiters:
                waiter.end()
        return self.run

    def _note_tuning(self) -> None:
        several = len(self._waiters) > 1
        for waiter in self._waiters:
            more = {f"CPU {waiter.cpu}: {name}" if several else name: one for name, one in waiter.tuning().items()}
            self.run.tuning.update(more)

    def _rounds(self) -> None:
        ways = list(WAYS)
        for number in range(self._options.plan.rounds):
            # Each round begins with another way, so that no way always comes after the same one.
            shift = number % len(ways)
            for load in self._options.loads:
                with load() as running:
                    for way in ways[shift:] + ways[:shift]:
                        self._turn(way, running)
            if self._output:
                self._output.save(self.run)

    def _turn(self, way: str, load: Load) -> None:
        self._bar.next(f"{way}, {load.name}")
        began = time.time()
        started = [(waiter, waiter.start(way, self._options.plan, self._stop, self._trace)) for waiter in self._waiters]
        try:
            for _, turn in started:
                turn.result()
        except KeyboardInterrupt:
            self._stop[0] = 1
            raise
        finally:
            reasons = _why_ended(load)
            for waiter, turn in started:
                series = self._series[way, load.name, waiter.cpu]
                self._record(series, turn.result()[1], began)
                series.reasons += reasons
        self._bar.done()
        if self._trace is not None:
            plan = self._options.plan
            turns = []
            for waiter, turn in started:
                first, (latencies, _) = turn.result()
                samples = [(first + number * plan.interval, latency) for number, latency in enumerate(latencies)]
                name = self._series[way, load.name, waiter.cpu].name
                turns.append((name, waiter.cpu, samples[plan.warm_up :]))
            self._trace.look(*turns)

    def _record(self, series: Series, samples: Samples, began: float) -> None:
        plan = self._options.plan
        latencies, late = samples
        if not self._stop[0]:
            series.lost += plan.warm_up + plan.count - len(latencies)
        series.warm_up += min(plan.warm_up, len(latencies))
        series.late += sum(late[plan.warm_up :])
        kept = latencies[plan.warm_up :]
        series.seconds += len(kept) * plan.interval / 1e9
        histogram = series.record(kept)
        if self._output:
            self._output.add_round(series, histogram, began, time.time())


def _why_ended(load: Load) -> list[str]:
    try:
        load.check()
    except LoadError as error:
        return [str(error)]
    return []
