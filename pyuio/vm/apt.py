# SPDX-License-Identifier: MIT
"""Packages from Debian's archive, downloaded by apt and unpacked by dpkg, without root and without installing them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyuio.vm import cache
from pyuio.vm.architecture import AMD64, Architecture
from pyuio.vm.errors import KernelError
from pyuio.vm.initramfs import tool_environment

QUERY_TIME_LIMIT = 60.0  # seconds
DOWNLOAD_TIME_LIMIT = 1800.0
SYSTEM_INDEX = Path("/var/cache/apt/pkgcache.bin")
Answer = TypeVar("Answer")


class DownloadError(KernelError):
    """A package could not be downloaded."""


@dataclass(frozen=True)
class Package:
    """One version of a package; `size` is that of its file, in bytes."""

    name: str
    version: str
    size: int

    @property
    def file_name(self) -> str:
        """The package's name and version, in a form that can be a file name."""
        return re.sub(r"[^\w.+~-]", "_", f"{self.name}_{self.version}")


def run(command: list[str], limit: float, directory: Path | None = None) -> str:
    """Run a tool and return what it printed.

    Args:
        command: The tool and its arguments.
        limit: Seconds that it may take.
        directory: Its working directory; None for this program's.

    Raises:
        KernelError: The tool is not here, failed, or did not finish in time.
    """
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=tool_environment(),
            timeout=limit,
            cwd=directory,
        )
    except FileNotFoundError as error:
        raise KernelError(
            f"no {command[0]} here, so nothing can be fetched from Debian: use --kernel host, or a kernel's path"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{command[0]} did not finish within {limit:.0f} s") from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg"))] or [result.stderr]
        raise KernelError(f"{' '.join(command)} failed: {lines[0].strip()}")
    return result.stdout


def archive(architecture: Architecture = AMD64) -> Archive:
    """Return Debian's archive for a kind of processor, whose own lists are in the cache."""
    directory = cache.root() / "kernels"
    if not architecture.foreign:
        return Archive(directory / "apt")
    return Archive(directory / f"apt-{architecture.name}", architecture.name)


def extract(deb: Path, directory: Path) -> None:
    """Unpack a package's files into `directory`.

    Raises:
        KernelError: The file is not a complete package.
    """
    run(["dpkg-deb", "-x", str(deb), str(directory)], 300)


class Archive:
    """Debian's archive as apt sees it; with lists of packages of its own if the system's are missing or out of date.

    Args:
        directory: Where the lists of its own are kept.
        architecture: Debian's name for the processor that the packages are for; "" for this machine's. The lists for
            another are always its own.
    """

    def __init__(self, directory: Path, architecture: str = "") -> None:
        self._directory = directory
        self._architecture = architecture
        self._updated = False
        self._options = self._kept_index()
        if architecture:
            self._options += self._own_lists()

    def _kept_index(self) -> list[str]:
        """Let apt keep its index of the lists where the system keeps none, as in containers: it takes a second."""
        if SYSTEM_INDEX.exists():
            return []
        self._directory.mkdir(parents=True, exist_ok=True)
        return ["-o", f"Dir::Cache::pkgcache={self._directory / 'pkgcache.bin'}"]

    def _own_lists(self) -> list[str]:
        lists, files = self._directory / "lists", self._directory / "archives"
        for path in (lists / "partial", files / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={self._directory}"]
        if self._architecture:
            options += [
                "-o",
                f"APT::Architecture={self._architecture}",
                "-o",
                f"APT::Architectures={self._architecture}",
            ]
        return [*options, "-o", "APT::Sandbox::User="]

    def update(self) -> None:
        """Fetch separate lists of packages and use them: a user without root cannot update the system's.

        Raises:
            KernelError: apt is not here, or cannot fetch them.
        """
        self._options = [*self._kept_index(), *self._own_lists()]
        run(["apt-get", *self._options, "-q", "update"], QUERY_TIME_LIMIT * 5)
        self._updated = True

    def newest(self, meta: str) -> Package:
        """Return the kernel image that the package `meta` stands for.

        Raises:
            KernelError: apt is not here, or knows no such package.
        """
        return self._with_lists(lambda: self._package(self._image(meta)))

    def package(self, name: str) -> Package:
        """Return the version of a package that apt would install.

        Raises:
            KernelError: apt is not here, or knows no such package.
        """
        return self._with_lists(lambda: self._package(name))

    def depends(self, name: str) -> list[str]:
        """Return the names of the packages that a package depends on, alternatives included.

        Raises:
            KernelError: apt is not here, or knows no such package.
        """
        return self._with_lists(lambda: self._depends(name))

    def _with_lists(self, ask: Callable[[], Answer]) -> Answer:
        """Ask apt; if the system's lists do not have the answer, fetch separate lists and ask once more."""
        try:
            return ask()
        except KernelError:
            if self._updated:
                raise
            self.update()
            return ask()

    def _image(self, meta: str) -> str:
        try:
            return next(name for name in self._depends(meta) if name.startswith("linux-image-"))
        except StopIteration:
            raise KernelError(f"apt knows no package {meta}: use --kernel host, or a kernel's path") from None

    def _depends(self, name: str) -> list[str]:
        shown = run(["apt-cache", *self._options, "depends", name], QUERY_TIME_LIMIT)
        return re.findall(r"Depends: (\S+)", shown)

    def _package(self, name: str) -> Package:
        shown = run(["apt-cache", *self._options, "show", "--no-all-versions", name], QUERY_TIME_LIMIT)
        version = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
        size = re.search(r"^Size: (\d+)$", shown, re.MULTILINE)
        if version is None or size is None:
            raise KernelError(f"apt cannot tell the version of {name}")
        return Package(name, version[1], int(size[1]))

    def download(self, package: Package, directory: Path) -> Path:
        """Download a package's file into `directory`; apt checks it against the archive's signed lists.

        Raises:
            DownloadError: The download failed; the archive may have a newer version by now.
        """
        command = ["download", f"{package.name}={package.version}"]
        sandbox = ["-o", "APT::Sandbox::User="]  # apt's own user could not enter the directory, which is private
        try:
            run(["apt-get", *self._options, *sandbox, "-q", *command], DOWNLOAD_TIME_LIMIT, directory)
        except KernelError as error:
            raise DownloadError(str(error)) from error
        debs = list(directory.glob("*.deb"))
        if len(debs) != 1 or debs[0].stat().st_size != package.size:
            raise DownloadError(f"apt did not download {package.name} {package.version} completely")
        return debs[0]

    def download_all(self, names: Sequence[str], directory: Path) -> list[Path]:
        """Download packages and all that they need, as for a system that has none, into an empty directory.

        Returns:
            The packages' files. apt checks them against the archive's signed lists.

        Raises:
            KernelError: apt is not here, or knows no such package.
            DownloadError: The download failed; the archive may have newer versions by now.
        """
        (directory / "partial").mkdir()
        (directory / "status").touch()  # no package is installed
        places = ["-o", f"Dir::State::status={directory / 'status'}", "-o", f"Dir::Cache::Archives={directory}"]
        places += ["-o", "Debug::NoLocking=true"]  # a user without root cannot take the system's lock
        command = ["apt-get", *self._options, *places, "-q", "-y", "--no-install-recommends", "install"]
        self._with_lists(lambda: run([*command, "--simulate", *names], QUERY_TIME_LIMIT))
        try:
            run([*command, "--download-only", *names], DOWNLOAD_TIME_LIMIT)
        except KernelError as error:
            raise DownloadError(str(error)) from error
        return sorted(directory.glob("*.deb"))
