# SPDX-License-Identifier: MIT
"""The system's own programs, which pyuio runs: modprobe, udevadm, lsblk, a compiler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pyuio.kernel.trusted_directory import stranger

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The directories of the system's programs. Only root can write to them."""


def find_program(name: str) -> str | None:
    """Return the path of a program of the system, or None if it is not installed.

    As root, only the system's directories count: a PATH kept from an ordinary user may begin with directories that the
    user can write to. For others PATH counts first, which on Debian does not lead to programs of administrators.
    """
    import shutil

    return shutil.which(name, path=SYSTEM_PATH if os.geteuid() == 0 else f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def trusted_path() -> str:
    """Return PATH, for root without the directories in which another user could put a program.

    The system's directories stay, whoever can write to them.
    """
    path = os.environ.get("PATH", os.defpath)
    if os.geteuid() != 0:
        return path
    return ":".join(one for one in path.split(":") if one in SYSTEM_PATH.split(":") or _is_trusted(Path(one)))


def _is_trusted(directory: Path) -> bool:
    try:
        return stranger(directory, open_to_new_files=False) is None
    except OSError:
        return False


def environment() -> Mapping[str, str]:
    """Return the environment for such a program, which runs others by PATH: as root, only the system's."""
    return {**os.environ, "PATH": SYSTEM_PATH} if os.geteuid() == 0 else os.environ
