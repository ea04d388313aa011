# SPDX-License-Identifier: MIT
"""The display of a run, and of several runs side by side."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from pyuio.latency import environment, table
from pyuio.latency.comparison import Comparison
from pyuio.latency.errors import ResultFileError
from pyuio.latency.results import Run
from tests.in_process import command_here


def a_run(factor: int = 1) -> Run:
    run = Run(
        "timer",
        environment={
            "kernel release": "6.1.0",
            "preemption": "voluntary",
            "CPU model": "a processor",
            "CPUs online": 2,
        },
        tuning={"policy": {"asked": "fifo 89", "got": "fifo 89", "missing": ""}},
        settings={"interval": 1000000},
    )
    for way, slower in (("C", 1), ("Python loop", 3)):
        for load in ("idle", "busy Python thread"):
            run.add(way, load).record([10_000 * slower * factor] * 980 + [2_000_000 * slower] * 20)
    return run


def shown(run: Run, *, width: int = 80) -> str:
    output = io.StringIO()
    table.show(run, Console(file=output, width=width))
    return output.getvalue()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_table_in_a_pipe_of_80_columns() -> None:
    text = shown(a_run())
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "Linux 6.1.0 (voluntary), a processor x 2" in text
    assert ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max", "p50/C", "p99/C"] in rows(text)
    assert ["C", "10.0", "10.0", "10.0", "2,001", "~2,001", "-", "2,001", "1.00", "1.00"] in rows(text)
    assert ["Python", "loop", "30.0", "30.0", "30.0", "6,001", "~6,001", "-", "6,001", "3.00", "3.00"] in rows(text)
    assert "each: 1,000 samples, 0 lost, 0 warm-up left out" in text
    assert "VOID" not in text
    assert "interrupted" not in text


def test_void_is_said_where_it_cannot_be_missed() -> None:
    run = a_run()
    run.series[0].lost = 2
    text = shown(run)
    assert "VOID: these figures must not be used" in text
    assert "VOID: C, idle: 2 of 1002 samples lost" in " ".join(text.split())
    (row,) = [row for row in rows(text) if row[:2] == ["C", "VOID"]]
    assert row[2] == "10.0"
    colours = io.StringIO()
    table.show(run, Console(file=colours, width=80, force_terminal=True, color_system="standard"))
    assert "\x1b[1;31m" in colours.getvalue()


def test_what_else_is_to_be_known() -> None:
    run = a_run()
    run.interrupted = True
    run.series[0].late, run.series[0].warm_up = 5, 20
    run.tuning["policy"] = {"asked": "fifo 89", "got": "", "missing": "not permitted"}
    run.tuning["throttling"] = {"limit": "950000 us in 1000000", "held back": 2}
    text = " ".join(shown(run).split())
    assert "interrupted: what follows was measured until then" in text
    assert "C: 1,000 samples, 0 lost, 20 warm-up left out, 5 late" in text
    assert "without policy: not permitted" in text
    assert "held the thread back 2 times" in text


def test_no_ratio_where_there_is_no_c() -> None:
    run = Run("timer")
    run.add("Python loop", "idle").record([10])
    run.add("nothing", "CPU load")
    assert "p50/C" not in shown(run).split("each as")[0].split("\n\n")[1]
    assert ["nothing", *["-"] * 7] in rows(shown(run))


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (None, "-"),
        (0, "0.00"),
        (2314, "2.31"),
        (9_994, "9.99"),
        (9_996, "10.0"),
        (23_140, "23.1"),
        (99_949, "99.9"),
        (99_960, "100"),
        (2_314_000, "2,314"),
        (999_999_000, "999,999"),
        (12_345_678_000, "1.23e7"),
    ],
)
def test_microseconds_have_the_digits_that_mean_something(nanoseconds: int | None, text: str) -> None:
    assert table.microseconds(nanoseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.0, "1.00"), (0.5, "0.50"), (0.0012, "0.0012"), (12.34, "12.3"), (4321.0, "4,321")],
)
def test_ratios(value: float | None, text: str) -> None:
    assert table.ratio(value) == text


def saved(directory: Path, **runs: Run) -> list[Path]:
    paths = [directory / f"{name}.json" for name in runs]
    for path, run in zip(paths, runs.values(), strict=True):
        run.save(path)
    return paths


def test_runs_side_by_side(tmp_path: Path) -> None:
    other = a_run(2)
    other.environment["preemption"] = "PREEMPT_RT"
    other.tuning["policy"] = {"asked": "fifo 89", "got": "", "missing": "not permitted"}
    other.series[3].impossible = 1
    other.add("native service", "idle").record([1])
    comparison = Comparison(saved(tmp_path, first=a_run(), second=other))
    output = io.StringIO()
    comparison.show(Console(file=output, width=80))
    text = output.getvalue()
    assert max(map(len, text.splitlines())) <= 80 or str(tmp_path) in text
    assert ["preemption", "voluntary", "PREEMPT_RT"] in rows(text)
    assert "fifo 89, REFUSED (not permitted)" in " ".join(text.split())
    assert "CPU model" not in text
    assert ["A", "10.0", "10.0", "10.0", "2,001", "~2,001", "-", "2,001"] in rows(text)
    assert ["B/A", "2.00", "2.00", "2.00", "1.00", "1.00", "-", "1.00"] in rows(text)
    assert "VOID: Python loop, busy Python thread: 1 samples impossible" in " ".join(text.split())
    assert [row[:2] for row in rows(text)].count(["B", "VOID"]) == 1
    data = json.loads(json.dumps(comparison.as_dict()))
    assert {row["name"]: (row["A"], row["B"]) for row in data["differences"]} == {
        "preemption": ("voluntary", "PREEMPT_RT"),
        "tuning: policy": ("fifo 89", "fifo 89, REFUSED (not permitted)"),
    }
    found = {(row["condition"], row["way"]): row for row in data["series"]}
    assert found["idle", "C"]["ratios"]["B/A"]["p50"] == pytest.approx(2, rel=0.002)
    assert found["idle", "native service"]["figures"]["A"] is None
    assert found["idle", "native service"]["ratios"]["B/A"]["p50"] is None


def test_three_runs_are_compared_with_the_first(tmp_path: Path) -> None:
    comparison = Comparison(saved(tmp_path, a=a_run(1), b=a_run(2), c=a_run(4)))
    (row, *_) = comparison.as_dict()["series"]
    assert {name: round(ratios["p50"]) for name, ratios in row["ratios"].items()} == {"B/A": 2, "C/A": 4}
    output = io.StringIO()
    comparison.show(Console(file=output, width=80))
    assert "The boxes, their tuning and the settings are the same." in output.getvalue()


def test_any_number_of_runs_worst_first(tmp_path: Path) -> None:
    runs = {f"box{number}": a_run() for number in range(30)}
    for number, run in enumerate(runs.values()):
        run.environment["preemption"] = "PREEMPT_RT" if number % 2 else "voluntary"
    runs["box27"].series[0].record([90_000_000])
    runs["box3"].series[0].record([50_000_000])
    del runs["box5"].series[0]
    comparison = Comparison(saved(tmp_path, **runs), limit=40_000_000)
    assert [entry.letter for entry in comparison.entries[24:30]] == ["Y", "Z", "AA", "AB", "AC", "AD"]
    assert comparison.beyond == ["D", "AB"]
    found = {(row["condition"], row["way"]): row for row in comparison.as_dict()["series"]}
    order = found["idle", "C"]["worst first"]
    assert (order[:3], order[-1], len(order)) == (["AB", "D", "A"], "F", 30)
    output = io.StringIO()
    comparison.show(Console(file=output, width=80))
    text = output.getvalue()
    first = [row[0] for row in rows(text.partition("idle, us")[2]) if row][:40]
    assert first[1:4] == ["AB", "D", "A"]
    assert first.index("F") < first.index("AB/A") < first.index("D/A")
    assert "beyond 40,000 us: C, idle, 90,0" in text
    assert "  preemption: voluntary (A, C, E, G" in text
    assert "; PREEMPT_RT (B, D, F," in text


def test_different_kinds_are_refused(tmp_path: Path) -> None:
    other = a_run()
    other.kind = "latency"
    with pytest.raises(ResultFileError, match=r"bench latency.*bench timer.*only results of one kind"):
        Comparison(saved(tmp_path, a=a_run(), b=other))


def compare(*arguments: object) -> subprocess.CompletedProcess[str]:
    return command_here("bench", "compare", *map(str, arguments))


def test_the_command(tmp_path: Path) -> None:
    first, second = saved(tmp_path, a=a_run(), b=a_run(2))
    result = compare(first, second)
    assert result.returncode == 0
    assert "B/A" in result.stdout
    assert json.loads(compare("--json", first, second).stdout)["runs"][1]["file"] == str(second)
    limited = compare(first, second, "--max", "1ms", "--picture", tmp_path / "both.png")
    assert limited.returncode == 1
    assert "beyond 1,000 us: C, idle, 2,001 us" in limited.stdout
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")
    assert compare(first, second, "--max", "1s").returncode == 0
    assert compare(first, second, "--max", "never").returncode == 2
    nowhere = compare(first, second, "--picture", tmp_path / "none/both.png")
    assert nowhere.returncode == 1
    assert "both.png: cannot be written" in nowhere.stderr
    second.write_text(second.read_text()[:100])
    damaged = compare(first, second)
    assert damaged.returncode == 1
    assert damaged.stdout == ""
    assert damaged.stderr.startswith(f"pyuio: {second}: is not JSON")
    assert damaged.stderr.count("\n") == 1
    alone = compare(first)
    assert alone.returncode == 2
    assert alone.stderr == "pyuio: comparing needs two results or more\n"


def test_what_is_kept_of_the_box() -> None:
    found = environment.read()
    json.dumps(found)
    assert {"kernel release", "preemption", "CPU model", "command line", "CPUs isolated", "governors"} <= set(found)
    assert "hostname" not in found
    assert environment.read(hostname=True)["hostname"]
    assert found["kernel release"] in environment.title(found)
    assert environment.title({}) == "Linux ?, unknown CPU"
