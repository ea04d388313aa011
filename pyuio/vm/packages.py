# SPDX-License-Identifier: MIT
"""Files from Debian's packages for the guest: unpacked on the host, not installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyuio.vm import apt
from pyuio.vm.architecture import AMD64, Architecture


def fetch(packages: tuple[str, ...], directory: Path, wanted: str, architecture: Architecture = AMD64) -> Path:
    """Return the path of a file of these packages; fetch and unpack all of them unless it exists.

    Args:
        packages: Their names in Debian's archive.
        directory: Where they are unpacked; absent or empty at first.
        wanted: The file's path below the directory.
        architecture: The processor that they are for.

    Raises:
        GuestError: A package cannot be fetched, or is damaged.
    """
    program = directory / wanted
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    archive = apt.archive(architecture)
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        tree = Path(name) / "tree"
        for package in packages:
            place = Path(name) / package
            place.mkdir()
            apt.extract(archive.download(archive.package(package), place), tree)
        directory.rmdir()
        tree.rename(directory)  # all files appear at once
    return program
