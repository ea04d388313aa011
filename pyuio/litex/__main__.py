# SPDX-License-Identifier: MIT
"""``python -m pyuio.litex csr.json``: print the Python module that declares the registers of a system by LiteX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyuio.errors import CsrFileError
from pyuio.litex import python_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the Python module for LiteX's list of registers, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pyuio.litex",
        description="Print a Python module that declares the registers that LiteX's csr.json or csr.csv lists.",
    )
    parser.add_argument("file", help="csr.json or csr.csv")
    parser.add_argument(
        "--base",
        metavar="ADDRESS",
        type=_address,
        help="the address in the system that is at the start of the BAR (default: that of the CSR bus)",
    )
    options = parser.parse_args(arguments)
    try:
        text = python_source(options.file, base=options.base)
    except CsrFileError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(text.encode())
    return 0


def _address(text: str) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if address < 0:
        raise argparse.ArgumentTypeError(f"an address is a number from 0, such as 0xf0000000, not {text!r}")
    return address


if __name__ == "__main__":
    sys.exit(main())
