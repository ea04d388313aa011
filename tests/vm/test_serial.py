# SPDX-License-Identifier: MIT
"""The serial port's driver in a guest, with a peer at the other end of the line.

The character device of each port is a socket on the host, and a thread or a shell is at its other end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Vm

GUEST = Path(__file__).with_name("serial_guest.py")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/serial_console.py"
FIRST_SLOT = 0x10
BREAK = b"\1b"  # Ctrl-A b, to a character device with mux=on
DATA = os.urandom(512)
MORE = os.urandom(32_768)  # as many as the driver holds at the least
LATE = bytes(range(256)) * 16

received: dict[str, bytes] = {}
"""What the other ends received, by name."""
write_failed = threading.Event()
"""The guest has said so, on its standard output."""


def read_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        byte = connection.recv(1)
        assert byte, f"the guest closed the line after {data!r}"
        data += byte
    return data


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


def receive(connection: socket.socket, data: bytes) -> None:
    read_until(connection, b"go\n")
    connection.sendall(data)
    received["receive"] = read_until(connection, b"\n")


def late(connection: socket.socket) -> None:
    assert write_failed.wait(200), "the write did not fail"
    data = b""
    while len(data) < len(LATE) and (piece := connection.recv(1 << 16)):
        data += piece
    received["late"] = data


def breaks(connection: socket.socket) -> None:
    read_until(connection, b"go\n")
    for sent in (b"a", BREAK, b"b", BREAK, b"\0", b"e"):
        connection.sendall(sent)
        read_until(connection, b".")  # QEMU's model of the port does not keep the order of breaks and bytes


def console(connection: socket.socket) -> None:
    connection.settimeout(None)  # otherwise the shell's reads would not block
    line = connection.fileno()
    subprocess.run(["sh"], stdin=line, stdout=line, stderr=line, timeout=200, check=False)


OTHERS: list[Callable[..., None]] = [echo, receive, late, breaks, console]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the result of each case in the guest."""
    return run_guest(tmp_path_factory.mktemp("lines"), 500, DATA)


def run_guest(directory: Path, size: int, data: bytes) -> dict[str, Any]:
    """Run all cases, with `size` bytes echoed and `data` sent at once, and return the result of each."""
    vm = Vm()
    words = []
    errors: list[str] = []

    def serve(listener: socket.socket, other: Callable[..., None]) -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(300)
                other(connection, *([data] if other is receive else []))
        except ConnectionError:  # QEMU has ended
            pass
        except (OSError, AssertionError, subprocess.SubprocessError) as error:
            errors.append(f"{other.__name__}: {error}")

    with contextlib.ExitStack() as stack:
        for number, other in enumerate(OTHERS, FIRST_SLOT):
            name, path = other.__name__, directory / other.__name__
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(60)
            mux = ",mux=on" if other is breaks else ""
            words += [f"--qemu=-chardev socket,id={name},path={path}{mux}"]
            words += [f"--device=pci-serial,chardev={name},addr={number:02x}"]
            thread = threading.Thread(target=serve, args=[listener, other], daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
        command = [*vm.command("--timeout=400", *words), "--", sys.executable, str(GUEST), str(size), str(len(data))]
        write_failed.clear()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            write_failed.set()
            output, said = process.communicate()
    assert (process.returncode, first) == (0, b"the write has failed\n"), (first + said).decode()
    assert not vm.left()
    found: dict[str, Any] = json.loads(output)
    return {**found, "other ends": errors}


def test_the_other_ends_had_no_trouble(guest: dict[str, Any]) -> None:
    assert guest["other ends"] == []


def test_bytes_there_and_back(guest: dict[str, Any]) -> None:
    assert (guest["echo"].get("same"), guest["echo"].get("more")) == (True, 0), guest["echo"]


def test_what_comes_while_python_is_busy(guest: dict[str, Any]) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    assert guest["receive"] == {"digest": digest}
    assert received["receive"] == digest.encode() + b"\n"


def test_nobody_reads_at_the_other_end(guest: dict[str, Any]) -> None:
    found = guest["late"]
    assert 0 < found["written"] < len(LATE)
    assert f"{found['written']} of {len(LATE)} bytes written in 1 s: the port has not sent the last" in found["error"]
    assert found["waiting"] == 16
    assert received["late"] == LATE  # the write went on, and lost nothing


def test_a_break_is_an_error_between_the_bytes(guest: dict[str, Any]) -> None:
    assert guest["breaks"].get("found") == ["a", "break", "b", "break", "\0", "e"], guest["breaks"]
    assert "break: the line was held at 0" in guest["breaks"]["reason"]


def test_the_console_has_a_shell_at_the_other_end(guest: dict[str, Any]) -> None:
    assert guest["console"] == {"output": "42\ndone\n", "errors": ""}


def test_the_console_without_a_port() -> None:
    command = [sys.executable, str(EXAMPLE), "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("serial_console: there is no device none; there is:")


@pytest.mark.long  # QEMU's main loop takes half a millisecond for each byte
@pytest.mark.timeout(500)
def test_115200_bytes_there_and_back(tmp_path: Path) -> None:
    # After the others, as it replaces what they look at in `received`.
    found = run_guest(tmp_path, 115_200, MORE)
    assert (found["echo"].get("same"), found["echo"].get("more")) == (True, 0), found["echo"]
    assert found["receive"] == {"digest": hashlib.sha256(MORE).hexdigest()}
