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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel.trusted_directory import temporary
from pyuio.vm import host_files, kernels, kvm_probe, machine, saved_state, session, system, terminal
from pyuio.vm.cards import PROXY, Cards
from pyuio.vm.errors import CardError, GuestError, GuestHangError, GuestStartError, GuestTimeoutError
from pyuio.vm.initramfs import command_script, configuration, overlay_archive
from pyuio.vm.monitor import Monitor
from pyuio.vm.process import Lines, Process, memory_file, socket_pairs
from pyuio.vm.saved_state import SavedState
from pyuio.vm.streams import Incoming, Outgoing, fill_standard_streams


def _beside_python(command: Sequence[str]) -> list[str]:
    """Return the command; a program without a directory is looked for beside this program's Python first."""
    if not command or "/" in command[0]:
        return list(command)
    beside = shutil.which(command[0], path=str(Path(sys.executable).parent))
    return [beside or command[0], *command[1:]]


class _RestoreError(Exception):
    """A guest did not start from its saved state."""


@dataclass(frozen=True)
class _Start:
    """What a start of the guest needs, whether from a saved state or by a boot."""

    qemu: str
    kernel: kernels.Kernel
    accelerator: str
    initramfs: Sequence[bytes]
    script: str
    cards: Cards | None
    system: system.System | None
    interactive: bool


class _Check:
    """Reads a saved state in a thread, beside QEMU's start, to see whether it is undamaged."""

    def __init__(self, state: SavedState) -> None:
        self._state = state
        self._intact: bool | Exception = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            self._intact = self._state.intact()
        except Exception as error:
            self._intact = error  # tells nothing about the state

    def wait(self) -> None:
        """Wait for the end of the check; remove the state if it is damaged.

        Raises:
            GuestStartError: It is damaged.
            Exception: It could not be checked, and stays.
        """
        self._thread.join()
        if isinstance(self._intact, Exception):
            raise self._intact
        if not self._intact:
            self._state.discard()
            directory = self._state.directory
            raise GuestStartError(f"{directory} is damaged or of another machine; the next start makes it anew")


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
        self._begin = 0.0
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
        self._begin = time.monotonic()
        fill_standard_streams()
        variables = dict(os.environ if environment is None else environment)
        qemu = machine.find_qemu(self.options.architecture)
        if not self.options.cards:
            return self._start(qemu, None, command, directory, variables)
        with Cards(self.options, qemu, self._tell) as cards:
            cards.wait_until_ready()
            return self._start(qemu, cards, command, directory, variables)

    def _start(
        self,
        qemu: str,
        cards: Cards | None,
        command: Sequence[str],
        directory: str | None,
        variables: Mapping[str, str],
    ) -> int:
        architecture = self.options.architecture
        other = system.prepare(architecture, self._say) if architecture.foreign else None
        kernel = kernels.prepare(self.options.kernel, self._say, architecture=architecture)
        if other is not None:
            accelerator = kvm_probe.Acceleration("tcg", f"this machine is no {architecture.name}")
        elif cards is not None:
            accelerator = kvm_probe.Acceleration("tcg", "a card in Python needs emulation")
        else:
            accelerator = kvm_probe.choose(qemu, kernel, self._say)
        self._show(accelerator.text)
        words = _beside_python(command) or [variables.get("SHELL") or "/bin/bash"]
        own = system.DIRECTORIES if other is not None else ()
        script = command_script(words, directory or str(Path.cwd()), variables, own)
        overlay = overlay_archive("run", None if other is None else other.busybox)
        initramfs = [kernel.archive.read_bytes(), overlay]
        start = _Start(qemu, kernel, accelerator.name, initramfs, script, cards, other, interactive=not command)
        state = self._saved_state(start)
        if state is None:
            return self._run(start, None)
        try:
            return self._run(start, state)
        except _RestoreError as error:
            why = f"the guest did not start from its saved state, so it boots: {error}"
            self._show(why)

        def booted() -> None:
            if "non-migratable" not in why:  # then it was a device of this run
                state.discard()  # the same guest boots, so it was the state that did not start
            if not self.verbose:
                self._say(why)

        return self._run(start, None, booted)

    def _saved_state(self, start: _Start) -> SavedState | None:
        """Return the state that the guest starts from; None if it boots."""
        reason = saved_state.reason_to_boot(self.options, start.accelerator)
        if start.cards is not None and start.cards.transport != PROXY:
            reason = "QEMU restores no guest that has a card by vfio-user"
        if not reason:
            try:
                state = saved_state.find(start.qemu, start.kernel, start.initramfs, self.options, self._show)
            except GuestError as error:
                self._say(f"no saved state: {error}")
                return None
            name = saved_state.not_pluggable(self.options, state)
            if name:
                reason = f"{name} cannot be plugged into a running guest"
            elif not state.writable:
                reason = f"{state.directory} is read-only, and QEMU opens the memory in it for writing"
            else:
                self._show(f"starts from the state in {state.directory}")
                return state
        self._show(f"boots: {reason}")
        return None

    def _run(self, start: _Start, state: SavedState | None, then: Callable[[], None] = lambda: None) -> int:
        """Run COMMAND in a guest that starts from `state`, or boots; call `then` when COMMAND starts.

        Raises:
            _RestoreError: The guest did not start from `state`; QEMU is gone.
            GuestError: As for `run`.
        """
        terminals = terminal.standard_terminals()
        token = secrets.token_hex(16)
        with contextlib.ExitStack() as stack:
            ours, theirs = stack.enter_context(socket_pairs("console", "monitor", *machine.PORTS))
            inherited = {name: end.fileno() for name, end in theirs.items()}
            descriptors = [*inherited.values()]
            one_thread = machine.needs_one_thread(start.qemu, start.accelerator, self.options)
            # An access to a card holds up the thread that makes it, and a second thread would wait for a lock of it.
            one_thread |= start.cards is not None and start.cards.transport == PROXY
            if state is None:
                memory = "" if start.cards is None else machine.shared_memory(self.options)
                source = [stack.enter_context(memory_file(*start.initramfs))]
                path = f"/proc/self/fd/{source[0]}"
                descriptors += source
                tail = machine.boot(start.kernel, path, start.accelerator, self.options, chatty=self.verbose)
            else:
                path = None
                if start.cards is not None:  # they share the memory
                    descriptors.append(stack.enter_context(state.memory_copy()))
                    path = f"/proc/self/fd/{descriptors[-1]}"
                memory = state.backend(machine.memory_size(self.options), shared=path)
                tail = ["-incoming", "defer"]
            root = stack.enter_context(temporary("pyuio-")) if os.geteuid() == 0 else "/"
            line = machine.base(
                start.qemu, start.accelerator, self.options, inherited, memory, root, one_thread=one_thread
            )
            line += tail
            given = stack.enter_context(contextlib.ExitStack())  # what is QEMU's alone
            if start.cards is not None:
                words, ends = start.cards.arguments(given)
                line += words
                descriptors += ends
            line += machine.devices(self.options)
            if root != "/":
                line = [sys.executable, "-I", "-S", host_files.__file__, root, *line]
            self._show(shlex.join(line))
            stack.callback(self._progress.clear)
            if 0 in terminals:
                stack.enter_context(terminal.restored(0))
            monitor = Monitor(ours["monitor"])
            check = _Check(state) if state is not None else None
            if state is not None:
                state.load(monitor)
            processor = None if start.cards is None else start.cards.processor
            process = stack.enter_context(Process(line, descriptors, processor))
            for end in theirs.values():
                end.close()  # otherwise ours would not see that QEMU ended
            given.close()

            def configure() -> bytes:
                if check is not None:
                    check.wait()
                return configuration(self._variables(start, terminals, token, restored=state is not None))

            def started() -> None:
                self.boot_time = time.monotonic() - self._begin
                self._progress.clear()
                then()
                self._show(f"{self.boot_time:.1f} s from start to COMMAND")
                if terminals:
                    stack.enter_context(_follow_size(ours["control"]))
                if 0 in terminals:
                    terminal.pass_keys(0, interrupts=start.interactive)

            routes = {"stdout": 1, "stderr": 2}
            routes = {name: fd for name, fd in routes.items() if fd not in terminals}
            if terminals:
                routes["tty"] = next(fd for fd in (1, 2, 0) if fd in terminals)
            run = session.Session(
                process,
                ours,
                monitor,
                configure,
                state is not None,
                Incoming(0, ours["tty" if 0 in terminals else "stdin"], ends=0 not in terminals),
                [Outgoing(ours[name], fd, token.encode()) for name, fd in routes.items()],
                self.console,
                None if self.options.timeout is None else self._begin + self.options.timeout,
                started,
                self._show,
                start.cards,
            )
            try:
                return run.run(self._progress)
            except (CardError, GuestTimeoutError):
                raise
            except GuestError as error:
                if state is None or run.running:
                    raise
                if isinstance(error, GuestHangError):
                    self._say(error.report)  # the boot may go well, and then nobody else tells
                raise _RestoreError(str(error)) from error

    def _variables(self, start: _Start, terminals: list[int], token: str, *, restored: bool) -> dict[str, str]:
        """Return the shell variables for the scripts in the guest."""
        rows, columns = terminal.size()
        return {
            "restored": str(int(time.time())) if restored else "",  # when, so that the guest can set its clock
            "heartbeat": str(session.HEARTBEAT),
            "loglevel": str(machine.log_level(chatty=self.verbose)),
            **(start.system.variables() if start.system is not None else {}),
            "version": start.kernel.version,
            "modules": str(start.kernel.modules),
            "hostname": socket.gethostname(),
            "out": "" if self.options.out is None else str(self.options.out.resolve()),
            "token": token,
            "ttys": "".join(map(str, terminals)),
            "rows": str(rows),
            "columns": str(columns),
            # The local terminal is raw only if it is the input; otherwise it converts line ends itself.
            "stty": "sane" if 0 in terminals else "raw -echo",
            "script": start.script,
        }

    def _say(self, text: str) -> None:
        self._progress.clear()
        print(f"pyuio: {text}", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        if self.verbose:
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._progress.clear()
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
