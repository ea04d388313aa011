# SPDX-License-Identifier: MIT
"""Directories of which no other user can choose what they hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio.kernel.trusted_directory import open_directory, temporary

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give links away")


def opened(path: Path, *, make: bool = False) -> Path:
    """Return where a directory is that `open_directory` opens."""
    file = open_directory(path, make=make)
    try:
        return Path(f"/proc/self/fd/{file}").readlink()
    finally:
        os.close(file)


def test_links_of_ones_own_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("real/below/..")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative/below")
    assert opened(tmp_path / "absolute/..") == tmp_path / "real"
    assert opened(tmp_path / "relative/new/one", make=True) == tmp_path / "real/new/one"
    assert opened(Path("/")) == Path("/")
    monkeypatch.chdir(tmp_path)
    assert opened(Path("real")) == tmp_path / "real"


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    for name, error in (
        ("file", NotADirectoryError),
        ("file/below", NotADirectoryError),
        ("loop", OSError),
        ("nowhere", FileNotFoundError),
        ("missing", FileNotFoundError),
    ):
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with pytest.raises(error):
            open_directory(tmp_path / name)
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@AS_ROOT
def test_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "own").symlink_to("others/below")
    (tmp_path / "others").symlink_to("real")
    os.chown(tmp_path / "others", 65534, 65534, follow_symlinks=False)
    for name in ("others", "others/below", "own"):
        with pytest.raises(PermissionError, match="a link in the path is another user's"):
            open_directory(tmp_path / name, make=True)
    assert not (tmp_path / "real/below").exists()


@AS_ROOT
def test_roots_temporary_directory_is_not_where_another_user_says(tmp_path: Path) -> None:
    program = "from pyuio.kernel.trusted_directory import temporary; print(temporary('pyuio-').name)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.stdout.startswith("/tmp/pyuio-"), done.stderr
    with temporary("pyuio-") as name:
        assert os.stat(name).st_mode & 0o777 == 0o700  # noqa: PTH116
