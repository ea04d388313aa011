# SPDX-License-Identifier: MIT
"""Directories of which no other user can choose what they hold: whether one is such, opening and making one."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

_MOST_LINKS = 40  # in a path; as the kernel's (fs/namei.c)
_ONE_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def stranger(path: Path, *, open_to_new_files: bool = True) -> Path | None:
    """Return the first of a path's directories and links that another user could replace; None if there is none.

    Args:
        path: a directory, which exists.
        open_to_new_files: accept that others make files of their own in `path` itself, as all can in ``/tmp``.

    Raises:
        OSError: there is no such directory, or it cannot be looked at.
    """
    mine = {0, os.geteuid()}
    path = path.absolute()
    resolved = path.resolve()
    for one in (path, *path.parents, resolved, *resolved.parents):
        status = one.lstat()
        others = status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not _is_own(status.st_gid))
        sticky = status.st_mode & stat.S_ISVTX and (open_to_new_files or one not in (path, resolved))
        if status.st_uid not in mine or (others and not sticky and not one.is_symlink()):
            return one
    return None


def temporary(prefix: str) -> TemporaryDirectory[str]:
    """Return a new directory, which the end of a ``with`` block removes, and which nobody else can put another for.

    Root's is in ``/tmp``: what ``TMPDIR`` names may be another user's.
    """
    import tempfile

    return tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp" if os.geteuid() == 0 else None)


def open_directory(path: Path, *, make: bool = False) -> int:
    """Return a descriptor (O_PATH) of a directory to which no link of another user leads.

    What is below ``/proc/self/fd/N`` stays in this directory, whatever comes in the place of its path later.

    Args:
        path: of the directory.
        make: make what does not exist of it.

    Raises:
        OSError: there is no such directory, or it cannot be made; EPERM: another user has made a link in its path.
    """
    names, links = [*reversed(path.absolute().parts)], 0
    file = os.open("/", _ONE_STEP)
    try:
        while names:
            name = names.pop()
            try:
                step = os.open(name, _ONE_STEP, dir_fd=file)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):  # another program was faster
                    os.mkdir(name, dir_fd=file)
                names.append(name)
                continue
            if stat.S_ISLNK(os.fstat(step).st_mode):
                links += 1
                names += reversed(_own_target(step, links))
            else:
                file, step = step, file
            os.close(step)
        if not stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except BaseException:
        os.close(file)
        raise
    return file


def _own_target(link: int, number: int) -> tuple[str, ...]:
    """Return the parts of a link's target; close the link, and raise OSError, if it is not to be followed.

    Args:
        link: its descriptor.
        number: of links that were followed, this one included.
    """
    try:
        if os.fstat(link).st_uid not in (0, os.geteuid()):
            raise OSError(errno.EPERM, "a link in the path is another user's")
        if number > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return Path(os.readlink("", dir_fd=link)).parts
    except BaseException:
        os.close(link)
        raise


def _is_own(number: int) -> bool:
    """Return whether a group has this user alone, as far as it tells: root's, or one with the user's name."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return (number == 0 or group.gr_name == user) and not {*group.gr_mem} - {user, "root"}
