# SPDX-License-Identifier: MIT
"""Packages from Debian's archive, downloaded by apt and unpacked by dpkg, without root and without installing them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm.errors import KernelError
from pyuio.vm.initramfs import tool_environment

QUERY_TIME_LIMIT = 60.0  # seconds
DOWNLOAD_TIME_LIMIT = 1800.0


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
        """A name for it that can be a file's."""
        return re.sub(r"[^\w.+~-]", "_", f"{self.name}_{self.version}")


def run(command: list[str], limit: float, directory: Path | None = None) -> str:
    """Runs a tool and returns what it printed."""
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
            f"no {command[0]} here, so Debian's kernel cannot be fetched: use --kernel host, or the path of one"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{command[0]} did not finish within {limit:.0f} s") from error
    if result.returncode != 0:
        lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "dpkg"))] or [result.stderr]
        raise KernelError(f"{' '.join(command)} failed: {lines[0].strip()}")
    return result.stdout


def extract(deb: Path, directory: Path) -> None:
    """Unpacks a package's files into `directory`.

    Raises:
        KernelError: The file is not a complete package.
    """
    run(["dpkg-deb", "-x", str(deb), str(directory)], 300)


class Archive:
    """Debian's archive as apt knows it; with own lists of packages where the system's are missing or out of date.

    Args:
        directory: Where own lists are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._options: list[str] = []

    def update(self) -> None:
        """Fetches own lists of packages and uses them: a user without root cannot update the system's.

        Raises:
            KernelError: apt is not here, or cannot.
        """
        lists, files = self._directory / "lists", self._directory / "archives"
        for path in (lists / "partial", files / "partial"):
            path.mkdir(parents=True, exist_ok=True)
        self._options = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={self._directory}"]
        self._options += ["-o", "APT::Sandbox::User="]
        run(["apt-get", *self._options, "-q", "update"], QUERY_TIME_LIMIT * 5)

    def newest(self, meta: str) -> Package:
        """Returns the kernel image that the package `meta` stands for.

        Raises:
            KernelError: apt is not here, or knows no such package.
        """
        return self._with_lists(lambda: self._package(self._image(meta)))

    def package(self, name: str) -> Package:
        """Returns the version of a package that apt would install.

        Raises:
            KernelError: apt is not here, or knows no such package.
        """
        return self._with_lists(lambda: self._package(name))

    def _with_lists(self, ask: Callable[[], Package]) -> Package:
        """Asks apt, and once more with own lists if the system's do not have the answer."""
        try:
            return ask()
        except KernelError:
            if self._options:
                raise
            self.update()
            return ask()

    def _image(self, meta: str) -> str:
        depends = run(["apt-cache", *self._options, "depends", meta], QUERY_TIME_LIMIT)
        match = re.search(r"Depends: (linux-image-\S+)", depends)
        if match is None:
            raise KernelError(f"apt knows no package {meta}: use --kernel host, or the path of a kernel")
        return match[1]

    def _package(self, name: str) -> Package:
        shown = run(["apt-cache", *self._options, "show", "--no-all-versions", name], QUERY_TIME_LIMIT)
        version = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
        size = re.search(r"^Size: (\d+)$", shown, re.MULTILINE)
        if version is None or size is None:
            raise KernelError(f"apt cannot tell the version of {name}")
        return Package(name, version[1], int(size[1]))

    def download(self, package: Package, directory: Path) -> Path:
        """Downloads a package's file into `directory`; apt checks it against the archive's signed lists.

        Raises:
            DownloadError: It cannot be had; the archive may have a newer one by now.
        """
        command = ["download", f"{package.name}={package.version}"]
        sandbox = ["-o", "APT::Sandbox::User="]  # the directory is private, which apt's own user could not enter
        try:
            run(["apt-get", *self._options, *sandbox, "-q", *command], DOWNLOAD_TIME_LIMIT, directory)
        except KernelError as error:
            raise DownloadError(str(error)) from error
        debs = list(directory.glob("*.deb"))
        if len(debs) != 1 or debs[0].stat().st_size != package.size:
            raise DownloadError(f"apt did not download {package.name} {package.version} completely")
        return debs[0]
