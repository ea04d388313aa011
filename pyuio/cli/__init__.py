# SPDX-License-Identifier: MIT
"""The command ``pyuio``."""

from __future__ import annotations

import sys

import typer

from pyuio.cli import bench, vm
from pyuio.cli.doctor import EPILOG, doctor
from pyuio.errors import PyuioError

app = typer.Typer(
    name="pyuio",
    help="PCI drivers in Python, in user space, on Linux UIO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench.app, name="bench")
app.add_typer(vm.app, name="vm")
app.command(name="doctor", epilog=EPILOG)(doctor)


def main() -> None:
    """Runs the command line; errors that pyuio raises on purpose become one line and an exit status."""
    try:
        app()
    except PyuioError as error:
        # Without the number that Python puts before it; what the kernel answered is in the text.
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        print(f"pyuio: {text}", file=sys.stderr)
        sys.exit(getattr(error, "status", 1))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
