# SPDX-License-Identifier: MIT
"""``pyuio bench --max --trace``: the kernel's own trace of the first sample that is too late."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

from pyuio._native._timer import ffi
from pyuio.latency.closed_loop import ClosedLoop
from pyuio.latency.interrupts import Measurement, Options
from pyuio.latency.load import Load
from pyuio.latency.plan import Plan
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run
from pyuio.latency.timer import _Waiter
from pyuio.latency.trace import Trace, parse
from tests.guest.commands.test_latency import bench

TRACING = Path("/sys/kernel/tracing")


@pytest.fixture(autouse=True)
def tracing() -> Iterator[None]:
    """Mount the kernel's tracing, and check that the test leaves no instance of it behind."""
    if not (TRACING / "instances").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], check=True)
    yield
    assert list((TRACING / "instances").iterdir()) == []
    assert (TRACING / "current_tracer").read_text() == "nop\n"


def test_the_first_sample_that_is_too_late_ends_the_measurement(tmp_path: Path) -> None:
    words = ["timer", "--count", "2000", "--loads", "idle", "--max", "1ns", "--trace"]
    done = bench(*words, "--no-picture", "--out", str(tmp_path), "--report", str(tmp_path / "run.html"))
    assert done.returncode == 1, done.stderr
    run = Run.load(tmp_path / "timer.json")
    assert run.void == []
    assert run.beyond == ["C, idle"], "the measurement went on"
    trace = run.trace
    assert trace is not None
    assert (trace["series"], trace["complete"]) == ("C, idle", True)
    assert 0 < sum(trace["ran"].values()) <= trace["latency"]
    # Which of these is the cause differs: a thread that is not asleep yet when the timer is due is not switched to.
    cause = "sched_switch|sched_waking|local_timer_entry"
    assert re.search(cause, "\n".join(trace["lines"]))
    assert f"traced: C, idle, {trace['latency'] / 1000:.0f}"[:18] in done.stdout
    assert re.search(cause, (tmp_path / "run.html").read_text())


def test_the_timer_itself_stops_the_recording(tmp_path: Path) -> None:
    """At the first sample after the warm-up; a recording until the end of the turn, half a second, would go on."""
    cpu = max(os.sched_getaffinity(0))
    waiter = _Waiter(cpu, 0)
    waiter.begin()
    with Trace(1, [cpu]) as trace:
        plan = Plan(1_000_000, rounds=1, count=200)
        first, (latencies, _) = waiter.start("C", plan, ffi.new("int *"), trace).result()
        counted = plan.warm_up
        assert (trace._instance / "tracing_on").read_text() == "0\n"
        lines = parse((trace._instance / f"per_cpu/cpu{cpu}/trace").read_text())
        end = first + (counted + 1) * plan.interval + latencies[counted]
        assert first < lines[-1].time < end + 10 * plan.interval
    waiter.end()


@pytest.mark.long
def test_a_tracer_that_this_kernel_does_not_have() -> None:
    done = bench("timer", "--count", "20", "--loads", "idle", "--max", "1ns", "--trace", "--tracer", "timerlat_9")
    assert done.returncode == 1
    assert "--tracer timerlat_9: this kernel has no such tracer" in done.stderr
    assert "it has: " in done.stderr
    done = bench("timer", "--count", "20", "--tracer", "function")
    assert done.returncode == 2
    assert "it needs --trace" in done.stderr


@pytest.mark.long
def test_interrupts(edu: str) -> None:
    options = Options(Plan(1_000_000, rounds=2, count=10), [Load], cpu=1, raising_cpu=0, priority=0)
    lines: list[str] = []
    for _ in range(5):  # the interrupt may have come on another CPU, or before the thread slept
        with Edu.open(edu) as card, ClosedLoop(card, options) as method, Bar(2) as bar, Trace(1, [1]) as trace:
            run = Measurement(method, options, None, bar, trace).measure()
        assert run.trace is not None
        assert run.trace["series"] == "Python read loop, idle"
        assert [series.count for series in run.series] == [10, 0]
        lines += run.trace["lines"]
        if any("sched_switch" in line for line in lines):  # to the thread that read it
            return
    raise AssertionError(f"no switch to the thread: {lines}")


@pytest.mark.long
def test_nothing_is_kept_if_nothing_is_late(tmp_path: Path) -> None:
    (TRACING / "instances/pyuio-99999999").mkdir()  # of a process that was killed
    done = bench(
        "timer", "--count", "20", "--loads", "idle", "--max", "100s", "--trace", "--no-picture",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = Run.load(tmp_path / "timer.json")
    assert (run.trace, run.beyond, run.limit) == (None, [], 100_000_000_000)
