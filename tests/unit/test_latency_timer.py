# SPDX-License-Identifier: MIT
"""The loops that wake up from a timer, the loads beside them, and the answers of ``pyuio bench timer`` to bad input.

On the host the loops run at ordinary priority; the guest tests run the whole command.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyuio import cli
from pyuio._native._timer import ffi
from pyuio.latency import load, plan, timer
from pyuio.latency.errors import LoadError
from pyuio.latency.load import BusyThread, CpuLoad, Load
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run

Way = Callable[[int, int, int, Any], timer.Samples]
ways = pytest.mark.parametrize("way", list(timer.WAYS.values()), ids=list(timer.WAYS))


@ways
def test_each_event_has_its_sample(way: Way) -> None:
    start = time.monotonic_ns() + 1_000_000
    latencies, late = way(start, 200_000, 50, ffi.new("int *"))
    end = time.monotonic_ns()
    assert len(latencies) == len(late) == 50
    assert all(0 <= value <= end - start for value in latencies)
    assert end >= start + 49 * 200_000  # it did wait


@ways
def test_a_late_wake_up_counts_for_every_event_that_it_missed(way: Way) -> None:
    interval = 1_000_000
    latencies, late = way(time.monotonic_ns() - 50 * interval, interval, 50, ffi.new("int *"))
    # One wake-up came after all events: each is late by one interval less than the one before.
    assert [a - b for a, b in itertools.pairwise(latencies)] == [interval] * 49
    assert min(latencies) >= interval
    assert all(late)


@ways
def test_it_stops_when_told(way: Way) -> None:
    stop = ffi.new("int *", 1)
    assert way(time.monotonic_ns(), 1000, 10, stop) == ([], [])


def test_plans() -> None:
    assert plan.make(1_000_000, 9, count=100).as_dict() == {
        "interval": 1_000_000,
        "rounds": 1,
        "count": 100,
        "warm_up": plan.WARM_UP,
        "total": 100,
    }
    assert plan.make(1_000_000, 9, count=100_000).total == 100_000
    for turns in (1, 3, 9):
        for duration in (1, 10, 3600):
            made = plan.make(1_000_000, turns, duration=duration)
            seconds = made.rounds * (made.count + made.warm_up) * turns / 1000
            assert duration * 0.8 <= seconds <= duration


def measure(tmp_path: Path, loads: str, cpus: list[int]) -> Run:
    options = timer.Options(plan.make(500_000, 3, count=40), load.named(loads), cpus, 0)
    with Bar(1) as bar:
        return timer.Measurement(options, None, bar).measure()


def test_a_run(tmp_path: Path) -> None:
    run = measure(tmp_path, "idle,python", [timer.default_cpu()])
    assert run.void == []
    assert [(series.way, series.load) for series in run.series] == [
        (way, name) for name in ("idle", "busy Python thread") for way in timer.WAYS
    ]
    assert all((series.count, series.warm_up, series.cpu) == (40, plan.WARM_UP, None) for series in run.series)
    assert run.tuning["cpus"]["got"] == str(timer.default_cpu())
    assert run.settings["priority"] == 0


def test_several_cpus(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU only")
    run = measure(tmp_path, "idle", cpus)
    assert {series.cpu for series in run.series} == set(cpus)
    assert all(series.count == 40 for series in run.series)
    assert [len(run.under(condition)) for condition in run.conditions] == [3, 3]


def test_a_load_that_ends_makes_void(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ending(Load):
        name = "ending"

        def check(self) -> None:
            raise LoadError("it ended by itself")

    monkeypatch.setitem(load.LOADS, "ending", Ending)
    assert "C, ending: it ended by itself" in measure(tmp_path, "ending", [timer.default_cpu()]).void


def ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_cpu_load_runs_and_ends() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with CpuLoad() as running:
        workers = [worker.pid for worker in running.workers]
        assert [os.sched_getaffinity(worker) for worker in workers] == [{cpu} for cpu in cpus]
        assert all(os.sched_getscheduler(worker) == os.SCHED_OTHER for worker in workers)
        before = [ticks(worker) for worker in workers]
        until(lambda: all(ticks(worker) > was for worker, was in zip(workers, before, strict=True)))
        running.check()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_worker_that_ends_is_noticed() -> None:
    with CpuLoad(pinned=False) as running:
        os.kill(running.workers[-1].pid, signal.SIGKILL)
        running.workers[-1].wait()
        with pytest.raises(LoadError, match="ended by itself"):
            running.check()


def test_a_worker_that_cannot_start() -> None:
    with pytest.raises(LoadError, match="instead of starting"), CpuLoad([max(os.sched_getaffinity(0)) + 4000]):
        pass


def test_no_worker_outlives_a_killed_measurement() -> None:
    program = """
import time
from pyuio.latency.load import CpuLoad
with CpuLoad() as running:
    print(*[worker.pid for worker in running.workers], flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        workers = process.stdout.readline().split()
        assert workers
        process.kill()

    def state(worker: str) -> str:
        try:
            return Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "X"

    until(lambda: all(state(worker) in "ZX" for worker in workers))


def test_the_busy_thread_runs_and_ends() -> None:
    with BusyThread() as running:
        before = running.turns
        until(lambda: running.turns > before)
        running.check()
    after = running.turns
    with pytest.raises(LoadError, match="ended by itself"):
        running.check()
    time.sleep(0.01)
    assert running.turns == after


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command line and return its exit status."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["pyuio", "bench", "timer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cpu", 4000], "--cpu 4000: this process may use 0"),
        (["--priority", 100], "--priority must be 1 to 99, or 0 for ordinary scheduling, not 100"),
        (["--priority", -1], "--priority must be"),
        (["--interval", 0], "--interval must be above 0 us"),
        (["--interval", 1], "--interval must be 10 to 1000000 us, not 1"),
        (["--duration", 0], "--duration must be above 0 s"),
        (["--duration", "nan"], "--duration must be above 0 s"),
        (["--duration", 0.01], "leaves no time after the warm-up"),
        (["--count", 0], "--count must be at least 1"),
        (["--count", 5, "--duration", 5], "either --duration or --count"),
        (["--loads", "idle,heavy"], "there is no load 'heavy'; there are idle, python, cpu"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    bench: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: list[object], says: str
) -> None:
    assert bench(*arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("pyuio: ")
    assert says in errors
    assert errors.count("\n") == 1


def test_a_directory_that_cannot_be_written_is_found_before_measuring(
    bench: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--out", "/proc/1/x", "--priority", 0, "--duration", 3600) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("pyuio: /proc/1/x: results cannot be written there")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_what_was_measured_when_a_signal_ends_it_is_saved_and_shown(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pyuio.cli", "bench", "timer", "--priority=0", "--loads=idle", "--duration=3600"]
    with subprocess.Popen(
        [*command, f"--out={tmp_path}", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # The file has a round although the measurement has not ended.
        until((tmp_path / "timer.json").exists)
        assert not Run.load(tmp_path / "timer.json").interrupted
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    run = Run.load(tmp_path / "timer.json")
    assert run.interrupted
    assert run.void == []
    assert all(series.count for series in run.series)
    assert json.loads(output) == run.as_dict()
    assert (tmp_path / "timer-C-idle.hgrm").exists()


def test_a_duration_of_0_is_no_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pyuio", "bench", "latency", "--duration=0"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert re.search("--duration must be above 0 s", capsys.readouterr().err)
