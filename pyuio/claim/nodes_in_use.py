# SPDX-License-Identifier: MIT
"""Which processes have the device nodes of a PCI function open: a getty has its terminal, a desktop its display.

Source: proc(5), ``/proc/PID/fd``. Without root, this module sees only the user's own processes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from pyuio.claim.disks_in_use import subsystems
from pyuio.kernel.sysfs import link_name
from pyuio.process.printable import printable

_VFIO = Path("/dev/vfio")
# These processes of root open every new device for a moment.
_PASSING = ("systemd-udevd", "(udev-worker)", "udevd")

Node = tuple[bool, int]
"""A device node: whether it is a block device, and its device number."""


def _nodes_below(directory: Path) -> set[Node]:
    found = set()
    for place, _directories, files in os.walk(directory):
        if "dev" not in files:
            continue
        try:
            major, minor = Path(place, "dev").read_text().split(":")
            number = os.makedev(int(major), int(minor))
        except (OSError, ValueError, OverflowError):  # the device has just gone
            continue
        found.add((link_name(Path(place, "subsystem")) == "block", number))
    return found


def _vfio_nodes(function: Path) -> set[Node]:
    """Return the nodes of the function's IOMMU group. A process that has one open has every device of the group."""
    group = link_name(function / "iommu_group")
    found = set()
    for name in (group, f"noiommu-{group}") if group else ():
        try:
            found.add((False, (_VFIO / name).stat().st_rdev))
        except OSError:
            continue
    return found


def _opened_by(process: Path, nodes: set[Node]) -> Iterable[str]:
    """Return the paths of those of the nodes that a process has open, sorted."""
    found = set()
    for entry in (process / "fd").iterdir():
        # Read the link first: stat() of a file on a server that does not answer would never return.
        path = str(entry.readlink())
        if not path.startswith("/dev/"):
            continue
        try:
            status = entry.stat()
        except OSError:
            continue
        if (stat.S_ISBLK(status.st_mode), status.st_rdev) in nodes and not stat.S_ISREG(status.st_mode):
            found.add(path)
    return sorted(found)


def is_roots(process: int) -> bool:
    """Return whether a process can be nobody's but root's. OSError: there is no such process.

    The owner of its files in /proc does not tell: it is root for a process that may not be dumped.
    """
    for line in Path(f"/proc/{process}/status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return set(line.split()[1:]) == {"0"}
    return False


def openers(function: Path) -> list[str]:
    """Return a sentence for each other process that has a device node of a function open.

    Args:
        function: its directory in sysfs, resolved.
    """
    nodes = _nodes_below(function) | _vfio_nodes(function)
    for subsystem in subsystems(function):
        nodes |= _nodes_below(subsystem)
    reasons = []
    for process in sorted(Path("/proc").iterdir()):
        if not nodes or not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            name = (process / "comm").read_text(errors="replace").strip()
            passing = name in _PASSING and is_roots(int(process.name))
            if not passing and (paths := _opened_by(process, nodes)):
                reasons.append(printable(f"process {process.name} ({name}) has {', '.join(paths)} open"))
        except OSError:  # the process is another user's, or has just ended
            continue
    return reasons
