# SPDX-License-Identifier: MIT
"""Builds igb_uio, a UIO driver with irqcontrol, for the guest's kernel from Debian's packages, and installs nothing.

``python -m tests.guest.igb_uio VERSION DIRECTORY`` leaves ``DIRECTORY/igb_uio.ko``; it runs on the host, before the
guest. The packages are the source (dpdk-kmods-dkms), and the kernel's headers and build tools.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt, cache

LIMIT = 300  # seconds


def build(version: str, directory: Path) -> Path:
    """Return the module for a Debian kernel, building it if it is not there.

    Args:
        version: of the kernel, as ``uname -r`` prints it, "6.1.0-56-amd64".
        directory: where to keep the module; no other build may use it.
    """
    directory = directory.resolve()  # make runs elsewhere
    module = directory / f"igb_uio-{version}.ko"
    if module.exists():
        return module
    directory.mkdir(parents=True, exist_ok=True)
    flavour = f"linux-headers-{version}"
    archive = apt.Archive(cache.root() / "kernels/apt")
    with tempfile.TemporaryDirectory(dir=directory) as name:
        work = Path(name)
        # Their names differ between releases: linux-kbuild-6.1, and linux-kbuild-6.12.118+deb13.
        parts = [package for package in archive.depends(flavour) if re.match("linux-(headers|kbuild)-", package)]
        for package in ["dpdk-kmods-dkms", flavour, *parts]:
            place = work / package
            place.mkdir()
            apt.extract(archive.download(archive.package(package), place), work / "tree")
        headers = work / "tree/usr/src" / flavour
        # The packaged one names the place where the headers would be installed.
        makefile = headers / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{work}/tree/usr/src/"))
        (source,) = (work / "tree/usr/src").glob("dpdk-kmods-*")
        shutil.copytree(source, work / "source")
        # Type information for BPF needs pahole, and nobody reads it.
        command = ["make", "-s", "-C", str(headers), f"M={work}/source", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
        subprocess.run(command, check=True, timeout=LIMIT, stdout=sys.stderr)
        (work / "source/igb_uio.ko").rename(module)
    return module


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2])))
