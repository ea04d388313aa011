# SPDX-License-Identifier: MIT
"""Fetches cyclictest out of Debian's package rt-tests, and the library it needs; nothing is installed.

``python -m tests.guest.rt_tests DIRECTORY`` leaves ``DIRECTORY/usr/bin/cyclictest``; it runs on the host, before the
guest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyuio.vm import packages


def fetch(directory: Path) -> Path:
    """Return the program, fetching it if it is not there."""
    return packages.fetch(("rt-tests", "libnuma1"), directory, "usr/bin/cyclictest")


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
