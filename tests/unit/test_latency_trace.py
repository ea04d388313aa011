# SPDX-License-Identifier: MIT
"""What is kept of the kernel's trace, and the limit that says what is too late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyuio.latency import limit, table
from pyuio.latency.errors import MeasurementError, ResultFileError
from pyuio.latency.results import Run, run_of
from pyuio.latency.trace import Trace, _mask, kept, parse

TEXT = """\
# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
          <idle>-0       [001] d..2.   100.000100: sched_switch: prev_comm=swapper/1 ==> next_comm=a-b next_pid=7
             a-b-7       [001] d.h1.   100.000180: irq_handler_entry: irq=24 name=edu
             a-b-7       [001] d.h1.   100.000200: irq_handler_exit: irq=24 ret=handled
             a-b-7       [001] d.s1.   100.000210: softirq_entry: vec=1 [action=TIMER]
             a-b-7       [001] d.s1.   100.000220: softirq_exit: vec=1 [action=TIMER]
             a-b-7       [001] d.h1.   100.000230: irq_handler_entry: irq=24 name=edu
             a-b-7       [001] d.h1.   100.000240: irq_handler_exit: irq=24 ret=handled
             a-b-7       [001] d.h1.   100.000340: irq_handler_entry: irq=24 name=edu
             a-b-7       [001] d.h1.   100.000350: irq_handler_exit: irq=24 ret=handled
             a-b-7       [001] d..2.   100.000400: sched_switch: prev_comm=a-b ==> next_comm=python next_pid=9
          python-9       [001] .....   100.000410: sys_exit: NR 230 = 0
          python-9       [001] .....   100.900000: sys_enter: NR 230
something else
"""
DUE = 100_000_150_000


def test_what_is_kept() -> None:
    found = kept(parse(TEXT), DUE, 100_000_405_000)
    assert found["complete"]
    assert found["ran"] == {"a-b-7": 200_000, "interrupts": 40_000, "softirqs": 10_000, "python-9": 5_000}
    assert len(found["lines"]) == 11, "lines of another time were kept"
    assert found["lines"][0] == (
        "      -50 <idle>-0 d..2. sched_switch: prev_comm=swapper/1 ==> next_comm=a-b next_pid=7"
    )
    assert not kept(parse(TEXT), 100_000_000_000, 100_000_405_000)["complete"]
    assert kept([], DUE, DUE + 1) == {"lines": [], "ran": {}, "complete": False}


def test_who_ran_after_the_last_line() -> None:
    lines = parse(TEXT)
    assert kept(lines[:10], 100_000_390_000, 100_000_405_000)["ran"] == {"a-b-7": 10_000, "python-9": 5_000}
    assert kept(lines[:9], DUE + 1_000_000, DUE + 1_005_000)["ran"] == {"a-b-7": 5_000}


def test_functions_that_are_called() -> None:
    """A parent whose name ends as that of an event is no end of an interrupt."""
    text = """\
          <idle>-0       [001] d.h..   100.000100: schedule <-irqentry_exit
          <idle>-0       [001] d.h..   100.000200: do_one_entry <-some_exit
"""
    found = kept(parse(text), 100_000_100_000, 100_000_200_000, most=1)
    assert found["ran"] == {"interrupts": 100_000}
    assert found["lines"] == ["     +100 <idle>-0 d.h.. do_one_entry <-some_exit"]
    assert not found["complete"], "a line before the first that is kept is left out"


def test_what_is_said_of_the_cause() -> None:
    run = Run("timer", limit=100_000)
    run.add("C", "idle").record([50_000, 255_000])
    run.trace = {**kept(parse(TEXT), DUE, 100_000_405_000), "series": "C, idle", "cpu": 1}
    run.trace["latency"] = 255_000
    assert run.beyond == ["C, idle"]
    assert table.beyond(run) == ["beyond 100 us: C, idle, 255 us"]
    assert table.cause(run.trace) == [
        "traced: C, idle, 255 us; meanwhile CPU 1 ran a-b-7 200 us, interrupts 40.0 us, softirqs 10.0 us, "
        "python-9 5.00 us"
    ]
    again = run_of(json.dumps(run.as_dict()).encode())
    assert again.as_dict() == run.as_dict()
    changes: list[dict[str, Any]] = [
        {"limit": 0},
        {"limit": True},
        {"trace": []},
        {"trace": {**run.trace, "lines": [1]}},
    ]
    for broken in changes:
        with pytest.raises(ResultFileError, match="is damaged"):
            run_of(json.dumps({**run.as_dict(), **broken}).encode())


def test_a_result_without_a_limit_is_as_before() -> None:
    run = Run("timer")
    run.add("C", "idle").record([10_000])
    data = run.as_dict()
    for name in ("limit", "beyond", "trace"):
        del data[name]
    assert run_of(json.dumps(data).encode()).beyond == []


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("100us", 100_000), ("100", 100_000), ("0.5ms", 500_000), ("1 s", 10**9), ("7ns", 7), ("100s", 10**11)],
)
def test_limits(text: str, nanoseconds: int) -> None:
    assert limit.parse(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "us", "0", "-1us", "0.1ns", "101s", "1e3", "1m", "nan", "1us ", "\u0663us"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="--max is a time from 1ns to 100s"):
        limit.parse(text)


def test_a_sample_of_the_limit_is_not_beyond_it() -> None:
    run = Run("timer", limit=100_000)
    run.add("C", "idle").record([100_000])
    assert run.beyond == []
    # Less than a histogram tells apart, but what ended the measurement counts.
    run.trace = {"series": "C, idle", "latency": 100_010, "cpu": 0, "lines": [], "ran": {}, "complete": True}
    assert run.beyond == ["C, idle"]
    run.trace = None
    run.series[0].record([100_200])
    assert run.beyond == ["C, idle"]


def test_masks_of_processors() -> None:
    assert [_mask(cpus) for cpus in ([0], [1, 3], [35], [0, 64])] == [
        "00000001",
        "0000000a",
        "00000008,00000000",
        "00000001,00000000,00000001",
    ]


def test_a_kernel_without_tracing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pyuio.latency.trace._ROOTS", (tmp_path, tmp_path / "none"))
    with pytest.raises(MeasurementError, match="mount -t tracefs tracefs /sys/kernel/tracing"):
        Trace(1, [0])
    (tmp_path / "instances").mkdir()
    with pytest.raises(MeasurementError, match=r"tracing_on|trace_clock|buffer_size"), Trace(1, [0]):
        pass
