# SPDX-License-Identifier: MIT
"""A running QEMU: its sockets and messages. QEMU ends with this program, whatever happens to that."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from pyuio.process.printable import printable
from pyuio.vm.errors import GuestStartError

LINES_KEPT = 400
END_TIME_LIMIT = 2.0  # seconds for QEMU to write back its disk images after SIGTERM


def _shown(line: bytes) -> str:
    return printable(line.decode(errors="replace").strip("\r"))


class Lines:
    """The last lines of a stream of bytes, as a terminal can show them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take more of the stream and return the lines that it completed."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        lines = [_shown(line) for line in whole]
        self._lines.extend(lines)
        self._rest = self._rest[-4096:]
        return lines

    def last(self, count: int) -> list[str]:
        """Return up to `count` of the last lines, without empty ones."""
        lines = [*self._lines, _shown(self._rest)]
        return [line for line in lines if line.strip()][-count:]

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.last(LINES_KEPT))


@contextlib.contextmanager
def on_processor(number: int | None) -> Iterator[None]:
    """Have programs that are started in a ``with`` block run on one processor only; None for any."""
    if number is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(command: Sequence[str], output: int, inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C does not reach it; the kernel ends it with this one.

    Args:
        command: The program and its arguments.
        output: A file descriptor for its standard output and error. It has no input.
        inherited: The file descriptors that it inherits.
    """
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    return subprocess.Popen(
        [*guard, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=inherited,
        start_new_session=True,
    )


class Process:
    """QEMU as a child in a session of its own, so that Ctrl-C on the terminal does not reach it.

    A context manager, which ends QEMU when it is left. If this program is killed, the kernel kills QEMU.

    Args:
        command: QEMU's program and arguments.
        inherited: The file descriptors that QEMU inherits.
        processor: The number of the only processor that QEMU may use; None for all.

    Attributes:
        pid: QEMU's process id.
        messages: A socket from which QEMU's own messages can be read.

    Raises:
        GuestStartError: QEMU could not be started.
    """

    def __init__(self, command: Sequence[str], inherited: Sequence[int], processor: int | None = None) -> None:
        self.messages, messages = socket.socketpair()
        try:
            with on_processor(processor):
                self._child = start(command, messages.fileno(), inherited)
        except OSError as error:
            self.messages.close()
            raise GuestStartError(f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            messages.close()
        self.pid = self._child.pid
        # The kernel shares the processors among sessions first, and by nice values only within each: autogroup in
        # sched(7). So this program's value becomes that of QEMU's session.
        if nice := os.nice(0):
            with contextlib.suppress(OSError):  # a kernel without autogroup needs none, and has no such file
                Path(f"/proc/{self.pid}/autogroup").write_text(str(nice))

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.end(gently=kind is None)
        finally:
            self.messages.close()

    def end(self, *, gently: bool) -> None:
        """End QEMU if it still runs; if `gently`, let it write back its disk images first."""
        try:
            if gently and self._child.poll() is None:
                self._child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(END_TIME_LIMIT)
        finally:  # also when a signal interrupts the wait
            if self._child.poll() is None:
                self._child.kill()
                self._child.wait()

    def delays(self) -> dict[str, float]:
        """Return how many seconds each of QEMU's threads has waited for a processor that others had, by thread.

        Empty if the kernel does not tell (``schedstat`` in proc(5)), or QEMU is gone.
        """
        found = {}
        for task in Path(f"/proc/{self.pid}/task").glob("*"):
            with contextlib.suppress(OSError):
                found[task.name] = int((task / "schedstat").read_text().split()[1]) / 1e9
        return found

    def wait(self) -> int:
        """Return QEMU's exit status once it has closed its sockets, as `subprocess` gives it: -N for signal N."""
        return self._child.wait(10)


@contextlib.contextmanager
def memory_file(*parts: bytes) -> Iterator[int]:
    """Yield the descriptor of a private file in memory that contains `parts`, each aligned to 4 bytes."""
    fd = os.memfd_create("pyuio-initramfs")
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            for part in parts:
                file.write(part + b"\0" * (-len(part) % 4))
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def socket_pairs(*names: str) -> Iterator[tuple[dict[str, socket.socket], dict[str, socket.socket]]]:
    """Yield connected sockets by name: our ends, and those for QEMU."""
    ours: dict[str, socket.socket] = {}
    theirs: dict[str, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            ours[name], theirs[name] = socket.socketpair()
            stack.enter_context(ours[name])
            stack.enter_context(theirs[name])
        yield ours, theirs
