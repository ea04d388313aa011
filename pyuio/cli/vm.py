# SPDX-License-Identifier: MIT
"""``pyuio vm``: run a command in a guest."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pyuio.cli.output import say
from pyuio.kernel import programs
from pyuio.vm import (
    Guest,
    GuestError,
    GuestHangError,
    GuestTimeoutError,
    Options,
    OutputClosedError,
    architecture,
    invoking_user,
    kernels,
    plugging,
    system,
)
from pyuio.vm.architecture import AMD64

app = typer.Typer(help="Run commands in a guest with the host's own files and any PCI device that QEMU knows.")

ARCHITECTURES = "|".join(architecture.ARCHITECTURES)
EPILOG = (
    "Exit status: COMMAND's; 128 + N if signal N ended it; 2 wrong usage; 120 a card in Python failed; 121 the guest "
    "stood still; 122 QEMU ended before COMMAND did; 123 the guest's kernel panicked; 124 the time limit passed; 125 "
    "the guest could not be started; 129, 130 or 143 ended by SIGHUP, Ctrl-C or SIGTERM; 141 the reader of the output "
    "went away."
)


class _Ended(BaseException):
    """A signal or the time limit ended this program; no handler of ordinary errors may take it for one of its own."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


@contextlib.contextmanager
def _ended_by_signals(timeout: float | None) -> Iterator[None]:
    """Have signals to end, and the end of `timeout` seconds, raise an exception, so that everything is cleaned up."""

    def end(number: int, _: object) -> None:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        raise _Ended(f"ended by {name}", 128 + number)

    def expire(*_: object) -> None:
        raise _Ended(f"the time limit of {timeout:g} s passed", GuestTimeoutError.status)

    # SIGINT too: a shell starts background jobs with SIGINT ignored, but SIGINT must end this program there as well.
    handlers: dict[int, Callable[[int, object], None]] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGINT: end,
        signal.SIGALRM: expire,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, timeout or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(
    devices: list[str],
    cards: list[str],
    memory: str,
    cpus: int,
    timeout: float | None,
    out: Path | None,
    qemu: list[str],
    boot: bool,
    one_thread: bool,
    **others: str,
) -> Options:
    """Return the guest's options from those of the command line.

    Raises:
        ValueError: An option is malformed, out of range or does not go with another.
    """
    if "none" in devices and len(devices) > 1:
        raise ValueError("--device none excludes every other --device")
    return Options(
        devices=[device for device in devices or ([] if cards else ["edu"]) if device != "none"],
        cards=cards,
        memory=memory,
        cpus=cpus,
        timeout=timeout,
        out=out,
        qemu=[word for text in qemu for word in shlex.split(text)],
        boot=boot,
        one_thread=one_thread,
        **others,
    )


def _give_up_rights() -> None:
    """Take the rights of the user who called sudo. For root, take from PATH what other users can write to.

    Raises:
        GuestStartError: that user's rights cannot be taken.
    """
    invoking_user.become()
    os.environ["PATH"] = programs.trusted_path()


@app.command(epilog=EPILOG, context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="What to run. Default: an interactive shell.")
    ] = None,
    arch: Annotated[str, typer.Option(metavar=ARCHITECTURES, help="The guest's processor.")] = AMD64.name,
    kernel: Annotated[
        str, typer.Option(metavar="debian|debian-rt|host|PATH", help="Fetched from Debian, the running one, or a file.")
    ] = "debian",
    device: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A device as for QEMU's -device, or 'none'; repeatable. Default: edu."),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:CLASS[,hotplug]",
            help="A card in Python, a pyuio.model.Card; repeatable. Then no edu by default. hotplug: see vm plug.",
        ),
    ] = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="The guest's memory, as in 512M or 1G.")] = "1G",
    cpus: Annotated[int, typer.Option(metavar="N", help="The guest's processors.")] = 2,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Time limit for the whole run.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A directory that the guest writes to; nothing else is kept.")
    ] = None,
    append: Annotated[str, typer.Option(metavar="PARAMETERS", help="More kernel parameters.")] = "",
    machine: Annotated[
        str,
        typer.Option(
            "--machine", "-M", metavar="MACHINE", help="Machine type, as for QEMU's -M. Default: q35; virt for arm64."
        ),
    ] = "",
    boot: Annotated[
        bool, typer.Option("--boot", help="Boot the kernel; do not start from a saved state, which is quicker.")
    ] = False,
    one_thread: Annotated[
        bool, typer.Option("--one-thread", help="Emulate all processors in one thread: better beside other guests.")
    ] = False,
    qemu: Annotated[
        list[str] | None, typer.Option(metavar="OPTIONS", help="More options for QEMU, in one string; repeatable.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show acceleration, QEMU's command line, kernel messages, times.")
    ] = False,
) -> None:
    """Run COMMAND in a guest that has the host's files, working directory and environment.

    What the guest writes is lost, except below --out. Everything after -- belongs to COMMAND. A guest that sudo starts
    has the rights of the user who called sudo.
    """
    try:
        _give_up_rights()
    except GuestError as error:
        _fail(str(error), error.status)
    try:
        options = _options(
            device or [],
            card or [],
            memory,
            cpus,
            timeout,
            out,
            qemu or [],
            boot,
            one_thread,
            arch=arch,
            kernel=kernel,
            append=append,
            machine=machine,
        )
    except ValueError as error:
        _fail(str(error), 2)
    guest = Guest(options, verbose=verbose)

    def kernel_lines() -> list[str]:
        return [] if verbose else guest.console.last(20)  # verbose has shown them already

    try:
        with _ended_by_signals(timeout):
            status = guest.run(command or [])
    except _Ended as ended:
        _fail(ended.text, ended.status, kernel_lines())
    except OutputClosedError as error:
        # End quietly, as every filter does. /dev/null keeps the interpreter's last flush from failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(error.status) from error
    except GuestHangError as error:
        print(error.report, file=sys.stderr)
        _fail(str(error), error.status)
    except GuestError as error:
        _fail(str(error), error.status, kernel_lines())
    raise typer.Exit(status)


def _fail(message: str, status: int, kernel_lines: Sequence[str] = ()) -> NoReturn:
    """Print what happened and the kernel's last lines, and end the program with `status`."""
    say(message)
    if kernel_lines:
        say("last lines of the guest's kernel:")
    for line in kernel_lines:
        print(f"  {line}", file=sys.stderr)
    raise typer.Exit(status)


@app.command()
def fetch(
    kernel: Annotated[str, typer.Argument(metavar="debian|debian-rt|host|PATH", help="The kernel.")] = "debian",
    arch: Annotated[str, typer.Option(metavar=ARCHITECTURES, help="The processor that it is for.")] = AMD64.name,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look for a newer kernel, and check every file of the present one.")
    ] = False,
) -> None:
    """Fetch and prepare a kernel, and what else a guest with that processor needs, ahead of its first use."""
    if arch not in architecture.ARCHITECTURES:
        _fail(f"--arch is {ARCHITECTURES.replace('|', ' or ')}: not {arch}", 2)
    wanted = architecture.ARCHITECTURES[arch]
    try:
        _give_up_rights()
        with _ended_by_signals(None):
            if wanted.foreign:
                system.prepare(wanted, say, refresh=refresh)
            ready = kernels.prepare(kernel, say, refresh=refresh, architecture=wanted)
    except _Ended as ended:
        _fail(ended.text, ended.status)
    except GuestError as error:
        _fail(str(error), error.status)
    print(f"{kernel}: {ready.version} in {ready.image.parent.parent}")


Number = Annotated[int, typer.Argument(metavar="N", help="The card's number, from 0, in the order of --card.", min=0)]


@app.command()
def plug(number: Number) -> None:
    """In a guest: plug in a card in Python that was given as --card MODULE:CLASS,hotplug."""
    _change(plugging.plug, number)


@app.command()
def unplug(number: Number) -> None:
    """In a guest: have a card in Python unplugged that was given as --card MODULE:CLASS,hotplug."""
    _change(plugging.unplug, number)


def _change(change: Callable[[int], None], number: int) -> None:
    try:
        change(number)
    except GuestError as error:
        _fail(str(error), error.status)
