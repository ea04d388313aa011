# SPDX-License-Identifier: MIT
"""A guest that runs one command on this program's standard streams."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pyuio.vm import kernels, kvm_probe, machine, terminal
from pyuio.vm.initramfs import command_script, overlay_archive
from pyuio.vm.process import Lines, Process, memory_file, socket_pairs
from pyuio.vm.session import Session
from pyuio.vm.streams import Incoming, Outgoing, fill_standard_streams


def _beside_python(command: Sequence[str]) -> list[str]:
    """Return the command; a program without a directory is looked for beside this program's Python first."""
    if not command or "/" in command[0]:
        return list(command)
    beside = shutil.which(command[0], path=str(Path(sys.executable).parent))
    return [beside or command[0], *command[1:]]


class Guest:
    """A guest for one run of a command.

    Args:
        options: The guest's kernel, devices, memory and so on.
        verbose: Print acceleration, QEMU's command line, the kernel's messages and the time on standard error.

    Attributes:
        console: The last lines of the kernel's console, also after the end.
        boot_time: Seconds from the start of the run to that of COMMAND; None before.
    """

    def __init__(self, options: machine.Options | None = None, *, verbose: bool = False) -> None:
        self.options = options or machine.Options()
        self.verbose = verbose
        self.console = Lines()
        self.boot_time: float | None = None
        self._progress = terminal.Progress(shown=not verbose)

    def run(
        self,
        command: Sequence[str] = (),
        *,
        directory: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command in the guest, on this program's standard streams.

        Args:
            command: The program and its arguments; none for an interactive shell. The program is looked for beside this
                one's Python first, then on PATH, so that "python" is that of this virtual environment.
            directory: The command's working directory; by default this program's.
            environment: The command's complete environment; by default this program's.

        Returns:
            The command's exit status; 128 + N if signal N ended it.

        Raises:
            GuestError: The run failed; the subclass says why. QEMU is gone, as after every other exception.
        """
        begin = time.monotonic()
        fill_standard_streams()
        deadline = None if self.options.timeout is None else begin + self.options.timeout
        variables = dict(os.environ if environment is None else environment)
        qemu = machine.find_qemu()
        kernel = kernels.prepare(self.options.kernel, self._say)
        accelerator = kvm_probe.choose(qemu, kernel, self._say)
        terminals = terminal.standard_terminals()
        token = secrets.token_hex(16)
        script = command_script(
            _beside_python(command) or [variables.get("SHELL") or "/bin/bash"], directory or str(Path.cwd()), variables
        )
        config = self._config(kernel, terminals, token)
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(memory_file(kernel.archive.read_bytes(), overlay_archive(config, script)))
            ours, theirs = stack.enter_context(socket_pairs("console", *machine.PORTS))
            inherited = {name: end.fileno() for name, end in theirs.items()}
            line = machine.command_line(
                qemu, accelerator.name, self.options, kernel, f"/proc/self/fd/{archive}", inherited, chatty=self.verbose
            )
            self._show(accelerator.text)
            self._show(shlex.join(line))
            stack.callback(self._progress.clear)
            if 0 in terminals:
                stack.enter_context(terminal.restored(0))
            if terminals:
                stack.enter_context(_follow_size(ours["control"]))
            process = stack.enter_context(Process(line, [archive, *inherited.values()]))
            for end in theirs.values():
                end.close()  # otherwise ours would not see that QEMU ended

            def started() -> None:
                self.boot_time = time.monotonic() - begin
                self._progress.clear()
                self._show(f"{self.boot_time:.1f} s from start to COMMAND")
                if 0 in terminals:
                    terminal.pass_keys(0, interrupts=not command)

            routes = {"stdout": 1, "stderr": 2}
            routes = {name: fd for name, fd in routes.items() if fd not in terminals}
            if terminals:
                routes["tty"] = next(fd for fd in (1, 2, 0) if fd in terminals)
            session = Session(
                process,
                ours,
                Incoming(0, ours["tty" if 0 in terminals else "stdin"], ends=0 not in terminals),
                [Outgoing(ours[name], fd, token.encode()) for name, fd in routes.items()],
                self.console,
                deadline,
                started,
                self._show,
            )
            return session.run(self._progress)

    def _config(self, kernel: kernels.Kernel, terminals: list[int], token: str) -> dict[str, str]:
        """Return the shell variables for the scripts in the guest."""
        rows, columns = terminal.size()
        return {
            "mode": "run",
            "version": kernel.version,
            "modules": str(kernel.modules),
            "hostname": socket.gethostname(),
            "out": "" if self.options.out is None else str(self.options.out.resolve()),
            "token": token,
            "ttys": "".join(map(str, terminals)),
            "rows": str(rows),
            "columns": str(columns),
            # The local terminal is raw only if it is the input; otherwise it converts line ends itself.
            "stty": "sane" if 0 in terminals else "raw -echo",
        }

    def _say(self, text: str) -> None:
        self._progress.clear()
        print(f"pyuio: {text}", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        if self.verbose:
            # The terminal may be raw.
            print(text, file=sys.stderr, flush=True, end="\r\n" if os.isatty(2) else "\n")


@contextlib.contextmanager
def _follow_size(control: socket.socket) -> Iterator[None]:
    """Tell the guest when the terminal's size changes; in a thread other than the main one do nothing."""

    def tell(*_: object) -> None:
        with contextlib.suppress(OSError):
            control.send(b"size %d %d\n" % terminal.size())

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def run(command: Sequence[str] = (), options: machine.Options | None = None, *, verbose: bool = False) -> int:
    """Run a command in a guest: `Guest.run` in one call."""
    return Guest(options, verbose=verbose).run(command)
