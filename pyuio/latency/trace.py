# SPDX-License-Identifier: MIT
"""``--trace``: what the kernel did on the measured CPUs around the first sample beyond the limit.

The kernel records into an instance of its tracing of our own (Documentation/trace/ftrace.rst, "Instances"), so that
nobody else's tracing is disturbed. Its clock is that of the samples, CLOCK_MONOTONIC. After each turn, half a second,
the samples of the turn are looked through; with the first that is too late the lines around it are kept, and the
measurement ends. A timer's thread itself stops the recording at that sample, before later lines take the place of those
that tell why. What handles interrupts does not know when they came due, and so the recording goes on until the end of
the turn.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from pyuio.errors import PermissionDeniedError
from pyuio.latency.errors import MeasurementError

_ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_EVENTS = ("sched/sched_switch", "sched/sched_waking", "irq", "irq_vectors", "timer/hrtimer_expire_entry", "nmi")
_KILOBYTES = 8192  # of each CPU: more than a turn of half a second fills, unless each function is recorded
_KILOBYTES_OF_TRACER = 65536
_BEFORE, _AFTER = 200_000, 100_000  # ns that are kept before the event and after its sample
_MOST = 2000  # lines
_MOST_OF_TRACER = 20_000
# Documentation/trace/ftrace.rst: task, PID, CPU, flags, seconds, what happened.
_LINE = re.compile(r"\s*(.+)-(\d+)\s+(?:\(.{7}\)\s+)?\[(\d+)\]\s+(\S+)\s+(\d+)\.(\d{6}): (.*)")
_NEXT = re.compile(r"==> next_comm=(.*) next_pid=(\d+)")


class TraceDone(Exception):
    """A sample was beyond the limit, and its trace is kept."""


class Line(NamedTuple):
    """One line of the trace; the time is in ns."""

    time: int
    task: str
    flags: str
    text: str


class Trace:
    """Records the switches of tasks, interrupts and timers of some CPUs until a sample is beyond the limit.

    A context manager, which ends the recording.

    Args:
        limit: in ns.
        cpus: the CPUs.
        tracer: one of the kernel's tracers that records, too: ``"function"``, each function of the kernel; None for the
            events alone.

    Attributes:
        limit: that.
        found: what was kept, for JSON; None until a sample was beyond the limit.
        switch: descriptor of ``tracing_on``: a 0 that is written there ends the recording.

    Raises:
        MeasurementError: the kernel has no such tracing or tracer, or it is not mounted.
        PermissionDeniedError: this user may not trace.
    """

    def __init__(self, limit: int, cpus: Sequence[int], tracer: str | None = None) -> None:
        self.found: dict[str, Any] | None = None
        self.limit = limit
        self.switch = -1
        self._cpus = tuple(cpus)
        self._tracer = tracer
        root = next((one for one in _ROOTS if os.access(one / "instances", os.F_OK) or not _readable(one)), None)
        if root is None:
            raise MeasurementError(
                "--trace: the kernel's tracing is not mounted at /sys/kernel/tracing, or the kernel has none: "
                "mount -t tracefs tracefs /sys/kernel/tracing"
            )
        self._instance = root / f"instances/pyuio-{os.getpid()}"

    def __enter__(self) -> Trace:
        try:
            for left in self._instance.parent.glob("pyuio-*"):  # by a process that was killed; it would record for ever
                if left == self._instance or not Path("/proc", left.name.removeprefix("pyuio-")).exists():
                    left.rmdir()
            self._instance.mkdir()
            if self._tracer is not None:
                self._require_tracer(self._tracer)
            self._set_up()
        except PermissionError as error:
            self._remove()
            where = error.filename or self._instance
            raise PermissionDeniedError(
                errno.EPERM, f"--trace: {where}: {error.strerror}; tracing needs root"
            ) from error
        except MeasurementError:
            self._remove()
            raise
        except OSError as error:
            self._remove()
            where = error.filename or self._instance
            raise MeasurementError(f"--trace: {where}: {error.strerror or error}") from error
        return self

    def _require_tracer(self, tracer: str) -> None:
        """Raise MeasurementError if this kernel does not have a tracer; the message lists those that it has."""
        there = (self._instance / "available_tracers").read_text().split()
        if tracer not in there:
            has = ", ".join(sorted(set(there) - {"nop"})) or "none"
            raise MeasurementError(
                f"--tracer {tracer}: this kernel has no such tracer (CONFIG_{tracer.upper()}_TRACER); it has: {has}"
            )

    def _set_up(self) -> None:
        self._write("tracing_on", "0")
        self._write("trace_clock", "mono")
        self._write("tracing_cpumask", _mask(self._cpus))
        for cpu in self._cpus:
            self._write(f"per_cpu/cpu{cpu}/buffer_size_kb", str(_KILOBYTES_OF_TRACER if self._tracer else _KILOBYTES))
        for event in _EVENTS:
            if (self._instance / "events" / event).exists():
                self._write(f"events/{event}/enable", "1")
        if self._tracer is not None:
            self._write("current_tracer", self._tracer)
        self.switch = os.open(self._instance / "tracing_on", os.O_WRONLY | os.O_CLOEXEC)
        self._write("tracing_on", "1")

    def _write(self, name: str, text: str) -> None:
        try:
            (self._instance / name).write_text(text)
        except OSError as error:  # the kernel's answer to a write, which does not name the file
            error.filename = error.filename or f"{self._instance / name}: {text}"
            raise

    def _remove(self) -> None:
        switch, self.switch = self.switch, -1
        if switch >= 0:
            os.close(switch)
        with contextlib.suppress(OSError):
            self._instance.rmdir()  # its files go with it

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._write("tracing_on", "0")
        self._remove()

    def look(self, *turns: tuple[str, int, Sequence[tuple[int, int]]]) -> None:
        """Look through samples of one turn, and keep the trace of the first one that is beyond the limit.

        Args:
            turns: the name of a series, the CPU that it was measured on, and its samples: when each event came due,
                CLOCK_MONOTONIC in ns, and its latency in ns.

        Raises:
            TraceDone: a trace was kept.
        """
        beyond = (
            (due + latency, due, name, cpu)
            for name, cpu, samples in turns
            for due, latency in samples
            if latency > self.limit
        )
        if (first := min(beyond, default=None)) is None:
            return
        self._write("tracing_on", "0")
        woken, due, series, cpu = first
        text = (self._instance / f"per_cpu/cpu{cpu}/trace").read_text(errors="replace")
        self.found = kept(parse(text), due, woken, _MOST_OF_TRACER if self._tracer else _MOST)
        self.found.update({"series": series, "cpu": cpu, "latency": woken - due})
        raise TraceDone


def parse(text: str) -> list[Line]:
    """Return the lines of a trace's text, those that are none left out."""
    found = (_LINE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return [
        Line(int(one[5]) * 1_000_000_000 + int(one[6]) * 1000, f"{one[1]}-{one[2]}", one[4], one[7])
        for one in found
        if one is not None
    ]


def kept(lines: Sequence[Line], due: int, woken: int, most: int = _MOST) -> dict[str, Any]:
    """Return what is kept of a trace, for JSON.

    Args:
        lines: of one CPU, in the order of time.
        due: when the event came, in ns.
        woken: when whoever waited for it ran, in ns.
        most: how many lines are kept.

    Returns:
        ``lines``, the text around the sample, each with its time in us from `due` on; ``ran``, the ns that each task,
        interrupts and softirqs had the CPU from `due` to `woken`; ``complete``, whether the trace reaches back to
        `due`.
    """
    near = [line for line in lines if due - _BEFORE <= line.time <= woken + _AFTER][-most:]
    shown = [f"{(line.time - due) / 1000:+9.0f} {line.task} {line.flags} {line.text}" for line in near]
    complete = bool(lines) and lines[0].time <= due and (len(near) < most or near[0].time <= due)
    return {"lines": shown, "ran": _ran(lines, due, woken), "complete": complete}


def _ran(lines: Sequence[Line], due: int, woken: int) -> dict[str, int]:
    """Return how long each task, interrupts and softirqs had the CPU, the longest first."""
    ran: dict[str, int] = {}
    for before, line in itertools.pairwise(lines):
        took = min(line.time, woken) - max(before.time, due)
        if took > 0:
            name = _context(before, line) or line.task  # that of a line is the task that ran until then
            ran[name] = ran.get(name, 0) + took
    if lines and (took := woken - max(lines[-1].time, due)) > 0:  # from there on nothing was recorded
        name = _task_after(lines[-1])
        ran[name] = ran.get(name, 0) + took
    return dict(sorted(ran.items(), key=lambda item: -item[1]))


# The third of the flags (Documentation/trace/ftrace.rst, "hardirq/softirq").
_CONTEXTS = {"h": "interrupts", "H": "interrupts", "z": "NMIs", "Z": "NMIs", "s": "softirqs"}


def _context(before: Line, line: Line) -> str:
    """Return the context of the time between two lines if both are of one that is no task's; "" if a task ran."""
    contexts = [_CONTEXTS.get(one.flags[2:3], "") for one in (before, line)]
    left = _event(before).endswith("_exit") or _event(line).endswith("_entry")
    return contexts[0] if contexts[0] == contexts[1] and not left else ""


def _task_after(line: Line) -> str:
    """Return the task that has the CPU after a line: the one that is switched to, or else the same."""
    following = _NEXT.search(line.text)
    return f"{following[1]}-{following[2]}" if following else line.task


def _event(line: Line) -> str:
    """Return the name of the event in a line; "" for a call of a function, as ``schedule <-do_idle``."""
    name, colon, _ = line.text.partition(":")
    return name if colon else ""


def _mask(cpus: Iterable[int]) -> str:
    """Return a mask of CPUs in hexadecimal, 32 bits to a word, as the kernel reads it."""
    bits = f"{sum(1 << cpu for cpu in set(cpus)):x}"
    bits = bits.zfill(-(-len(bits) // 8) * 8)
    return ",".join(bits[start : start + 8] for start in range(0, len(bits), 8))


def _readable(path: Path) -> bool:
    """Return whether this user sees what is in a directory; True for one that is not there."""
    return not path.exists() or os.access(path, os.R_OK | os.X_OK)
