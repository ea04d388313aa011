# SPDX-License-Identifier: MIT
"""``pyuio new``: what it writes works at once, and it writes all of it or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import pyuio
from pyuio import cli
from pyuio.cli import new
from tests.guest.support import forked, load_command

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command in `tmp_path`."""
    load_command()

    def program() -> None:
        os.chdir(tmp_path)
        cli.main()

    return lambda *words: forked(program, "pyuio", "new", *words)


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_the_tests_of_the_new_package_pass(run: Run, tmp_path: Path) -> None:
    done = run("frame-counter")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cd frame-counter && python -m pytest" in done.stdout
    made = tmp_path / "frame-counter"
    assert files(made) == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "frame_counter/__init__.py",
        "frame_counter/driver.py",
        "frame_counter/model.py",
        "frame_counter/py.typed",
        "frame_counter/registers.py",
        "pyproject.toml",
        "tests/test_frame_counter.py",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["frame-counter"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tested = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=120)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "passed" in tested.stdout
    assert "failed" not in tested.stdout


def test_no_word_of_the_template_is_left_and_each_file_is_clean(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    assert run("frame-counter").returncode == 0
    made = tmp_path / "frame-counter"
    for name in files(made):
        assert "sampler" not in (made / name).read_text().lower(), name
    checked = subprocess.run([sys.executable, "-m", "ruff", "check", made], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_the_package_says_of_itself(run: Run, tmp_path: Path) -> None:
    assert run("frame-counter").returncode == 0
    project = (tmp_path / "frame-counter/pyproject.toml").read_text()
    for line in (
        'name = "frame-counter"',
        f'dependencies = ["pyuio-framework>={pyuio.__version__}"]',
        'frame_counter = "frame_counter.driver:FrameCounter"',
        'packages = ["frame_counter"]',
        'frame_counter = ["py.typed"]',
    ):
        assert f"\n{line}\n" in project


@pytest.mark.parametrize(("name", "kind"), [("adc", "Adc"), ("my_card", "MyCard"), ("x2-dma_engine", "X2DmaEngine")])
def test_names(run: Run, tmp_path: Path, name: str, kind: str) -> None:
    assert run(name).returncode == 0
    package = name.replace("-", "_")
    assert f"class {kind}Card(Card)" in (tmp_path / name / package / "model.py").read_text()
    assert f"from {package}.registers import" in (tmp_path / name / package / "driver.py").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "pyuio: '' is no name for a driver: it has small letters, digits"),
        ("FrameCounter", "'FrameCounter' is no name for a driver"),
        ("a/b", "'a/b' is no name for a driver"),
        ("../b", "'../b' is no name for a driver"),
        ("2fast", "'2fast' is no name for a driver"),
        ("a--b", "'a--b' is no name for a driver"),
        ("a-", "'a-' is no name for a driver"),
        ("ädc", "'ädc' is no name for a driver"),
        ("a\x1bb", "is no name for a driver"),
        ("class", "'class' is a keyword of Python; take another name"),
        ("match", "'match' is a keyword of Python; take another name"),
        ("json", "there is a package 'json' already, which yours would hide"),
        ("pyuio", "there is a package 'pyuio' already, which yours would hide"),
        ("control", "the driver would be the class Control, and uses another of that name"),
        ("tests", "there is a package 'tests' already, which yours would hide"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_is_written(run: Run, tmp_path: Path, name: str, message: str) -> None:
    done = run(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["directory", "file", "dangling link"])
def test_what_exists_stays_as_it_is(run: Run, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "adc"
    if kind == "directory":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine")
    else:
        target.symlink_to("nowhere")
    done = run("adc")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pyuio: {target} exists already; remove it, or take another name" in done.stderr
    assert list(tmp_path.iterdir()) == [target]
    assert kind != "file" or target.read_text() == "mine"


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = []

    def write(self: Path, text: str) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return len(text)

    monkeypatch.setattr(Path, "write_text", write)
    with pytest.raises(typer.Exit) as stopped:
        new.new("adc")
    assert stopped.value.exit_code == 1
    assert len(written) == 4
    assert not list(tmp_path.iterdir())
