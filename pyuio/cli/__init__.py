# SPDX-License-Identifier: MIT
"""The command ``pyuio``."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from pyuio.cli import access, bind, completion, dump, info, irq, listing, probe, setup
from pyuio.cli.doctor import EPILOG, doctor
from pyuio.cli.groups import Commands, later
from pyuio.errors import PyuioError

LOOK, DRIVE, MEASURE = "Look", "Drive", "Measure and develop"  # the groups in which --help lists the commands

app = typer.Typer(
    name="pyuio",
    cls=Commands,
    help="PCI drivers in Python, in user space, on Linux UIO.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from pyuio import __version__

        print(f"pyuio {__version__}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, metavar="", show_default=False, help="Log what is done; -vv: in detail."
        ),
    ] = 0,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, metavar="", help="Print the version."),
    ] = False,
) -> None:
    """PCI drivers in Python, in user space, on Linux UIO."""
    if verbose:
        form = "%(asctime)s %(name)s: %(message)s"
        logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr)
        logging.getLogger("pyuio").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


app.command("list", rich_help_panel=LOOK, epilog=listing.EPILOG)(listing.list_devices)
app.command("info", rich_help_panel=LOOK, epilog=info.EPILOG)(info.info)
app.command("probe", rich_help_panel=LOOK, epilog=probe.EPILOG)(probe.probe)
app.command("bind", rich_help_panel=DRIVE, epilog=bind.BIND_EPILOG)(bind.bind)
app.command("unbind", rich_help_panel=DRIVE, epilog=bind.UNBIND_EPILOG)(bind.unbind)
app.command("setup", rich_help_panel=DRIVE, epilog=setup.EPILOG, short_help="Let a group drive DEVICE without root.")(
    setup.setup
)
app.command("read", rich_help_panel=DRIVE, epilog=access.WATCH_EPILOG)(access.read)
app.command("write", rich_help_panel=DRIVE, epilog=access.EPILOG)(access.write)
app.command("dump", rich_help_panel=DRIVE, epilog=access.EPILOG)(dump.dump)
app.command("irq", rich_help_panel=DRIVE, epilog=irq.EPILOG)(irq.irq)
app.command("doctor", rich_help_panel=MEASURE, epilog=EPILOG, short_help="Show what blocks a driver or costs latency.")(
    doctor
)
app.add_typer(later("pyuio.cli.bench"), name="bench", rich_help_panel=MEASURE, help="Measure latency, compare results.")
app.add_typer(
    later("pyuio.cli.vm"), name="vm", rich_help_panel=MEASURE, help="Run commands in a guest with any PCI device."
)


def main() -> None:
    """Run the command line; an error that pyuio raises on purpose becomes one line and an exit status."""
    try:
        try:
            if os.environ.get(completion.VARIABLE) == completion.BASH:
                completion.run(app)
            else:
                app()
        finally:
            sys.stdout.flush()  # here a reader that went away raises BrokenPipeError, which is caught below
    except PyuioError as error:
        # strerror leaves out the number that Python prints first; the text has the kernel's answer.
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        print(f"pyuio: {text}", file=sys.stderr)
        sys.exit(getattr(error, "status", 1))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # End quietly, as typer and rich do. /dev/null keeps the interpreter's last flush from failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


if __name__ == "__main__":
    main()
