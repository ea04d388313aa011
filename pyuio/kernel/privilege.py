# SPDX-License-Identifier: MIT
"""What this process may do, and what would let it do more: capabilities and resource limits.

Sources: capabilities(7), getrlimit(2), limits.conf(5).
"""

from __future__ import annotations

import os
import pwd
import re
import sys
from pathlib import Path

# include/uapi/linux/capability.h
CAP_IPC_LOCK = 14
CAP_SYS_NICE = 23

_NAMES = {CAP_IPC_LOCK: "IPC_LOCK", CAP_SYS_NICE: "SYS_NICE"}


def in_user_namespace() -> bool:
    """Return whether this process is in a user namespace of its own, as in a container that a user has without root."""
    try:
        return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    except OSError:  # a kernel without user namespaces
        return False


def has(capability: int) -> bool:
    """Return whether this thread has a capability for the whole machine, and not only in a user namespace."""
    status = Path("/proc/thread-self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    return not in_user_namespace() and effective is not None and bool(int(effective[1], 16) >> capability & 1)


def remedy(capability: int, limit: str = "", value: str = "") -> str:
    """Return how this user can get a capability, or a resource limit that makes the capability unnecessary.

    Args:
        capability: CAP_IPC_LOCK or CAP_SYS_NICE.
        limit: the item of limits.conf; "" if no limit replaces the capability.
        value: the value that the limit must have.
    """
    name = _NAMES[capability]
    python = os.path.realpath(sys.executable or "python3")
    ways = [f"run as root, or give the program CAP_{name} (setcap cap_{name.lower()}+ep {python})"]
    if limit:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = str(os.getuid())
        ways.append(f"or put '{user} - {limit} {value}' into /etc/security/limits.conf and log in again")
        ways.append(f"(a systemd service: Limit{limit.upper()}={'infinity' if value == 'unlimited' else value})")
    container = f"in a container: --cap-add {name}"
    if limit:
        container += f" --ulimit {limit}={'-1' if value == 'unlimited' else value}"
    if in_user_namespace():
        container = "a container without root has the limits of the user who starts it, and no capability"
    return " ".join([*ways, f"({container})"])
