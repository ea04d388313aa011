# SPDX-License-Identifier: MIT
"""The user who started this program as root by sudo or pkexec. A guest runs with that user's rights, not with root's.

A guest sees all files of the host that the user of QEMU may read, and what it writes belongs to that user. Nothing in
``pyuio vm`` needs root.
"""

from __future__ import annotations

import os
import pwd

from pyuio.vm.errors import GuestStartError

_NAMES = ("SUDO_UID", "PKEXEC_UID")


def become() -> None:
    """Take the rights and the home directory of the invoking user, for good; do nothing if there is none but this one.

    Raises:
        GuestStartError: There is no such user, or the kernel refuses.
    """
    if os.geteuid() != 0:
        return
    name = next((name for name in _NAMES if os.environ.get(name, "0") != "0"), None)
    if name is None:
        return
    try:
        user = pwd.getpwuid(int(os.environ[name]))
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise GuestStartError(
            f"{name} is {os.environ[name]!r}, and a guest cannot run as that user: {error}"
        ) from error
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
