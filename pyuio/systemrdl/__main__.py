# SPDX-License-Identifier: MIT
"""``python -m pyuio.systemrdl card.rdl``: print the Python module that declares the registers of SystemRDL files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyuio.errors import SystemRdlError, SystemRdlUnavailableError
from pyuio.systemrdl import python_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the Python module for SystemRDL files, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pyuio.systemrdl",
        description="Print a Python module that declares the registers of SystemRDL files.",
    )
    parser.add_argument("files", metavar="file", nargs="+", help="a SystemRDL file, after those that have its types")
    parser.add_argument("--top", metavar="ADDRMAP", help="the addrmap to take (default: the last one of all files)")
    parser.add_argument("--include", metavar="DIRECTORY", action="append", default=[], help="where included files are")
    parser.add_argument(
        "--parameter",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_parameter,
        help="the value of a parameter of the addrmap: a string, or an expression of SystemRDL",
    )
    add_access_options(parser)
    options = parser.parse_args(arguments)
    try:
        text = python_source(
            options.files,
            top=options.top,
            include=options.include,
            parameters=dict(options.parameter),
            bus_width=options.bus_width,
            first=options.first,
        )
    except (SystemRdlError, SystemRdlUnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(text.encode())  # whatever the locale, as Python reads it as UTF-8
    return 0


def add_access_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that tell how the card's bus reaches a register."""
    parser.add_argument(
        "--bus-width",
        metavar="BITS",
        type=int,
        choices=(8, 16, 32, 64),
        help="the widest access that the card understands (default: the largest accesswidth, but at least 32)",
    )
    parser.add_argument(
        "--first",
        choices=("low", "high"),
        default="low",
        help="which part of a register wider than the bus is accessed first (default: low)",
    )


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"a parameter is given as NAME=VALUE, not {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
