# SPDX-License-Identifier: MIT
"""The command ``pyuio``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from pyuio.cli import completion
from pyuio.cli.groups import MEASURE, Commands, later
from pyuio.errors import PyuioError

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
        import logging

        form = "%(asctime)s %(name)s: %(message)s"
        logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr)
        logging.getLogger("pyuio").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


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
