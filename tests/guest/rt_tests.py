# SPDX-License-Identifier: MIT
"""Fetches cyclictest out of Debian's package rt-tests, and the library it needs; nothing is installed.

``python -m tests.guest.rt_tests DIRECTORY`` leaves ``DIRECTORY/usr/bin/cyclictest``; it runs on the host, before the
guest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pyuio.vm import packages
from pyuio.vm.architecture import AMD64, Architecture


def kept(processor: str) -> Path:
    """Return where `tests.run` keeps it for guests with a processor, by its name as ``uname -m`` prints it."""
    return Path(__file__).resolve().parents[2] / f"build/rt-tests-{processor}"


def fetch(directory: Path, architecture: Architecture = AMD64) -> Path:
    """Return the program, fetching it if it is not there."""
    return packages.fetch(("rt-tests", "libnuma1"), directory, "usr/bin/cyclictest", architecture)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
