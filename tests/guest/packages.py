# SPDX-License-Identifier: MIT
"""Files of Debian's packages, unpacked and not installed; this runs on the host, before the guest."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyuio.vm import apt, cache


def fetch(packages: tuple[str, ...], directory: Path, wanted: str) -> Path:
    """Return `wanted`, a file below `directory`, where the packages are unpacked unless it is there."""
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
