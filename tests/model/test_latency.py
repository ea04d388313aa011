# SPDX-License-Identifier: MIT
"""``pyuio bench latency --card``: it measures on a card in Python; the speed does not matter."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from pyuio.cli.bench import app

EDU = "pyuio_drivers.models.edu:EduCard"

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the command wants two CPUs")


def bench(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["latency", *words, "--priority", "0", "--loads", "idle", "--no-picture"])
    return done.exit_code, done.output


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
