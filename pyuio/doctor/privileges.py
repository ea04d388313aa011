# SPDX-License-Identifier: MIT
"""What the kernel lets this process do: its capabilities and its limits.

Sources: capabilities(7), user_namespaces(7), getrlimit(2); ``include/uapi/linux/capability.h``.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path

from pyuio.sysfs import read_text

CAP_IPC_LOCK = 14
CAP_SYS_ADMIN = 21
CAP_SYS_NICE = 23

_ALL_IDS = (0, 0, 0xFFFFFFFF)


def parse_capabilities(text: str) -> int:
    """Return the effective capabilities in the text of ``/proc/self/status``, bit N for capability N.

    Raises:
        ValueError: the text does not say.
    """
    match = re.search(r"^CapEff:\s*([0-9a-fA-F]{1,16})$", text, re.MULTILINE)
    if match is None:
        raise ValueError("/proc/self/status has no line CapEff with a hexadecimal number")
    return int(match[1], 16)


def maps_all_ids(text: str) -> bool:
    """Return whether the text of ``/proc/self/uid_map`` is that of the initial user namespace."""
    words = text.split()
    return len(words) == 3 and all(word.isdigit() for word in words) and tuple(map(int, words)) == _ALL_IDS


def has_capability(capability: int) -> bool:
    """Return whether this process has a capability that counts.

    Those of another user namespace than the initial one (a rootless container) count for nothing here.

    Raises:
        OSError, PermissionDeniedError: the kernel does not say.
        ValueError: what it says has an odd form.
    """
    if not parse_capabilities(read_text(Path("/proc/self/status"))) >> capability & 1:
        return False
    try:
        return maps_all_ids(read_text(Path("/proc/self/uid_map")))
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def locked_memory_limit() -> int | None:
    """Return how many bytes this process may lock (RLIMIT_MEMLOCK, the soft limit); None for no limit."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def priority_limit() -> int:
    """Return the highest real-time priority that this process may take (RLIMIT_RTPRIO, the soft limit); 0 for none."""
    limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    return 99 if limit == resource.RLIM_INFINITY else min(limit, 99)
