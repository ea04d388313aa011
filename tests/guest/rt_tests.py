# SPDX-License-Identifier: MIT
"""Fetches cyclictest out of Debian's package rt-tests, and the library it needs; nothing is installed.

``python -m tests.guest.rt_tests DIRECTORY`` leaves ``DIRECTORY/usr/bin/cyclictest``; it runs on the host, before the
guest.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt, cache

PACKAGES = ("rt-tests", "libnuma1")


def fetch(directory: Path) -> Path:
    """Return the program, fetching it if it is not there."""
    program = directory / "usr/bin/cyclictest"
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    archive = apt.Archive(cache.root() / "kernels/apt")
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        tree = Path(name) / "tree"
        for package in PACKAGES:
            place = Path(name) / package
            place.mkdir()
            apt.extract(archive.download(archive.package(package), place), tree)
        directory.rmdir()
        tree.rename(directory)  # all of it, at once
    return program


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
