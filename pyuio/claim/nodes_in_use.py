# SPDX-License-Identifier: MIT
"""Which processes have the device nodes of a PCI function open: a getty has its terminal, a desktop its display.

Without root, this module sees only the user's own processes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pyuio.claim.disks_in_use import subsystems
from pyuio.kernel import process_files, vfio
from pyuio.kernel.sysfs import link_name
from pyuio.process.printable import printable_name

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
            found.add((False, vfio.group_path(name).stat().st_rdev))
        except OSError:
            continue
    return found


def _inodes(nodes: set[Node]) -> set[int]:
    """Return the inodes of the nodes in ``/dev``: a process may have another path for one."""
    found = set()
    for is_block, number in nodes:
        with suppress(OSError):
            kind = "block" if is_block else "char"
            found.add(Path(f"/dev/{kind}/{os.major(number)}:{os.minor(number)}").stat().st_ino)
    return found


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
    inodes = _inodes(nodes)
    reasons = []
    for process in process_files.processes() if nodes else ():
        with suppress(OSError):  # the process is another user's, or has just ended
            name = process_files.name_of(process)
            if process == os.getpid() or (name in _PASSING and is_roots(process)):
                continue
            files = process_files.opened(process, inodes)
            if paths := sorted({file.path for file in files if file.identity and file.identity.node in nodes}):
                reasons.append(printable_name(f"process {process} ({name}) has {', '.join(paths)} open"))
    return reasons
