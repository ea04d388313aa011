# SPDX-License-Identifier: MIT
"""Short runs of ``pyuio bench latency`` and ``pyuio bench rate``: they measure; the speed does not matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pyuio.kernel import programs
from pyuio.kernel.drivers import bound_driver
from pyuio.latency.results import Run
from tests.guest.support import PCI_SERIAL, PCI_TESTDEV, PROGRAM_LIMIT, Cards, pyuio_beside, pyuio_command

WAYS = ["C", "Python read loop", "native service"]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return pyuio_command("bench", *words)


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["void"] == []
    return found


@pytest.mark.parametrize("loads", ["idle", pytest.param("idle,python", marks=pytest.mark.long)])
def test_latency(edu: str, tmp_path: Path, loads: str) -> None:
    run = result(
        bench("latency", edu, "--count", "8", "--loads", loads, "--json", "--no-picture", "--out", str(tmp_path))
    )
    names = {"idle": ["idle"], "idle,python": ["idle", "busy Python thread"]}[loads]
    assert [(series["load"], series["way"]) for series in run["series"]] == [
        (name, way) for name in names for way in WAYS
    ]
    for series in run["series"]:
        assert (series["count"], series["lost"], series["impossible"]) == (8, 0, 0)
        figures = series["figures"]
        assert 0 < figures["min"] <= figures["p50"] <= figures["max"] < 60e9
    assert "interrupt_cpu" in run["tuning"]
    assert Run.load(tmp_path / "latency.json").as_dict() == run
    assert bound_driver(edu) is None
    log = (tmp_path / "latency.hlog").read_text()
    assert log.count("Tag=") == len(names) * len(WAYS)


@pytest.mark.long
def test_rate(edu: str) -> None:
    run = result(bench("rate", edu, "--count", "1", "--json"))
    assert [series["way"] for series in run["series"]] == WAYS
    for series in run["series"]:
        assert series["count"] == 2000
        assert series["rate"] == pytest.approx(series["count"] / series["seconds"])


@pytest.mark.long
def test_ctrl_c_keeps_what_was_measured(edu: str, tmp_path: Path) -> None:
    words = ["latency", edu, "--count", "1500", "--loads", "idle", "--no-picture", "--out", str(tmp_path)]
    with pyuio_beside("bench", *words) as running:
        while not (tmp_path / "latency.json").exists() and running.poll() is None:
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate(timeout=PROGRAM_LIMIT)
    assert running.returncode == 130
    assert "interrupted" in output
    run = Run.load(tmp_path / "latency.json")
    assert run.interrupted
    assert run.void == []
    assert all(series.count >= 1 for series in run.series)
    assert bound_driver(edu) is None


def test_a_card_that_the_kernel_has(cards: Cards) -> None:
    done = bench("latency", cards(PCI_SERIAL)[0])
    assert (done.returncode, "held by the kernel driver serial" in done.stderr) == (1, True)


@pytest.mark.long
def test_bad_input(edu: str, cards: Cards, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words, status, says in (
        (["latency", edu, "--priority", "100"], 2, "--priority"),
        (["latency", edu, "--cpu", "99"], 2, "--cpu 99"),
        (["latency", "00:1e.7"], 1, "there is no device"),
        (["latency", cards(PCI_TESTDEV)[0]], 1, "no installed driver serves 1b36:0005; there are: e1000e ("),
        (["latency", edu, "--out", str(tmp_path / "file/below")], 1, "file"),
    ):
        done = pyuio_command("bench", *words)
        assert done.returncode == status, words
        assert says in done.stderr
        assert "Traceback" not in done.stderr


def test_one_cpu_only(edu: str) -> None:
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {0})
        done = bench("latency", edu)
        os._exit(0 if done.returncode == 2 and "another raises it" in done.stderr else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_no_compiler(edu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(programs, "SYSTEM_PATH", "/nowhere")  # where root looks
    done = bench("rate", edu)
    assert done.returncode == 1
    assert "install gcc" in done.stderr
