# SPDX-License-Identifier: MIT
"""The command line of ``pyuio`` for typer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pyuio.cli.groups import MEASURE, Commands, later

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

        from pyuio.process.printable import printable

        class Printable(logging.Formatter):
            def format(self, record: logging.LogRecord) -> str:
                return printable(super().format(record))

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Printable("%(asctime)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        logging.getLogger("pyuio").setLevel(logging.INFO if verbose == 1 else logging.DEBUG)


app.add_typer(later("pyuio.cli.bench"), name="bench", rich_help_panel=MEASURE, help="Measure latency, compare results.")
app.add_typer(
    later("pyuio.cli.vm"), name="vm", rich_help_panel=MEASURE, help="Run commands in a guest with any PCI device."
)
