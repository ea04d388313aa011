# SPDX-License-Identifier: MIT
"""A QEMU with vfio-user, 10.1 or later, from Debian's backports: unpacked, not installed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyuio.vm import apt
from tests.debian_archive import download, use_own_libraries

_PROGRAM = Path("usr/bin/qemu-system-x86_64")


def fetch(directory: Path) -> Path:
    """Return the directory of QEMU's program, below `directory`; fetch and unpack it unless it is there.

    Raises:
        KernelError: apt is not here or does not know Debian, or Debian has no such QEMU.
    """
    if not (directory / _PROGRAM).exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as name:
            tree = Path(name) / "tree"
            for deb in download("qemu-system-x86", Path(name), "trixie", "trixie-backports"):
                apt.extract(deb, tree)
            use_own_libraries(tree, _PROGRAM, directory)
            tree.rename(directory)  # all files appear at once
    return (directory / _PROGRAM).parent
