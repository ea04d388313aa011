# SPDX-License-Identifier: MIT
"""``pyuio bench timer`` with real-time scheduling, compared with cyclictest."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio import cli
from pyuio.latency import load, plan, timer
from pyuio.latency.progress import Bar
from pyuio.latency.results import Run
from tests.guest import rt_tests
from tests.guest.support import PROGRAM_LIMIT, forked, load_command

RT_TESTS = rt_tests.kept(os.uname().machine)
PRIORITY = 80
INTERVAL = 2_000_000  # ns
SAMPLES = 200  # in each of the rounds
ROUNDS = 4
# Both measure the same latency in turn. A wrong unit, clock or grid would give a result that differs by a factor of
# 1000, by half an interval, or by more.
AGREEMENT = 3.0


@pytest.mark.long
def test_the_command_with_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyuio.cli", "bench", "timer", "--count=100", "--json"]
    command += [f"--out={tmp_path}", "--no-picture"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stderr
    run = Run.load(tmp_path / "timer.json")
    assert json.loads(result.stdout) == run.as_dict()
    assert run.void == []
    assert [(series.way, series.load) for series in run.series] == [
        (way, kind.name) for kind in load.LOADS.values() for way in timer.WAYS
    ]
    for series in run.series:
        assert series.count == 100
        figures = [value for value in series.figures().values() if value is not None]
        assert figures == sorted(figures)
        assert series.late < series.count or series.way != "C"
    assert run.tuning["policy"]["got"].startswith(f"fifo {timer.DEFAULT_PRIORITY}")
    assert not run.tuning["lock_memory"]["missing"]
    assert run.environment["kernel release"] == os.uname().release
    assert run.environment["clock source"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".hlog", ".hgrm"}


def test_refused_priority_is_said_with_the_remedy() -> None:
    def without_capabilities() -> None:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
        assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
        cli.main()

    load_command()
    result = forked(without_capabilities, "pyuio", "bench", "timer", "--count=100")
    assert result.returncode == 1
    assert result.stderr.startswith("pyuio: SCHED_FIFO, priority 89: ")
    assert "CAP_SYS_NICE" in result.stderr
    assert "--priority 0" in result.stderr
    assert result.stderr.count("\n") == 1


def cyclictest(cpu: int) -> list[int]:
    """Return the samples of one run of cyclictest, in us."""
    program = RT_TESTS / "usr/bin/cyclictest"
    if not program.exists():
        pytest.skip(f"no {program}: python -m tests.guest.rt_tests {RT_TESTS} fetches it")
    (library,) = (RT_TESTS / "usr/lib").glob("*-linux-gnu")
    options = [
        "--quiet", "--mlockall", "--threads=1", f"--affinity={cpu}", f"--priority={PRIORITY}",
        f"--interval={INTERVAL // 1000}", f"--loops={SAMPLES}", "--histogram=100000",
    ]  # fmt: skip
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    output = subprocess.run(
        [program, *options], env=environment, capture_output=True, text=True, timeout=PROGRAM_LIMIT, check=True
    ).stdout
    rows = re.findall(r"^(\d+)\s+(\d+)$", output, re.MULTILINE)
    return [int(value) for value, count in rows for _ in range(int(count))]


@pytest.mark.long
def test_cyclictest_agrees() -> None:
    cpu = timer.default_cpu()
    options = timer.Options(plan.Plan(INTERVAL, 1, SAMPLES), load.named("idle"), [cpu], PRIORITY)
    theirs: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    with Bar(1) as bar:
        for _ in range(ROUNDS):
            samples = sorted(cyclictest(cpu))
            assert len(samples) >= SAMPLES // 2  # the others were beyond the range of its histogram
            theirs.append((samples[len(samples) // 10], samples[len(samples) // 2]))
            histogram = timer.Measurement(options, None, bar).measure().series[0].histogram
            ours.append((histogram.get_value_at_percentile(10) / 1000, histogram.get_value_at_percentile(50) / 1000))
    print(f"us, p10 and median of each round: cyclictest {theirs}, ours {ours}")
    # Compare the best of several rounds, because a noisy machine makes some rounds slow for either program. Do not
    # compare the minimum of all samples: it may belong to an event that came while the thread was still busy with
    # others, and cyclictest leaves such events out.
    for mine, other in zip(map(min, zip(*ours, strict=True)), map(min, zip(*theirs, strict=True)), strict=True):
        assert 1 / AGREEMENT < mine / other < AGREEMENT
