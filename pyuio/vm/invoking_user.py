# SPDX-License-Identifier: MIT
"""The user who started this program as root by sudo or pkexec. A guest runs with that user's rights, not with root's.

A guest sees all files of the host that the user of QEMU may read, and what it writes belongs to that user. Nothing in
``pyuio vm`` needs root.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from pyuio.vm.errors import GuestStartError

_NAMES = ("SUDO_UID", "PKEXEC_UID")


def become() -> None:
    """Take the rights and the home directory of the invoking user, for good; do nothing if there is none but this one.

    Raises:
        GuestStartError: There is no such user, or the kernel refuses.
    """
    user = _find()
    if user is None:
        return
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError as error:
        raise GuestStartError(f"a guest cannot run as {user.pw_name}: {error}") from error
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)


def give(*paths: Path) -> None:
    """Give files and directories to the invoking user, whose guest is to write to them; do nothing if there is none.

    Raises:
        GuestStartError: There is no such user.
        OSError: The kernel refuses.
    """
    user = _find()
    if user is None:
        return
    for path in paths:
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def _find() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    name = next((name for name in _NAMES if os.environ.get(name, "0") != "0"), None)
    if name is None:
        return None
    try:
        return pwd.getpwuid(int(os.environ[name]))
    except (KeyError, ValueError, OverflowError) as error:
        raise GuestStartError(
            f"{name} is {os.environ[name]!r}, and a guest cannot run as that user: {error}"
        ) from error
