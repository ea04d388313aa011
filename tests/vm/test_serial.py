# SPDX-License-Identifier: MIT
"""The serial port's driver in a guest, with something at the other end of the line: QEMU's character device is a socket
of the host's, and a thread, or a shell, is at its other end."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from .conftest import Vm

GUEST = Path(__file__).with_name("serial_guest.py")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/serial_console.py"
BREAK = b"\xff\xf3"  # of telnet, RFC 854
SIZE = 115_200

Other = Callable[[socket.socket], None]


def guest(vm: Vm, directory: Path, other: Other, *command: str, telnet: bool = False, stdin: bytes = b"") -> str:
    """Run a command in a guest that has a serial port, `other` with the socket at its other end; return its output."""
    path = directory / "line"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(60)
        errors: list[BaseException] = []

        def serve() -> None:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(60)
                    other(connection)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        telnet_option = ",telnet=on" if telnet else ""
        words = [f"--qemu=-chardev socket,id=line,path={path}{telnet_option}", "--device=pci-serial,chardev=line"]
        result = vm.run(*words, "--", *command, stdin=stdin)
        thread.join()
    assert result.returncode == 0, result.stderr.decode()
    assert not errors, errors
    return result.stdout.decode()


def read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        assert byte
        line += byte
    return line


def test_115200_bytes_there_and_back(vm: Vm, tmp_path: Path) -> None:
    def echo(connection: socket.socket) -> None:
        while data := connection.recv(4096):
            connection.sendall(data)

    output = guest(vm, tmp_path, echo, sys.executable, str(GUEST), "echo")
    print(output)
    assert output.startswith("same True, more 0, ")


def test_what_comes_while_python_is_busy(vm: Vm, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    answers: list[bytes] = []

    def send(connection: socket.socket) -> None:
        assert read_line(connection) == b"go\n"
        connection.sendall(data)
        answers.append(read_line(connection))

    output = guest(vm, tmp_path, send, sys.executable, str(GUEST), "receive")
    digest = hashlib.sha256(data).hexdigest()
    assert output == f"received {digest}\n"
    assert answers == [digest.encode() + b"\n"]


def test_nobody_reads_at_the_other_end(vm: Vm, tmp_path: Path) -> None:
    total = 256 * 64
    received: list[bytes] = []

    def read_late(connection: socket.socket) -> None:
        # QEMU's process is the only one that knows when the guest gave up; 2 s after its last byte it has.
        waiting = -1
        while waiting != (waiting := len(connection.recv(1 << 22, socket.MSG_PEEK))):
            threading.Event().wait(6)
        data = b""
        while len(data) < total and (piece := connection.recv(1 << 16)):
            data += piece
        received.append(data)

    output = guest(vm, tmp_path, read_late, sys.executable, str(GUEST), "nobody_reads")
    written = re.match(r"(\d+) written: .* bytes written in 2 s: the port has not sent the last ones yet", output)
    assert written is not None, output
    assert 0 < int(written[1]) < total
    assert re.search(r"^waiting 16$", output, re.MULTILINE)
    assert output.endswith("all written\n")
    assert received == [bytes(range(256)) * 64]


def test_a_break_is_an_error_between_the_bytes(vm: Vm, tmp_path: Path) -> None:
    def send(connection: socket.socket) -> None:
        opening = b""
        while not opening.endswith(b"go\n"):  # telnet's options are before it
            opening += connection.recv(1)
        connection.sendall(b"ab" + BREAK + b"cd")
        connection.sendall(BREAK + b"\0e")
        while not opening.endswith(b"after\n"):
            opening += connection.recv(1)

    output = guest(vm, tmp_path, send, sys.executable, str(GUEST), "breaks", telnet=True)
    line, reason = output.splitlines()
    assert line == "b'ab[0x10]cd[0x10]\\x00e'"
    assert "break: the line was held at 0" in reason


def test_the_console_has_a_shell_at_the_other_end(vm: Vm, tmp_path: Path) -> None:
    def shell(connection: socket.socket) -> None:
        connection.settimeout(None)  # or reading it would not block, for the shell either
        line = connection.fileno()
        subprocess.run(["sh"], stdin=line, stdout=line, stderr=line, timeout=60, check=False)

    command = [sys.executable, str(EXAMPLE)]
    output = guest(vm, tmp_path, shell, *command, stdin=b"echo $((6 * 7))\nuname -n >/dev/null; echo done\nexit\n")
    assert output == "42\ndone\n"


def test_the_console_without_a_port() -> None:
    command = [sys.executable, str(EXAMPLE), "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("serial_console: 'none' does not name a device")
