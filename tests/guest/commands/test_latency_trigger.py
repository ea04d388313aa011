# SPDX-License-Identifier: MIT
"""``pyuio bench latency`` and ``rate`` by a driver's own trigger(), on the serial port: that they measure, and that a
driver which does not raise what it says, or raises more, is found out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.serial16550 import Serial16550

from pyuio import Driver
from pyuio.latency import trigger_process
from pyuio.latency.closed_loop import ClosedLoop
from pyuio.latency.errors import MeasurementError
from pyuio.latency.interrupts import Measurement, Options
from pyuio.latency.load import Load
from pyuio.latency.plan import Plan
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run
from tests.guest.commands.test_latency import bench, result
from tests.guest.support import PATIENCE

LAST_WAIT = trigger_process._LAST_WAIT
WAYS = ["Python read loop", "native service"]
ORDINARY = Options(Plan(1_000_000, rounds=1, count=10), [Load], cpu=1, raising_cpu=0, priority=0)


def measure(card: Driver, options: Options = ORDINARY) -> Run:
    with ClosedLoop(card, options) as method, Bar(2) as bar:
        return Measurement(method, options, None, bar).measure()


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail if the test leaves a process behind."""
    before = children()
    yield
    assert children() == before


@pytest.mark.long
def test_latency(serial: str, tmp_path: Path) -> None:
    words = ["latency", serial, "--count", "60", "--loads", "idle,python", "--json", "--no-picture"]
    run = result(bench(*words, "--out", str(tmp_path)))
    assert [(series["load"], series["way"]) for series in run["series"]] == [
        (load, way) for load in ("idle", "busy Python thread") for way in WAYS
    ]
    for series in run["series"]:
        assert (series["count"], series["lost"], series["impossible"], series["warm_up"]) == (60, 0, 0, 20)
        figures = series["figures"]
        assert 0 < figures["min"] <= figures["p50"] <= figures["max"] < 60e9
    assert run["settings"]["loop"] == "closed"
    assert 0 < run["settings"]["trigger() takes, us"] < 1e6
    assert Run.load(tmp_path / "latency.json").as_dict() == run
    assert bench("compare", *[str(tmp_path / "latency.json")] * 2).returncode == 0


@pytest.mark.long
def test_the_table_says_what_is_missing(serial: str) -> None:
    done = bench("latency", serial, "--count", "30", "--loads", "idle", "--priority", "0")
    assert done.returncode == 0, done.stderr
    assert "no C program that knows how this card's interrupt" in done.stdout
    assert "trigger() takes" in done.stdout
    assert "/C" not in done.stdout


@pytest.mark.long
def test_rate(serial: str) -> None:
    run = result(bench("rate", serial, "--count", "1", "--json"))
    assert [series["way"] for series in run["series"]] == WAYS
    for series in run["series"]:
        assert series["count"] == 2000
        assert series["rate"] == pytest.approx(series["count"] / series["seconds"])


@pytest.mark.long
def test_interrupts_that_come_faster_than_they_are_handled_are_samples(serial: str) -> None:
    """No handler here keeps up with an interrupt every 10 us: those that waited are samples, and none is lost."""
    options = Options(Plan(10_000, rounds=1, count=300), [Load], cpu=1, raising_cpu=0, priority=0)
    with Serial16550.open(serial) as card:
        run = measure(card, options)
    assert run.void == []
    assert [series.count for series in run.series] == [300, 300]


@pytest.mark.long
def test_edu_too(edu: str) -> None:
    with Edu.open(edu) as card:
        run = measure(card)
    assert run.void == []
    assert [series.count for series in run.series] == [10, 10]


class Forgetful(Serial16550):
    calls = 0

    def trigger(self) -> None:
        self.calls += 1
        # The first one, because on a busy machine all may come due before there is a third call.
        if self.calls != 1:
            super().trigger()
        # In the process that triggers: it need not wait long for what will not come.
        trigger_process._LAST_WAIT = 0.3 if self.calls == 1 else LAST_WAIT


def test_an_interrupt_that_never_came_voids_the_run(serial: str) -> None:
    with Forgetful.open(serial) as card:
        run = measure(card)
    assert run.series[0].lost > 0  # the later ones, too, because the turn ends there
    assert run.series[1].lost == 0
    assert "lost" in run.void[0]


class Eager(Serial16550):
    def trigger(self) -> None:
        super().trigger()
        time.sleep(0.02)
        super().trigger()


@pytest.mark.long
def test_an_interrupt_too_many_voids_the_run(serial: str) -> None:
    with Eager.open(serial) as card:
        run = measure(card)
    assert all(series.impossible for series in run.series)
    assert "impossible" in run.void[0]


class Faulty(Serial16550):
    def trigger(self) -> None:
        raise ValueError("this card has no such register")


def test_a_trigger_that_raises(serial: str) -> None:
    with Faulty.open(serial) as card, pytest.raises(MeasurementError, match="no such register"):
        measure(card)


class Fatal(Serial16550):
    def trigger(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_a_process_that_ends(serial: str) -> None:
    with Fatal.open(serial) as card, pytest.raises(MeasurementError, match="ended with status -9"):
        measure(card)


@pytest.mark.long
def test_the_process_ends_with_the_one_that_was_killed(serial: str) -> None:
    command = [sys.executable, "-m", "pyuio.cli", "bench", "latency", serial, "--count", "5000", "--loads", "idle"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        forked = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        deadline = time.monotonic() + PATIENCE
        while not (pids := forked.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        running.kill()
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
