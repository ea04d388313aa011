# SPDX-License-Identifier: MIT
"""The report of a run in one HTML file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyuio.latency import report
from pyuio.latency.errors import OutputDirectoryError, ResultExistsError
from pyuio.latency.plot import COLOURS
from pyuio.latency.report import Report, html
from pyuio.latency.results import Run
from tests.unit.test_latency_show import a_run

ATTACK = "</td></svg><script>document.title='taken'</script><img src=x onerror=alert(1)>&\x1b[2J"
NAMES = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "br", "table", "tr", "th", "td"),
    *("svg", "line", "text", "polygon", "rect", "details", "summary", "pre"),
}


class Elements(HTMLParser):
    """The names and the attributes of all elements, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attributes)

    def handle_data(self, data: str) -> None:
        self.text += data


def late_run() -> Run:
    run = a_run()
    run.limit = 1_000_000
    run.trace = {
        "series": "C, idle", "cpu": 1, "latency": 2_000_000, "complete": True,
        "lines": [f"  +5 {ATTACK}-7 d..2. sched_switch"], "ran": {"kworker/1:2-7": 1_900_000},
    }  # fmt: skip
    return run


def test_what_is_in_it() -> None:
    page = html(late_run())
    text = Elements(page).text
    for shown in (
        *("pyuio bench timer", "Linux 6.1.0 (voluntary), a processor x 2", "busy Python thread", "p99.99"),
        *("beyond 1,000 us: C, idle, 2,001 us", "meanwhile CPU 1 ran kworker/1:2-7 1,900 us", "1,000 samples"),
        *("preemption", "setting: interval", "tuning: policy"),
    ):
        assert shown in text
    assert "VOID" not in text
    assert "No sample is beyond" not in text


def test_it_needs_nothing_from_elsewhere() -> None:
    page = html(late_run())
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", page)
    assert Elements(page).names <= NAMES


def test_void_and_interrupted() -> None:
    run = a_run()
    run.series[0].lost = 2
    run.interrupted = True
    run.limit = 10_000_000_000
    text = Elements(html(run)).text
    assert "VOID: C, idle: 2 of 1002 samples lost" in text
    assert "Interrupted" in text
    assert "No sample is beyond" in text


def test_no_text_becomes_an_element() -> None:
    run = late_run()
    run.device = run.when = ATTACK
    run.environment = {"CPU model": ATTACK, "mitigations": {ATTACK: ATTACK}, ATTACK: [ATTACK]}
    run.tuning = {ATTACK: {"asked": ATTACK, "got": "", "missing": ATTACK}}
    for series in run.series:
        series.way += ATTACK
        series.load += ATTACK
        series.reasons.append(ATTACK)
    found = Elements(html(run))
    assert found.names <= NAMES
    assert not any(name.startswith("on") for name in found.attributes)
    assert "\x1b" not in html(run)


def pictures(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_histograms() -> None:
    run = late_run()
    first, second = pictures(html(run))
    for picture in (first, second):
        shapes = picture.findall("polygon")
        assert [shape.get("fill") for shape in shapes] == list(COLOURS[:2])
        width, height = map(float, str(picture.get("viewBox")).split()[2:])
        for shape in shapes:
            points = [tuple(map(float, point.split(","))) for point in str(shape.get("points")).split()]
            assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        assert len([line for line in picture.findall("line") if line.get("stroke-dasharray")]) == 1
    heights = [min(float(point.split(",")[1]) for point in str(shape.get("points")).split()) for shape in shapes]
    assert heights[0] == heights[1], "980 samples each, but one is drawn higher"


@pytest.mark.parametrize("values", [[1], [1000], [10**11], [1, 10**11], [999], [10_000] * 5])
def test_extremes(values: list[int]) -> None:
    run = Run("timer", limit=values[0])
    run.add("C", "idle").record(values)
    run.add("Python loop", "idle")
    (picture,) = pictures(html(run))
    for line in picture.findall("line"):
        assert 0 <= float(str(line.get("x1"))) <= report._WIDTH + 0.1


def test_no_samples() -> None:
    run = Run("timer")
    run.add("C", "idle")
    assert "no samples" in html(run)


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    Report(path).write(a_run())
    assert path.read_text() == html(Run(**{**vars(a_run()), "when": re.findall(r"<br>(.*?)</p>", path.read_text())[0]}))
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ResultExistsError, match="--overwrite"):
        Report(path)
    Report(path, overwrite=True).write(late_run())
    assert [one.name for one in tmp_path.iterdir()] == ["run.html"]
    for wrong in (tmp_path / "none/run.html", tmp_path):
        with pytest.raises(OutputDirectoryError, match="cannot be written"):
            Report(wrong, overwrite=True)


def test_the_command(tmp_path: Path) -> None:
    def bench(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pyuio.cli", "bench", "timer", "--priority", "0", "--loads", "idle", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)

    done = bench("--count", "5", "--max", "1ns", "--report", "run.html")
    assert done.returncode == 1, done.stderr
    assert "beyond 0.00 us: Python loop, idle" in done.stdout
    assert "beyond 0.00 us: C, idle" in (tmp_path / "run.html").read_text()
    assert bench("--count", "5", "--max", "100s").returncode == 0
    for words, said in (
        (["--max", "soon"], "--max is a time"),
        (["--trace"], "--trace needs --max"),
    ):
        done = bench(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    done = bench("--report", "run.html")
    assert (done.returncode, done.stdout) == (1, "")
    assert "run.html is there already" in done.stderr


@pytest.mark.long
def test_it_in_a_browser(tmp_path: Path) -> None:
    """Chromium draws the histograms in their colours, and runs nothing that a text has in it."""
    from matplotlib import colors, image

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium: apt-get install --no-install-recommends chromium")
    run = late_run()
    run.device = ATTACK
    for series in run.series:
        slower = 1 if series.way == "C" else 30  # so that neither lies behind the other
        series.record(range(10_000 * slower, 3_000_000 * slower, 1000 * slower))
    page, picture = tmp_path / "run.html", tmp_path / "run.png"
    page.write_text(html(run), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]

    def look(*more: str) -> str:
        command = [browser, *options, *more, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    shown = look("--dump-dom")
    assert "<title>pyuio bench timer" in shown
    assert "<script" not in shown
    look(f"--screenshot={picture}", "--window-size=1000,1600")
    pixels = image.imread(picture)[:, :, :3]
    for colour in COLOURS[:2]:
        near = abs(pixels - colors.to_rgb(colour)).max(axis=2) < 0.1
        # Beside the histogram, which is some 700 pixels wide, the legend has a square of 12.
        assert near.any(axis=0).sum() > 200, f"no histogram in {colour} is seen"
