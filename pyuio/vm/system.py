# SPDX-License-Identifier: MIT
"""A system for a guest whose processor is not this machine's, as this machine's programs do not run there.

It has three parts in the user's cache, each made once, and anew when what it was made from has changed:

    ROOT/systems/debian-KEY/tree          Debian's programs, unpacked from its packages, as for this machine's release
    ROOT/systems/environment-KEY/venv     what differs from this virtual environment: Python, and compiled packages
    ROOT/systems/native-KEY/native        pyuio's own compiled parts

The guest lays the second and the third over the host's files, so that a program finds everything where it is here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import cache, debian_tree, environment, native_build
from pyuio.vm.architecture import Architecture
from pyuio.vm.errors import GuestStartError

# The directories that the guest has from here; all others at the top are the host's.
DIRECTORIES = ("bin", "boot", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "usr", "var")


@dataclass(frozen=True)
class System:
    """What a guest with another processor has in place of the host's files.

    Attributes:
        tree: Debian's files.
        environment: Files that are laid over those of this virtual environment.
        native: Files that are laid over those of `pyuio._native`.
    """

    tree: Path
    environment: Path
    native: Path

    @property
    def busybox(self) -> Path:
        """A static busybox for that processor."""
        return self.tree / "usr/bin/busybox"

    def variables(self) -> dict[str, str]:
        """Return the variables by which the guest's scripts find it, and where its parts belong."""
        return {
            "cache": str(cache.root()),
            "system": str(self.tree),
            "own": " ".join(DIRECTORIES),
            "environment": str(self.environment),
            "prefix": sys.prefix,
            "native": str(self.native),
            "sources": str(native_build.SOURCES),
        }


def prepare(architecture: Architecture, say: cache.Say, *, refresh: bool = False) -> System:
    """Return the system for guests with a kind of processor; make what is missing first.

    Args:
        architecture: The processor.
        say: Called with a line of text before each step that takes long.
        refresh: Fetch Debian's packages anew, and check the content of every file, not only its size.

    Raises:
        GuestStartError: It cannot be made: the message says what is missing, and how to get it.
    """
    base = cache.root() / "systems"
    try:
        if not any(base.glob("native-*")):
            native_build.compiler(architecture, base)  # say what is missing before anything is fetched
        tree = debian_tree.prepare(architecture, base, say, refresh)
        python = debian_tree.python_version(tree)
        own = environment.prepare(architecture, tree, python, base, say, refresh)
        native = native_build.prepare(architecture, tree, python, base, say)
    except OSError as error:
        raise GuestStartError(f"a system for {architecture.name} cannot be made: {error}") from error
    return System(tree, own, native)
