# SPDX-License-Identifier: MIT
"""``pyuio bench latency --card``: it measures on a card in Python; the speed does not matter."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from pyuio.cli.bench import app

EDU = "pyuio_drivers.models.edu:EduCard"
PR_CAPBSET_DROP, CAP_SYS_NICE = 24, 23

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the command wants two CPUs")


def bench(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["latency", *words, "--priority", "0", "--loads", "idle", "--no-picture"])
    return done.exit_code, done.output


def test_a_priority_that_is_refused() -> None:
    def may_not() -> None:
        resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0)  # it fails for who does not have it anyway

    command = [sys.executable, "-m", "pyuio.cli", "bench", "latency", "--card", EDU, "--count", "5", "--loads", "idle"]
    done = subprocess.run(command, preexec_fn=may_not, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "SCHED_FIFO, priority 89: " in done.stderr
    assert "or measure ordinary scheduling with --priority 0" in done.stderr


@pytest.mark.parametrize(("words", "kind"), [((), "INTx"), (("--message",), "MSI")])
def test_both_ways(words: tuple[str, ...], kind: str) -> None:
    status, output = bench("--card", EDU, "--count", "30", "--json", *words)
    assert status == 0, output
    run = json.loads(output)
    assert run["device"].endswith(f", model, {kind}")
    assert run["settings"]["loop"] == "in process"
    assert [series["way"] for series in run["series"]] == ["Python read loop", "native service"]
    for series in run["series"]:
        assert (series["count"], series["lost"], series["impossible"]) == (30, 0, 0)
        assert 0 < series["figures"]["min"] <= series["figures"]["max"]


def test_says_why_there_is_no_ratio() -> None:
    status, output = bench("--card", EDU, "--count", "5")
    assert status == 0, output
    assert "no C program that reaches a card in Python" in " ".join(output.split())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--card", "pyuio_drivers.models.edu:Edo"), "its cards: EduCard"),
        (("--card", "nowhere.at_all:Card"), "there is no module nowhere"),
        (("uio0", "--card", EDU), "either DEVICE or --card, not both"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], text: str) -> None:
    status, output = bench(*words)
    assert status == 2
    assert text in " ".join(output.split())
