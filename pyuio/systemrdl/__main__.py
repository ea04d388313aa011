# SPDX-License-Identifier: MIT
"""``python -m pyuio.systemrdl card.rdl``: print the Python module that declares a SystemRDL file's registers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pyuio.errors import SystemRdlError, SystemRdlUnavailableError
from pyuio.systemrdl import python_source


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the Python module for a SystemRDL file, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pyuio.systemrdl",
        description="Print a Python module that declares a SystemRDL file's registers.",
    )
    parser.add_argument("file", help="the SystemRDL file")
    parser.add_argument("--top", metavar="ADDRMAP", help="the addrmap to take (default: the last one of the file)")
    parser.add_argument("--include", metavar="DIRECTORY", action="append", default=[], help="where included files are")
    options = parser.parse_args(arguments)
    try:
        text = python_source(options.file, top=options.top, include=options.include)
    except (SystemRdlError, SystemRdlUnavailableError) as error:
        print(error, file=sys.stderr)
        return 1
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
