# SPDX-License-Identifier: MIT
"""Looking at what processes have open, while their owner does what he can against it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyuio.kernel import process_files

PROGRAM = Path(__file__).with_name("unanswering.py")
SECONDS = 30  # within which what does not hang ends


@contextlib.contextmanager
def unanswering(way: str) -> Iterator[int]:
    """A process of a user without any right that waits in the kernel in one of the ways of unanswering.py."""
    subprocess.run(["modprobe", "fuse"], check=True)
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        Path(directory).chmod(0o777)
        command = [sys.executable, "-S", str(PROGRAM), directory, way]
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
        )
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        assert process.stdout is not None
        if (line := process.stdout.readline()) == "refused\n":
            pytest.skip("this kernel pins no page of a file for long")
        assert line == "waits\n"
        yield process.pid


def in_time(what: Callable[[], object]) -> bool:
    """Return whether a function comes to its end, which it does not if it waits in the kernel."""
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return not thread.is_alive()


def test_a_file_whose_lock_is_held_for_ever() -> None:
    """Who reads what fdinfo tells of it waits, and cannot be killed."""
    found: list[str] = []

    def look() -> None:
        found.extend(file.path for file in process_files.opened(process, [Path("/dev/null").stat().st_ino]))
        process_files.mapped(process)

    with unanswering("epoll") as process:
        assert in_time(look)
        assert "anon_inode:[eventpoll]" in found


@pytest.mark.long
def test_memory_that_is_locked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads what a process has mapped waits with Linux 6.1, as ps does."""
    monkeypatch.setattr(process_files._Patience, "seconds", 1.0)

    def look() -> None:
        with contextlib.suppress(TimeoutError):
            process_files.mapped(process)

    with unanswering("memory") as process:
        assert in_time(look)
