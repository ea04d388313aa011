# SPDX-License-Identifier: MIT
"""Builds Linux's own UIO drivers that no Debian kernel has, from Debian's package of the kernel's source.

``python -m tests.guest.linux_uio VERSION DIRECTORY`` leaves ``DIRECTORY/uio_pdrv_genirq-VERSION.ko`` and the others; it
runs on the host. The package has 139 MB, so only the tests marked long use these drivers.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt
from tests.guest import kernel_module

DRIVERS = ("uio_pdrv_genirq", "uio_dmem_genirq", "uio_cif")


def build(version: str, directory: Path) -> list[Path]:
    """Return the modules for a Debian kernel; see `kernel_module.build`."""
    modules = [kernel_module.path(version, directory, name) for name in DRIVERS]
    if all(module.exists() for module in modules):
        return modules
    release = re.match(r"[0-9]+\.[0-9]+", version)
    assert release is not None
    with tempfile.TemporaryDirectory(dir=directory.resolve()) as made:
        work = Path(made)
        sources = _extract(f"linux-source-{release[0]}", work)
        wanted = (kernel_module.Module(name, source) for name, source in zip(DRIVERS, sources, strict=True))
        return kernel_module.build(version, directory, *wanted)


def _extract(package: str, work: Path) -> list[Path]:
    """Unpack the drivers' sources, and no other file, from a package that has the kernel's in an archive."""
    archive = apt.archive()
    deb = archive.download(archive.package(package), work)
    names = [f"{package}/drivers/uio/{name}.c" for name in DRIVERS]
    tar = shutil.which("tar") or "tar"
    # GNU tar ends after the last of them: --occurrence. What then writes into a closed pipe fails, which is no error.
    steps = (
        ["dpkg-deb", "--fsys-tarfile", str(deb)],
        [tar, "-xO", f"./usr/src/{package}.tar.xz"],
        ["xz", "-dc"],
        [tar, "-x", "--occurrence", "-C", str(work), *names],
    )
    running: list[subprocess.Popen[bytes]] = []
    for step in steps:
        before = running[-1].stdout if running else None
        running.append(subprocess.Popen(step, stdin=before, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        if before is not None:
            before.close()
    with running[-1]:
        if running[-1].wait(kernel_module.LIMIT):
            raise apt.DownloadError(f"{package} has not all of {', '.join(names)}")
    for process in running[:-1]:
        process.wait(kernel_module.LIMIT)
    return [work / name for name in names]


if __name__ == "__main__":
    print(*build(sys.argv[1], Path(sys.argv[2])), sep="\n")
