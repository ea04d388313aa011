# SPDX-License-Identifier: MIT
"""Files of Debian's packages for the guest, unpacked on the host and not installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyuio.vm import apt, cache


def fetch(packages: tuple[str, ...], directory: Path, wanted: str) -> Path:
    """Return a file of these packages, unpacking all of them unless it is there.

    Args:
        packages: their names in Debian's archive.
        directory: where they are unpacked to; absent or empty at first.
        wanted: the file, below the directory.

    Raises:
        GuestError: one cannot be fetched, or is damaged.
    """
    program = directory / wanted
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    archive = apt.Archive(cache.root() / "kernels/apt")
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        tree = Path(name) / "tree"
        for package in packages:
            place = Path(name) / package
            place.mkdir()
            apt.extract(archive.download(archive.package(package), place), tree)
        directory.rmdir()
        tree.rename(directory)  # all of it, at once
    return program
