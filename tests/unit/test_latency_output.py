# SPDX-License-Identifier: MIT
"""The files of a run: written as it goes on, and read by HdrHistogram's own tools."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from pyuio.latency import plot
from pyuio.latency.errors import OutputDirectoryError, PlotUnavailableError, ResultExistsError
from pyuio.latency.output import Output, distribution, tag
from pyuio.latency.report import Report
from pyuio.latency.results import Run, Series, new_histogram


def a_run() -> Run:
    run = Run("timer", environment={"kernel release": "6.1.0", "CPU model": "a processor"})
    for way, factor in (("C", 1), ("Python loop", 3)):
        for load in ("idle", "CPU load"):
            run.add(way, load).record(range(10_000 * factor, 20_000 * factor, 10))
    return run


def pixels(path: Path) -> tuple[int, int, bytes]:
    """Width, height and the unpacked picture of a PNG file, whose checksums must be right."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed, size = 8, b"", (0, 0)
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[place + 8 + length : place + 12 + length], "big")
        if kind == b"IHDR":
            size = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
        if kind == b"IDAT":
            packed += body
        place += 12 + length
    return *size, zlib.decompress(packed)


def test_each_round_is_in_the_log_at_once(tmp_path: Path) -> None:
    run = Run("timer")
    series = [run.add("C", "idle"), run.add("Python loop", "CPU load", 1)]
    with Output(tmp_path / "new" / "directory", "timer") as output:
        for number in range(3):
            for one in series:
                output.add_round(one, one.record([1000 * (number + 1)] * 10), 0, 1e12)
        # The output is neither closed nor saved, as if the program were killed here.
        reader = HistogramLogReader(str(output.directory / "timer.hlog"), new_histogram())
        found = []
        while (histogram := reader.get_next_interval_histogram()) is not None:
            found.append((histogram.get_tag(), histogram.get_total_count(), histogram.get_min_value()))
        reader.close()
    tags = ["C-idle", "Python-loop-CPU-load-CPU-1"]
    assert found == [(name, 10, 1000 * number) for number in (1, 2, 3) for name in tags]


def test_the_log_adds_up_to_the_run(tmp_path: Path) -> None:
    series = Series("C", "idle")
    with Output(tmp_path, "timer") as output:
        for number in range(4):
            output.add_round(series, series.record(range(number * 1000, number * 1000 + 500)), 1, 2)
    total = new_histogram()
    reader = HistogramLogReader(str(tmp_path / "timer.hlog"), total)
    while reader.add_next_interval_histogram() is not None:
        pass
    reader.close()
    assert total.get_total_count() == 2000
    assert all(total.get_count_at_index(at) == series.histogram.get_count_at_index(at) for at in range(5000))


def test_all_files_of_a_run(tmp_path: Path) -> None:
    run = a_run()
    run.add("C", "busy Python thread")  # nothing was measured
    with Output(tmp_path, "timer") as output:
        output.save(run)
        assert Run.load(tmp_path / "timer.json").as_dict() == run.as_dict()
        files = output.finish(run)
    assert {path.name for path in files} == {path.name for path in tmp_path.iterdir()}
    assert len([path for path in files if path.suffix == ".hgrm"]) == 4
    width, height, picture = pixels(tmp_path / "timer.png")
    assert width > 600
    assert height > 400
    assert len(set(picture)) > 20  # more than an empty sheet


def test_a_distribution_as_the_plotter_takes_it() -> None:
    series = Series("C", "idle")
    series.record(range(1000, 1_001_000, 1000))  # 1 to 1000 us
    lines = distribution(series).splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [[float(word) for word in line.split()] for line in lines[2:] if not line.startswith("#")]
    assert all(len(row) == 4 for row in rows[:-1])
    assert rows[-1][1:] == [1.0, 1000.0]
    for value, part, count, above_by in rows[:-1]:
        assert value == pytest.approx(count, rel=0.002)
        assert count - 1 <= part * 1000 <= count + 0.001
        assert above_by == pytest.approx(1 / (1 - part), abs=0.01)
    assert lines[-3].startswith("#[Mean    =")
    mean, deviation = (float(part.split("=")[1].strip(" ]")) for part in lines[-3][2:].split(","))
    assert mean == pytest.approx(500.5, rel=0.001)
    assert deviation == pytest.approx(288.7, rel=0.001)


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_a_distribution_is_the_librarys(values: list[int]) -> None:
    series = Series("C", "idle")
    series.record(values)
    file = io.BytesIO()
    series.histogram.output_percentile_distribution(file, 1000)
    theirs = file.getvalue().decode().splitlines()
    ours = distribution(series).splitlines()
    assert len(ours) == len(theirs)
    assert ours[:2] == theirs[:2]
    assert ours[-1] == theirs[-1]
    for mine, other in zip(ours[2:-3], theirs[2:-3], strict=True):
        assert [float(word) for word in mine.split()] == pytest.approx([float(word) for word in other.split()])


@pytest.mark.parametrize("name", ["timer.json", "timer.hlog", "timer.png", "timer-C-idle.hgrm"])
def test_an_earlier_result_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ResultExistsError, match=rf"{name} is there already.*--overwrite") as caught:
        Output(tmp_path, "timer")
    assert isinstance(caught.value, FileExistsError)
    assert caught.value.errno == errno.EEXIST
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]
    with Output(tmp_path, "latency"):  # results of another kind do not matter
        pass


def test_an_earlier_result_is_replaced_when_asked(tmp_path: Path) -> None:
    for name in ("timer.json", "timer.hlog", "timer-gone.hgrm"):
        (tmp_path / name).write_text("old")
    run = a_run()
    with Output(tmp_path, "timer", overwrite=True) as output:
        output.finish(run)
    assert not (tmp_path / "timer-gone.hgrm").exists()
    assert "old" not in (tmp_path / "timer.hlog").read_text()
    assert Run.load(tmp_path / "timer.json").as_dict() == run.as_dict()


def test_no_link_leads_to_another_file(tmp_path: Path) -> None:
    """Another user may write to the directory in which root leaves results."""
    results, other = tmp_path / "results", tmp_path / "other"
    results.mkdir()
    log = results / "timer.hlog"
    log.symlink_to(other)
    with pytest.raises(OutputDirectoryError, match=r"cannot be written there: .*\(.*timer\.hlog\)"):
        Output(results, "timer", overwrite=True)
    assert not other.exists()
    other.write_text("of somebody")
    log.unlink()
    log.hardlink_to(other)
    with Output(results, "timer", overwrite=True) as output:
        for name in ("timer.json", "timer.png", "timer-C-idle.hgrm"):
            (results / name).symlink_to(other)
        files = output.finish(a_run())
    assert other.read_text() == "of somebody"
    assert not any(path.is_symlink() for path in files)
    assert results / "timer-C-idle.hgrm" in files


def test_the_files_go_to_the_directory_that_was_there_at_first(tmp_path: Path) -> None:
    """Whoever may rename the directory cannot have root write to another by a link in its place."""
    results, other = tmp_path / "above/results", tmp_path / "other"
    other.mkdir()
    with Output(results, "timer") as output:
        results.rename(tmp_path / "moved")
        results.symlink_to(other)
        output.save(a_run())
        output.finish(a_run(), picture=False)
    report = Report(results / "run.html")
    results.unlink()
    results.symlink_to(tmp_path / "moved")
    report.write(a_run())
    assert {"timer.json", "timer.hlog", "timer-C-idle.hgrm"} <= {path.name for path in (tmp_path / "moved").iterdir()}
    assert [path.name for path in other.iterdir()] == ["run.html"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")
def test_no_link_of_another_user_leads_to_the_directory(tmp_path: Path) -> None:
    """One's own links are followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with Output(tmp_path / "link/below/..", "timer") as output:
        output.save(a_run())
    assert (tmp_path / "real/timer.json").exists()
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
    for directory in ("link", "link/../real", "link/new"):
        with pytest.raises(OutputDirectoryError, match="a link in the path is another user's"):
            Output(tmp_path / directory, "timer", overwrite=True)
        with pytest.raises(OutputDirectoryError, match="a link in the path is another user's"):
            Report(tmp_path / directory / "run.html")
    assert not (tmp_path / "real/new").exists()


def test_a_pipe_in_the_place_of_a_file_makes_nobody_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "timer.hlog")
    with pytest.raises(OutputDirectoryError):
        Output(tmp_path, "timer", overwrite=True)


def test_a_directory_that_cannot_be_written_is_found_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file/below", Path("/proc/1"), Path("/dev/null/x")):
        with pytest.raises(OutputDirectoryError, match=f"{directory}: results cannot be written there") as caught:
            Output(directory, "timer")
        assert isinstance(caught.value, OSError)


def test_a_full_disk_is_said_so_and_the_earlier_result_stays(tmp_path: Path) -> None:
    # An ordinary user can simulate a full disk by a limit on the size of files.
    program = """
import resource, signal, sys
from pathlib import Path
from pyuio.latency.errors import OutputDirectoryError
from pyuio.latency.output import Output
from pyuio.latency.results import Run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = Run("timer")
run.add("C", "idle").record([1000])
with Output(Path(sys.argv[1]), "timer") as output:
    output.save(run)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    run.series[0].record([2000])
    try:
        output.save(run)
    except OutputDirectoryError as error:
        print(error.errno)
"""
    output = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert int(output.stdout) == errno.EFBIG
    assert Run.load(tmp_path / "timer.json").series[0].count == 1
    assert {path.name for path in tmp_path.iterdir()} == {"timer.json", "timer.hlog"}


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (Series("C", "idle"), "C-idle"),
        (Series("../x", "a,b c\n"), "x-a-b-c"),
        (Series("", ""), "series"),
    ],
)
def test_tags_are_safe(series: Series, expected: str) -> None:
    assert tag(series) == expected


def test_without_matplotlib_there_is_no_picture_and_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "available", lambda: False)
    with pytest.raises(PlotUnavailableError, match="pip install matplotlib"):
        plot.draw(a_run(), tmp_path / "x.png")
    with Output(tmp_path, "timer") as output:
        assert not [path for path in output.finish(a_run()) if path.suffix == ".png"]


def test_matplotlib_is_loaded_only_to_draw() -> None:
    program = "import sys, pyuio.cli; sys.exit('matplotlib' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})


@pytest.mark.parametrize("void", [False, pytest.param(True, marks=pytest.mark.long)])
def test_pictures_of_odd_runs(tmp_path: Path, void: bool) -> None:
    run = Run("timer", interrupted=True)
    plot.draw(run, tmp_path / "empty.png")
    pixels(tmp_path / "empty.png")
    for number in range(5):
        run.add("C", f"load {number}").record([7])
    run.add("zero", "load 1").record([0, 0])
    run.series[0].lost = int(void)
    plot.draw(run, tmp_path / "five.png")
    pixels(tmp_path / "five.png")


def test_the_line_of_a_series_is_its_distribution() -> None:
    series = Series("C", "idle")
    series.record([1000] * 90 + [2000] * 9 + [3000])
    above_by, microseconds = plot.points(series)
    assert above_by == pytest.approx([1, 10, 10, 100, 100, 200])
    assert microseconds == pytest.approx([1, 1, 2, 2, 3, 3], rel=0.001)
