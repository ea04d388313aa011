# SPDX-License-Identifier: MIT
"""Builds a kernel for the guest that has iommufd, which Debian's kernels lack, from Debian's package of the source.

``python -m tests.iommufd_kernel DIRECTORY`` leaves ``DIRECTORY/boot/vmlinuz`` and ``DIRECTORY/lib/modules/VERSION``,
and prints the path of the former. It takes 15 minutes of a processor, and flex, bison, bc and libelf-dev.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt

SOURCE = "linux-source-6.12"  # of Debian 13, and of Debian 12's security archive
CONFIG = Path(__file__).with_suffix(".config")


def build(directory: Path) -> Path:
    """Return the kernel, building it unless it is there and as new as its configuration."""
    directory = directory.resolve()
    kernel = directory / "boot/vmlinuz"
    if kernel.exists() and kernel.stat().st_mtime >= CONFIG.stat().st_mtime:
        return kernel
    if missing := [name for name in ("flex", "bison", "bc") if shutil.which(name) is None]:
        raise SystemExit(f"building a kernel takes {', '.join(missing)}: apt install flex bison bc libelf-dev")
    shutil.rmtree(directory, ignore_errors=True)
    kernel.parent.mkdir(parents=True)
    archive = apt.archive()
    with tempfile.TemporaryDirectory(dir=directory) as made:
        work = Path(made)
        apt.extract(archive.download(archive.package(SOURCE), work), work)
        subprocess.run(["tar", "-xf", work / f"usr/src/{SOURCE}.tar.xz", "-C", work], check=True)
        tree = work / SOURCE
        _make(tree, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig")
        got = (tree / ".config").read_text().splitlines()
        if lost := [line for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_") and line not in got]:
            raise SystemExit(f"{SOURCE} does not take {', '.join(lost)}")
        _make(tree, f"-j{os.cpu_count()}", "bzImage", "modules")
        _make(tree, f"INSTALL_MOD_PATH={directory}", "modules_install")
        shutil.copyfile(tree / "arch/x86/boot/bzImage", kernel)
    return kernel


def _make(tree: Path, *words: str) -> None:
    command = ["nice", "make", "-s", "-C", str(tree), "ARCH=x86_64", *words]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
