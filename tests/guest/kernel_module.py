# SPDX-License-Identifier: MIT
"""Builds a module for the guest's kernel from Debian's packages, on the host, and installs nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt, cache

LIMIT = 300  # seconds


def path(version: str, directory: Path, name: str) -> Path:
    """Return where `build` keeps a module."""
    return directory.resolve() / f"{name}-{version}.ko"


def build(version: str, directory: Path, name: str, *, source: Path | None = None, package: str | None = None) -> Path:
    """Return a module for a Debian kernel, building it unless it is there and as new as its source.

    Args:
        version: of the kernel, as ``uname -r`` prints it, "6.1.0-56-amd64".
        directory: where to keep the module; no other build may use it.
        name: of the module.
        source: its one file of C; None if a package has the source.
        package: Debian's package that leaves the source in ``/usr/src``.
    """
    module = path(version, directory, name)  # absolute, as make runs elsewhere
    if module.exists() and (source is None or module.stat().st_mtime >= source.stat().st_mtime):
        return module
    module.parent.mkdir(parents=True, exist_ok=True)
    flavour = f"linux-headers-{version}"
    archive = apt.Archive(cache.root() / "kernels/apt")
    with tempfile.TemporaryDirectory(dir=module.parent) as made:
        work = Path(made)
        # Their names differ between releases: linux-kbuild-6.1, and linux-kbuild-6.12.118+deb13.
        parts = [part for part in archive.depends(flavour) if re.match("linux-(headers|kbuild)-", part)]
        for part in [flavour, *parts, *([package] if package else [])]:
            place = work / part
            place.mkdir()
            apt.extract(archive.download(archive.package(part), place), work / "tree")
        headers = work / "tree/usr/src" / flavour
        # The packaged one names the place where the headers would be installed.
        makefile = headers / "Makefile"
        makefile.write_text(makefile.read_text().replace("/usr/src/", f"{work}/tree/usr/src/"))
        if source is None:
            (packaged,) = (one for one in (work / "tree/usr/src").iterdir() if not one.name.startswith("linux-"))
            shutil.copytree(packaged, work / "source")
        else:
            (work / "source").mkdir()
            shutil.copyfile(source, work / "source" / f"{name}.c")
            (work / "source/Makefile").write_text(f"obj-m := {name}.o\n")
        # Type information for BPF needs pahole, and nobody reads it.
        command = ["make", "-s", "-C", str(headers), f"M={work}/source", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
        subprocess.run(command, check=True, timeout=LIMIT, stdout=sys.stderr)
        (work / f"source/{name}.ko").rename(module)
    return module
