# SPDX-License-Identifier: MIT
"""Fetches lspci out of Debian's package pciutils, runs it, and reads what it prints.

``python -m tests.guest.pciutils DIRECTORY`` leaves ``DIRECTORY/usr/bin/lspci``; it runs on the host, before the guest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import packages
from pyuio.vm.architecture import AMD64, Architecture


def kept(processor: str) -> Path:
    """Return where `tests.run` keeps it for guests with a processor, by its name as ``uname -m`` prints it."""
    return Path(__file__).resolve().parents[2] / f"build/pciutils-{processor}"


def fetch(directory: Path, architecture: Architecture = AMD64) -> Path:
    """Return the path of the program; fetch it if it is not there."""
    return packages.fetch(("pciutils", "libpci3"), directory, "usr/bin/lspci", architecture)


@dataclass(frozen=True)
class Region:
    """A line ``Region 0: Memory at fe600000 (32-bit, non-prefetchable) [size=1M]``."""

    index: int
    kind: str
    address: int
    size: int
    width: int
    prefetchable: bool


class Function:
    """What lspci prints of one function: its text, without the hexadecimal dump, and the dump's bytes."""

    def __init__(self, block: str) -> None:
        dump = re.findall(r"^([0-9a-f]{2,3}): ((?:[0-9a-f]{2} ?){16})$", block, re.MULTILINE)
        self.image = bytes.fromhex("".join(row for _, row in dump))
        self.text = re.sub(r"^[0-9a-f]{2,3}: .*\n?", "", block, flags=re.MULTILINE)
        self.address = self.text.split()[0]

    def _match(self, pattern: str) -> re.Match[str] | None:
        return re.search(pattern, self.text, re.MULTILINE)

    def value(self, pattern: str) -> str | None:
        """The group of a pattern's first match."""
        match = self._match(pattern)
        return match[1] if match else None

    def flags(self, register: str) -> dict[str, bool]:
        """The flags of a line such as ``Control: I/O+ Mem- ...``."""
        line = self.value(rf"^\t{register}: (.*)$") or ""
        return {name: sign == "+" for name, sign in re.findall(r"(\S+?)([+-])(?= |$)", line)}

    def regions(self) -> list[Region]:
        """The BARs that have an address."""
        found = []
        for index, kind, address, rest in re.findall(
            r"^\tRegion (\d): (Memory|I/O ports) at ([0-9a-f]+)(.*)$", self.text, re.MULTILINE
        ):
            size = re.search(r"\[size=(\d+)([KMGT]?)\]", rest)
            assert size is not None
            found.append(
                Region(
                    index=int(index),
                    kind="io" if kind == "I/O ports" else "memory",
                    address=int(address, 16),
                    size=int(size[1]) << 10 * " KMGT".index(size[2] or " "),
                    width=64 if "(64-bit" in rest else 32,
                    prefetchable=", prefetchable" in rest,
                )
            )
        return found

    def capabilities(self) -> list[tuple[int, int | None, str]]:
        """Offset, version of an extended one, and the text of each capability."""
        return [
            (int(offset, 16), int(version) if version else None, text)
            for offset, version, text in re.findall(
                r"^\tCapabilities: \[([0-9a-f]+)(?: v(\d+))?\] (.*)$", self.text, re.MULTILINE
            )
        ]


def functions(directory: Path) -> dict[str, Function]:
    """Run lspci, and return what it prints of each function, by address."""
    library = next(directory.glob("usr/lib/*/libpci.so.3")).parent
    done = subprocess.run(
        [directory / "usr/bin/lspci", "-D", "-vvnn", "-xxxx"],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = (Function(block) for block in done.stdout.strip().split("\n\n"))
    return {function.address: function for function in found}


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
