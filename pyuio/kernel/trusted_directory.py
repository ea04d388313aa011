# SPDX-License-Identifier: MIT
"""Whether another user can choose what a directory holds."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


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


def _is_own(number: int) -> bool:
    """Return whether a group has this user alone, as far as it tells: root's, or one with the user's name."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return (number == 0 or group.gr_name == user) and not {*group.gr_mem} - {user, "root"}
