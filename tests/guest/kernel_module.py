# SPDX-License-Identifier: MIT
"""Builds modules for the guest's kernel from Debian's packages, on the host, and installs nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from pyuio.vm import apt
from pyuio.vm.architecture import AMD64, ARCHITECTURES, Architecture

LIMIT = 300  # seconds


def path(version: str, directory: Path, name: str) -> Path:
    """Return where `build` keeps a module."""
    return directory.resolve() / f"{name}-{version}.ko"


class Module(NamedTuple):
    """A module to build: its name, and its one file of C or Debian's package that leaves its source in /usr/src."""

    name: str
    source: Path | None = None
    package: str | None = None


def build(version: str, directory: Path, *modules: Module) -> list[Path]:
    """Return modules for a Debian kernel, building each unless it is there and as new as its source.

    Args:
        version: of the kernel, as ``uname -r`` prints it, "6.1.0-56-amd64".
        directory: where to keep the modules; no other build may use it.
        modules: which.
    """
    paths = [path(version, directory, module.name) for module in modules]  # absolute, as make runs elsewhere
    wanted = [(module, place) for module, place in zip(modules, paths, strict=True) if not _is_new(place, module)]
    if wanted:
        directory.mkdir(parents=True, exist_ok=True)
        architecture = ARCHITECTURES[version.rpartition("-")[2]]
        with tempfile.TemporaryDirectory(dir=directory.resolve()) as made:
            headers = _headers(version, architecture, Path(made))
            sources = Path(made, "sources")
            for module, _ in wanted:
                _add_source(module, sources / module.name, Path(made, module.name))
            (sources / "Makefile").write_text(f"obj-m := {' '.join(f'{module.name}/' for module, _ in wanted)}\n")
            _make(sources, headers, architecture)
            for module, place in wanted:
                (sources / module.name / f"{module.name}.ko").rename(place)
    return paths


def _is_new(place: Path, module: Module) -> bool:
    return place.exists() and (module.source is None or place.stat().st_mtime >= module.source.stat().st_mtime)


def _headers(version: str, architecture: Architecture, work: Path) -> Path:
    """Unpack the headers of a kernel, and what they need, and return their directory."""
    flavour = f"linux-headers-{version}"
    archive = apt.archive(architecture)
    # Their names differ between releases: linux-kbuild-6.1, and linux-kbuild-6.12.118+deb13.
    parts = [part for part in archive.depends(flavour) if re.match("linux-(headers|kbuild)-", part)]
    for part in [flavour, *parts]:
        # Programs for building run here.
        _unpack(part, apt.archive() if part.startswith("linux-kbuild") else archive, work)
    headers = work / "tree/usr/src" / flavour
    # The packaged one names the place where the headers would be installed.
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{work}/tree/usr/src/"))
    return headers


def _unpack(package: str, archive: apt.Archive, work: Path) -> None:
    place = work / package
    place.mkdir(parents=True)
    apt.extract(archive.download(archive.package(package), place), work / "tree")


def _add_source(module: Module, source: Path, work: Path) -> None:
    """Put a module's source, with a makefile, into the directory `source`."""
    if module.package is not None:
        _unpack(module.package, apt.archive(), work)
        (packaged,) = (work / "tree/usr/src").iterdir()
        shutil.copytree(packaged, source)
    elif module.source is not None:
        source.mkdir(parents=True)
        shutil.copyfile(module.source, source / f"{module.name}.c")
        (source / "Makefile").write_text(f"obj-m := {module.name}.o\n")


def _make(source: Path, headers: Path, architecture: Architecture) -> None:
    # Type information for BPF needs pahole, and nobody reads it.
    command = ["make", "-s", "-C", str(headers), f"M={source}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]
    if architecture != AMD64:
        command += [f"ARCH={architecture.name}", f"CROSS_COMPILE={architecture.triplet}-"]
    subprocess.run(command, check=True, timeout=LIMIT, stdout=sys.stderr)
