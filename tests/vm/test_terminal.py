# SPDX-License-Identifier: MIT
"""``pyuio vm run`` on a terminal, which this test simulates."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from types import TracebackType

import pytest

from .conftest import LIMIT, Vm


class Terminal:
    """A terminal with a program on it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.fd, self.tty = pty.openpty()
        self.resize(33, 101)
        self.before = termios.tcgetattr(self.tty)
        self.text = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=self.tty, stdout=self.tty, stderr=self.tty, env=environment
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)
        os.close(self.tty)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def until(self, text: bytes) -> None:
        """Read until `text` appears in the output that no earlier call has read."""
        deadline = time.monotonic() + LIMIT
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.text[-2000:]!r}"
            if select.select([self.fd], [], [], 1)[0]:
                self.text += os.read(self.fd, 65536)
        self.text = self.text[self.text.index(text) + len(text) :]

    def end(self) -> int:
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 65536)
        return self.process.wait(1)


def test_shell(vm: Vm) -> None:
    vm.one_thread = False
    environment = {**os.environ, "SHELL": "/bin/sh", "TERM": "vt100"}
    with Terminal(vm.command(), environment) as terminal:
        terminal.until(b"booting the guest")
        terminal.until(b"\r\x1b[K")  # and the progress line is gone
        terminal.type(b"stty size; tty; echo term=$TERM\n")
        terminal.until(b"33 101")
        terminal.until(b"/dev/pts/0")
        terminal.until(b"term=vt100")
        terminal.resize(40, 132)
        terminal.type(b"sleep 1; stty size\n")
        terminal.until(b"40 132")
        terminal.type(b"sh -c \"echo sl''eeping; exec sleep 1000\"\n")
        terminal.until(b"sleeping\r\n")
        terminal.type(b"\x03")
        terminal.until(b"^C")  # input typed before that is discarded, as on any terminal
        terminal.type(b"echo st=$?\n")
        terminal.until(b"st=130")
        terminal.type(b"exit 5\n")
        assert terminal.end() == 5
        assert termios.tcgetattr(terminal.tty) == terminal.before


def test_command_and_ctrl_c(vm: Vm) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && printf 'all\\nterminals\\n'; read x; echo got=$x; sleep 1000"
    with Terminal(vm.command("--", "sh", "-c", script), dict(os.environ)) as terminal:
        terminal.until(b"all\r\nterminals\r\n")
        terminal.type(b"some text\r")
        terminal.until(b"got=some text")
        terminal.type(b"\x03")
        assert terminal.end() == 130
        assert b"ended by Ctrl-C" in terminal.text
        assert termios.tcgetattr(terminal.tty) == terminal.before


@pytest.mark.long  # above, all three are
def test_only_output_is_a_terminal(vm: Vm) -> None:
    script = "cat; test -t 0 || test -t 2 || test ! -t 1 || echo as wanted; echo error >&2"
    fd, tty = pty.openpty()
    with subprocess.Popen(
        vm.command("--", "sh", "-c", script), stdin=subprocess.PIPE, stdout=tty, stderr=subprocess.PIPE
    ) as process:
        os.close(tty)
        _, errors = process.communicate(b"piped\n", timeout=LIMIT)
        text = os.read(fd, 65536)
    os.close(fd)
    assert errors == b"error\n"
    assert text == b"piped\r\nas wanted\r\n"
