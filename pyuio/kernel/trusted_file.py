# SPDX-License-Identifier: MIT
"""Files by which pyuio's processes inform later ones, in ``/run/pyuio``.

A file is trusted only if nobody but root and this user could have written it.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

from pyuio.errors import PermissionDeniedError
from pyuio.kernel.sysfs import read_text

RUN = Path("/run/pyuio")
_LONGEST = 1 << 20  # bytes
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _check_owner(status: os.stat_result, path: Path) -> None:
    """Raise PermissionDeniedError if another user could have written the file or directory."""
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reason = f"{path} is not trusted, because users other than root can write it; remove it"
        raise PermissionDeniedError(errno.EPERM, reason)


def _make_directories(path: Path) -> None:
    """Make the directory of a file, and the directory above, if they do not exist; check them if they do."""
    for directory in (path.parent.parent, path.parent):
        try:
            directory.mkdir(mode=0o755)
        except FileExistsError:
            # Do not follow a link: somebody else may have chosen its target.
            status = directory.lstat()
            if not stat.S_ISDIR(status.st_mode):
                raise PermissionDeniedError(errno.ENOTDIR, f"{directory} is not a directory; remove it") from None
            _check_owner(status, directory)


def lock_path(name: str) -> Path:
    """Return the path of the file that `open_lock` opens."""
    return RUN / "locks" / name


def open_lock(name: str) -> int:
    """Return the descriptor of a file to lock, which other users cannot open: so they cannot hold its lock.

    Raises:
        PermissionDeniedError: another user can write to one of the directories, or could have made the file.
        OSError: the kernel refused.
    """
    path = lock_path(name)
    _make_directories(path)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _check_owner(os.fstat(file), path)
    except BaseException:
        os.close(file)
        raise
    return file


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all. Make its directory and the directory above if they do not exist.

    Raises:
        PermissionDeniedError: another user can write to one of the directories.
        OSError: the kernel refused.
    """
    _make_directories(path)
    write_in_place(path, text)


def write_in_place(path: Path, content: str | bytes) -> None:
    """Write a file that all may read, whole or not at all, in a directory that exists. OSError: the kernel refused.

    A link that has the file's name is replaced: what it leads to stays as it is.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")
    draft.unlink(missing_ok=True)
    try:
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(file, "wb") as stream:
            os.fchmod(file, 0o644)  # whatever the umask
            stream.write(content.encode() if isinstance(content, str) else content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionDeniedError: another user could have written it.
        OSError: the kernel refused.
        ValueError: the file is not text, or longer than 1 MiB.
    """
    _check_owner(path.parent.lstat(), path.parent)
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(file, "rb") as stream:
        _check_owner(os.fstat(file), path)
        data = stream.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"{path} is longer than {_LONGEST} bytes")
    return data.decode()


def boot_id() -> str:
    """Return the kernel's identifier of this boot (random(4))."""
    return read_text(_BOOT_ID)
