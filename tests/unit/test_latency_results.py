# SPDX-License-Identifier: MIT
"""Figures of known data, and the file that keeps them, whole or damaged."""

from __future__ import annotations

import base64
import copy
import json
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyuio.errors import PyuioError
from pyuio.latency.errors import ResultFileError
from pyuio.latency.results import FIGURES, HIGHEST, Run, Series, run_of


def series_of(values: list[int], way: str = "C", load: str = "idle") -> Series:
    series = Series(way, load)
    series.record(values)
    return series


def a_run() -> Run:
    run = Run("timer", environment={"kernel": "6.1"}, tuning={"policy": "SCHED_FIFO"}, settings={"interval_us": 1000})
    for index, way in enumerate(("C", "Python loop"), 1):
        for load in ("idle", "CPU load"):
            run.add(way, load).record(range(1000 * index, 2000 * index))
    return run


def close(value: int | None, expected: float) -> bool:
    """Whether a figure is right to the histogram's three digits."""
    return value is not None and abs(value - expected) <= expected / 1000 + 1


def test_figures_of_known_data() -> None:
    values = list(range(5, 1_000_001, 5))
    random.Random(1).shuffle(values)
    figures = series_of(values).figures()
    expected = dict(zip(FIGURES, (5, 500_000, 900_000, 990_000, 999_000, 999_900, 1_000_000), strict=True))
    for name, value in expected.items():
        assert close(figures[name], value), (name, figures[name])


@given(st.lists(st.integers(0, HIGHEST), min_size=10, max_size=300))
def test_figures_are_those_of_the_sorted_samples(values: list[int]) -> None:
    figures = series_of(values).figures()
    ordered = sorted(values)
    assert close(figures["min"], ordered[0])
    assert close(figures["max"], ordered[-1])
    # HdrHistogram's definition: the value up to which this part of all samples lies, rounded to a whole sample.
    assert close(figures["p50"], ordered[max(int(len(values) * 0.5 + 0.5), 1) - 1])
    assert close(figures["p90"], ordered[max(int(len(values) * 0.9 + 0.5), 1) - 1])


def test_rounds_add_up() -> None:
    series = Series("C", "idle")
    of_round = [series.record(values) for values in ([], [50, 60], [], [40])]
    assert [histogram.get_total_count() for histogram in of_round] == [0, 2, 0, 1]
    assert series.count == 3
    figures = series.figures()
    assert (figures["min"], figures["max"]) == (40, 60)


@pytest.mark.parametrize(
    ("count", "absent", "doubtful"),
    [
        (500, {"p99.9", "p99.99"}, {"p99"}),
        (1000, {"p99.99"}, {"p99.9"}),
        (10_000, set(), {"p99.99"}),
        (100_000, set(), set()),
    ],
)
def test_a_percentile_needs_samples(count: int, absent: set[str], doubtful: set[str]) -> None:
    series = series_of([1000] * count)
    assert {name for name, value in series.figures().items() if value is None} == absent
    assert set(series.doubtful()) == doubtful


def test_no_samples_no_figures() -> None:
    assert set(Series("C", "idle").figures().values()) == {None}
    assert Series("C", "idle").rate is None


def test_ratio_to_c_under_the_same_load() -> None:
    run = a_run()
    ratio = run.ratio(run.series[2], "p50")
    assert ratio == pytest.approx(2, rel=0.01)
    assert run.ratio(run.series[0], "p50") == 1
    alone = run.add("Python loop", "busy Python thread")
    alone.record([5] * 100)
    assert run.ratio(alone, "p50") is None
    assert run.ratio(run.series[0], "p99.99") is None


def test_lost_and_impossible_make_void() -> None:
    run = a_run()
    assert run.void == []
    run.series[0].lost = 3
    run.series[1].record([-1, HIGHEST * 2])
    run.series[2].reasons.append("the clock stood still")
    assert run.series[1].count == 1000
    assert run.void == [
        "C, idle: 3 of 1003 samples lost",
        "C, CPU load: 2 samples impossible (below 0, or above 100 s)",
        "Python loop, idle: the clock stood still",
    ]


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    run = a_run()
    run.series[1].lost, run.series[1].late, run.series[0].seconds, run.series[3].cpu = 1, 7, 2.5, 1
    path = tmp_path / "timer.json"
    run.save(path)
    run.interrupted = True
    run.save(path)
    back = Run.load(path)
    assert back.as_dict() == run.as_dict()
    assert back.void == ["C, CPU load: 1 of 1001 samples lost"]
    assert back.series[0].rate == 400
    assert [entry.name for entry in tmp_path.iterdir()] == ["timer.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "timer.json"
    run = a_run()
    run.save(path)
    before = path.read_bytes()
    run.environment["odd"] = object()
    with pytest.raises(TypeError):
        run.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["timer.json"]


GOOD = a_run().as_dict()
TEXT = json.dumps(GOOD).encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is empty"),
        (TEXT[: len(TEXT) // 2], "is not JSON"),
        (b"\x7fELF\x02", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "is JSON, but no result"),
        (b'{"format": "another"}', "is JSON, but no result"),
        (json.dumps({**GOOD, "version": 99}).encode(), "format version 99, and this pyuio reads version 1"),
        (json.dumps({**GOOD, "kind": "speed"}).encode(), "'speed', which is none of latency, timer"),
        (json.dumps({**GOOD, "series": [GOOD["series"][0]] * 2}).encode(), "the same series twice"),
        (json.dumps({**GOOD, "void": ["C: bad"]}).encode(), '"void" is not what its series say'),
        (json.dumps({**GOOD, "settings": float("nan")}).encode(), "NaN is no JSON"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text)
    with pytest.raises(ResultFileError) as caught:
        Run.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert len(message) < 400 + len(str(path))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PyuioError)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "absent.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ResultFileError, match=says):
            Run.load(path)


NOT_NEEDED = ("unit", "limit", "beyond", "trace")  # the last three came later


@pytest.mark.parametrize("name", [name for name in GOOD if name not in NOT_NEEDED])
def test_every_item_is_needed(name: str) -> None:
    with pytest.raises(ResultFileError):
        run_of(json.dumps({key: value for key, value in GOOD.items() if key != name}).encode())


def loads_or_says_why(text: bytes) -> None:
    try:
        run = run_of(text)
    except ResultFileError:
        return
    json.dumps(run.as_dict())


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(ResultFileError):
        run_of(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(TEXT) - 1), st.binary(max_size=4), st.integers(0, 8))
def test_a_good_file_changed_somewhere(place: int, data: bytes, removed: int) -> None:
    loads_or_says_why(TEXT[:place] + data + TEXT[place + removed :])


VALUES: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = [(None, name) for name in GOOD] + [(0, name) for name in GOOD["series"][0]]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), VALUES)
def test_an_item_of_another_kind(place: tuple[int | None, str], value: Any) -> None:
    data = copy.deepcopy(GOOD)
    index, name = place
    (data if index is None else data["series"][index])[name] = value
    loads_or_says_why(json.dumps(data).encode())


def packed(payload: bytes) -> str:
    compressed = zlib.compress(payload)
    return base64.b64encode(HEADER[:4] + len(compressed).to_bytes(4, "big") + compressed).decode()


HEADER = base64.b64decode(GOOD["series"][0]["histogram"])[:8]
PAYLOAD = zlib.decompress(base64.b64decode(GOOD["series"][0]["histogram"])[8:])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(PAYLOAD) - 1) | st.integers(0, 50), st.integers(0, 255)), max_size=6))
def test_a_histogram_changed_inside(changes: list[tuple[int, int]]) -> None:
    payload = bytearray(PAYLOAD)
    for place, value in changes:
        payload[place] = value
    data = copy.deepcopy(GOOD)
    data["series"][0]["histogram"] = packed(bytes(payload))
    loads_or_says_why(json.dumps(data).encode())


@pytest.mark.parametrize("payload", [b"", PAYLOAD[:20], PAYLOAD[:40], PAYLOAD + bytes(10_000_000), PAYLOAD[:40] * 9])
def test_a_histogram_of_another_length(payload: bytes) -> None:
    data = copy.deepcopy(GOOD)
    data["series"][0]["histogram"] = packed(payload)
    with pytest.raises(ResultFileError):
        run_of(json.dumps(data).encode())


TRACE = {"series": "C, idle", "cpu": 1, "latency": 5000, "complete": True, "lines": ["a line"], "ran": {"sh-1": 40}}


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": 10**400},
        {"latency": 10**400},
        {"latency": -1},
        {"ran": {"x": 10**400}},
        {"ran": {"x": True}},
        {"lines": [1]},
    ],
)
def test_a_trace_with_numbers_that_no_figure_is_made_of(change: dict[str, Any]) -> None:
    data = {**a_run().as_dict(), "trace": TRACE}
    assert run_of(json.dumps(data).encode()).trace == TRACE
    with pytest.raises(ResultFileError, match="is damaged"):
        run_of(json.dumps({**data, "trace": {**TRACE, **change}}).encode())


@pytest.mark.parametrize("change", [{"cpu": 10**4000}, {"cpu": -1}, {"seconds": 10**400}, {"lost": 10**4000}])
def test_a_series_with_numbers_that_no_figure_is_made_of(change: dict[str, Any]) -> None:
    data = a_run().as_dict()
    data["series"][0].update(change)
    with pytest.raises(ResultFileError, match=f'is damaged: "{next(iter(change))}" is'):
        run_of(json.dumps(data).encode())


def test_without_hdrhistogram_the_extra_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['hdrh'] = None\n"
        "import pyuio.latency\n"
        "try:\n"
        "    import pyuio.latency.results\n"
        "except pyuio.latency.HistogramUnavailableError as error:\n"
        "    print(error)\n"
        "sys.argv = ['pyuio', 'bench', 'timer', '--count', '1']\n"
        "from pyuio.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.endswith("pip install 'pyuio-framework[bench]'\n")
    assert done.stderr == f"pyuio: {done.stdout}"
