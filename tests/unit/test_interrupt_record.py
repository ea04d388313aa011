# SPDX-License-Identifier: MIT
"""What a file may say of an interrupt; putting back for real is in tests/guest/test_crashes.py."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyuio import interrupt_line, interrupt_record
from pyuio.binding_record import boot_id
from pyuio.processors import format_list, parse_list
from pyuio.scheduling import Scheduling, Thread

LINE = 7


@pytest.fixture
def went_to(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the interrupt was sent to, one after the other; it begins at 0-1."""
    places = ["0-1"]
    monkeypatch.setattr(interrupt_line, "affinity", lambda number: parse_list(places[-1]))
    monkeypatch.setattr(interrupt_line, "steer", lambda number, cpus: places.append(format_list(cpus)))
    return places


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "run/interrupts"
    found.mkdir(parents=True)
    monkeypatch.setattr(interrupt_record, "DIRECTORY", found)
    monkeypatch.setattr(interrupt_record, "_mine", {})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


def ended_thread() -> list[Any]:
    with subprocess.Popen(["sleep", "100"]) as process:
        thread = Thread.find(process.pid)
        process.kill()
    assert thread is not None
    return [thread.id, thread.started]


def left(directory: Path, changes: object, owner: object = None, boot: str | None = None, name: str = "7.1") -> Path:
    path = directory / f"{name}.json"
    data = {"owner": owner or ended_thread(), "boot": boot or boot_id(), "changes": changes}
    path.write_text(json.dumps(data))
    return path


def test_it_is_remembered_as_long_as_it_is_changed(directory: Path, went_to: list[str]) -> None:
    interrupt_record.steer(LINE, {1})
    interrupt_record.steer(LINE, {0})
    (path,) = directory.iterdir()
    data = json.loads(path.read_text())
    assert (path.name, data["changes"]) == (f"{LINE}.{os.getpid()}.json", {"cpus": ["0-1", "0"]})
    interrupt_record.put_back(LINE)  # nothing: this process is there
    assert went_to == ["0-1", "1", "0"]
    interrupt_record.steer(LINE, {0, 1})
    assert list(directory.iterdir()) == []


def test_what_is_refused_is_not_remembered(
    directory: Path, went_to: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int, cpus: object) -> None:
        raise OSError(5, "no")

    for before in ([], [{1}]):
        for cpus in before:
            interrupt_record.steer(LINE, cpus)
        with monkeypatch.context() as patched:
            patched.setattr(interrupt_line, "steer", refuse)
            with pytest.raises(OSError, match="no"):
                interrupt_record.steer(LINE, {0})
        kept = [json.loads(path.read_text())["changes"] for path in directory.iterdir()]
        assert kept == [{"cpus": ["0-1", "1"]} for _ in before]


def test_what_dead_processes_left_is_put_back_latest_first(directory: Path, went_to: list[str]) -> None:
    went_to.append("2")
    for at, (name, changes) in enumerate((("7.1", ["0-1", "3"]), ("7.2", ["3", "2"]), ("77.1", ["0", "2"]))):
        os.utime(left(directory, {"cpus": changes}, name=name), (at, at))
    interrupt_record.put_back(LINE)
    assert went_to[2:] == ["3", "0-1"]
    assert [path.name for path in directory.iterdir()] == ["77.1.json"]


def test_what_somebody_changed_since_stays(directory: Path, went_to: list[str]) -> None:
    left(directory, {"cpus": ["2", "3"]})
    me = Thread.current()
    given = [os.SCHED_FIFO, 98, 0, 0, 0, 0, 0]
    left(directory, {f"{me.id} {me.started}": [[0] * 7, given], "1 0": [[0] * 7, given]}, name="7.2")
    left(directory, {"cpus": ["2", "0-1"]}, boot="another", name="7.3")
    before = Scheduling.of(me)
    interrupt_record.put_back(LINE)
    assert went_to == ["0-1"]
    assert Scheduling.of(me) == before
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"owner": [], "boot": "", "changes": {}}', "[" * 4000, "\ud800", None]
)
def test_a_file_that_is_none_is_logged(
    directory: Path, went_to: list[str], caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    path = directory / "7.1.json"
    if text is None:
        path = left(directory, {"cpus": ["0", 5], "x": 3})
    else:
        path.write_bytes(text.encode(errors="surrogatepass"))
    with caplog.at_level(logging.WARNING):
        interrupt_record.put_back(LINE)
    assert str(path) in caplog.text
    assert went_to == ["0-1"]


def test_what_others_could_have_written_is_not_believed(directory: Path, went_to: list[str]) -> None:
    path = left(directory, {"cpus": ["0", "0-1"]})
    path.chmod(0o666)
    interrupt_record.put_back(LINE)
    assert went_to == ["0-1"]
