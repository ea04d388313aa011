# SPDX-License-Identifier: MIT
"""The record of an interrupt's settings, and when it is trusted; test_crashes.py has what killed drivers leave."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio.kernel import irq_record
from pyuio.kernel.scheduling import Scheduling, Thread
from pyuio.kernel.trusted_file import boot_id


class Line:
    """An interrupt, which may go to both processors at first."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.path = Path(f"/proc/irq/{number}/smp_affinity_list")

    @property
    def cpus(self) -> str:
        return self.path.read_text().strip()


@pytest.fixture
def line(device: pyuio.Device) -> Iterator[Line]:
    if not {0, 1} <= os.sched_getaffinity(0):
        pytest.skip("not two processors, 0 and 1")
    assert device.irq is not None
    found = Line(device.irq)
    before = found.cpus
    found.path.write_text("0-1")
    yield found
    found.path.write_text(before)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the records, without a record of this process."""
    found = tmp_path / "run/interrupts"
    found.mkdir(parents=True)
    monkeypatch.setattr(irq_record, "DIRECTORY", found)
    monkeypatch.setattr(irq_record, "_mine", {})
    return found


def ended_thread() -> list[Any]:
    with subprocess.Popen(["sleep", "100"]) as process:
        thread = Thread.find(process.pid)
        process.kill()
    assert thread is not None
    return [thread.id, thread.started]


def left(directory: Path, name: str, changes: object, boot: str | None = None) -> Path:
    path = directory / f"{name}.json"
    path.write_text(json.dumps({"owner": ended_thread(), "boot": boot or boot_id(), "changes": changes}))
    return path


def test_it_is_remembered_as_long_as_it_is_changed(directory: Path, line: Line) -> None:
    irq_record.steer(line.number, {1})
    irq_record.steer(line.number, {0})
    (path,) = directory.iterdir()
    data = json.loads(path.read_text())
    assert (path.name, data["changes"]) == (f"{line.number}.{os.getpid()}.json", {"cpus": ["0-1", "0"]})
    irq_record.put_back(line.number)  # restores nothing, because this process still runs
    assert line.cpus == "0"
    irq_record.steer(line.number, {0, 1})
    assert line.cpus == "0-1"
    assert list(directory.iterdir()) == []


def test_what_is_refused_is_not_remembered(directory: Path, line: Line) -> None:
    missing = {max(os.sched_getaffinity(0)) + 1000}
    for cpus in ([], [{1}]):
        for each in cpus:
            irq_record.steer(line.number, each)
        with pytest.raises(OSError, match="smp_affinity_list"):
            irq_record.steer(line.number, missing)
        kept = [json.loads(path.read_text())["changes"] for path in directory.iterdir()]
        assert kept == [{"cpus": ["0-1", "1"]} for _ in cpus]


def test_what_dead_processes_left_is_put_back_latest_first(directory: Path, line: Line) -> None:
    line.path.write_text("1")
    for at, (name, changes) in enumerate((("{}.1", ["0-1", "0"]), ("{}.2", ["0", "1"]), ("{}7.1", ["0", "0-1"]))):
        os.utime(left(directory, name.format(line.number), {"cpus": changes}), (at, at))
    irq_record.put_back(line.number)
    assert line.cpus == "0-1"
    assert [path.name for path in directory.iterdir()] == [f"{line.number}7.1.json"]


def test_what_somebody_changed_since_stays(directory: Path, line: Line) -> None:
    left(directory, f"{line.number}.1", {"cpus": ["0", "1"]})
    me = Thread.current()
    given = [os.SCHED_FIFO, 98, 0, 0, 0, 0, 0]
    left(directory, f"{line.number}.2", {f"{me.id} {me.started}": [[0] * 7, given], "1 0": [[0] * 7, given]})
    left(directory, f"{line.number}.3", {"cpus": ["0", "0-1"]}, boot="another")
    before = Scheduling.of(me)
    irq_record.put_back(line.number)
    assert line.cpus == "0-1"
    assert Scheduling.of(me) == before
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"owner": [], "boot": "", "changes": {}}', "[" * 4000, "\ud800", None]
)
def test_a_file_that_is_none_is_logged(
    directory: Path, line: Line, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    path = directory / f"{line.number}.1.json"
    if text is None:
        left(directory, f"{line.number}.1", {"cpus": ["0", 5], "x": 3})
    else:
        path.write_bytes(text.encode(errors="surrogatepass"))
    with caplog.at_level(logging.WARNING):
        irq_record.put_back(line.number)
    assert str(path) in caplog.text
    assert line.cpus == "0-1"


def test_what_others_could_have_written_is_not_believed(directory: Path, line: Line) -> None:
    left(directory, f"{line.number}.1", {"cpus": ["0", "0-1"]}).chmod(0o666)
    irq_record.put_back(line.number)
    assert line.cpus == "0-1"
