# SPDX-License-Identifier: MIT
"""How much memory this process has locked, may lock, and could still get.

Sources: proc_pid_status(5), proc_meminfo(5), getrlimit(2).
"""

from __future__ import annotations

import contextlib
import re
import resource
from pathlib import Path

from pyuio.kernel import privilege


def _kilobytes(path: str, item: str) -> int:
    found = re.search(rf"^{item}:\s*(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def mapped_size() -> int:
    """Return how many bytes this process has mapped, touched or not."""
    return _kilobytes("/proc/self/status", "VmSize")


def locked_size() -> int:
    """Return how many bytes of this process are locked in memory: by mlock, and by VFIO's containers for devices."""
    return _kilobytes("/proc/self/status", "VmLck")


def pinned_size() -> int:
    """Return how many bytes of this process are pinned for devices in another way: by iommufd, and by io_uring."""
    return _kilobytes("/proc/self/status", "VmPin")


def available() -> int:
    """Return how many bytes the kernel expects to have for programs without swapping."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def total() -> int:
    """Return how many bytes of memory the kernel has."""
    return _kilobytes("/proc/meminfo", "MemTotal")


def group_room() -> int | None:
    """Return how many more bytes the control groups of this process may use; None for any number.

    Source: Documentation/admin-guide/cgroup-v2.rst (memory.max); cgroup-v1/memory.rst (memory.limit_in_bytes).
    """
    rooms = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            root, limit, use = Path("/sys/fs/cgroup"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            root, limit, use = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / name.lstrip("/")
        # In a namespace of its own a process may see its group as the root, and in a container another path.
        for directory in (group, *group.parents) if group.is_relative_to(root) else (root,):
            with contextlib.suppress(OSError, ValueError):  # the root has no limit, and "max" is none
                rooms.append(int((directory / limit).read_text()) - int((directory / use).read_text()))
    return max(0, min(rooms)) if rooms else None


def lock_limit() -> int:
    """Return how many bytes this process may lock without CAP_IPC_LOCK; RLIM_INFINITY for any number."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def is_limited() -> bool:
    """Return whether there is a limit to what this process may lock (RLIMIT_MEMLOCK, CAP_IPC_LOCK)."""
    return lock_limit() != resource.RLIM_INFINITY and not privilege.has(privilege.CAP_IPC_LOCK)


def room_to_lock() -> int | None:
    """Return how many more bytes may be locked, None for any number."""
    return max(0, lock_limit() - locked_size()) if is_limited() else None
