# SPDX-License-Identifier: MIT
"""A CPython that is not here, from Debian's testing suite: unpacked with the C library that it needs, not installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyuio.vm import apt
from tests.debian_archive import download, use_own_libraries


def fetch(version: str, directory: Path) -> Path:
    """Return the path of the interpreter, below `directory`; fetch and unpack it unless it is there.

    Raises:
        KernelError: apt is not here or does not know Debian, or Debian has no such Python.
    """
    python = directory / f"usr/bin/python{version}"
    if python.exists():
        return python
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as name:
        tree = Path(name) / "tree"
        for deb in download(f"python{version}-dev", Path(name), "testing"):
            apt.extract(deb, tree)
        use_own_libraries(tree, python.relative_to(directory), directory)
        # Debian's pyconfig.h includes another one, which it expects in /usr/include.
        (multiarch,) = (tree / "usr/include").glob(f"*-linux-gnu/python{version}")
        (tree / f"usr/include/python{version}" / multiarch.parent.name).symlink_to(f"../{multiarch.parent.name}")
        tree.rename(directory)  # all files appear at once
    return python
