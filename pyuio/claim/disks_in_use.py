# SPDX-License-Identifier: MIT
"""Which disks behind a PCI function are in use, whatever is stacked on them.

The kernel tells whether a disk is in use: an exclusive open fails with EBUSY while somebody has claimed the disk or a
part of it. A mount in any mount namespace claims it; so do swap, RAID, LVM, ZFS and the like. lsblk(8) tells which of
them it is. `pyuio.claim.claim` refuses the controller of such a disk.

Sources: ``block/bdev.c`` (bd_may_claim); ``drivers/nvme/host/multipath.c`` (disks with several controllers).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyuio.kernel.programs import environment, find_program
from pyuio.kernel.sysfs import link_name

_BLOCK = Path("/sys/class/block")
_NVME = Path("/sys/class/nvme")
_NVME_SUBSYSTEMS = Path("/sys/class/nvme-subsystem")
_LSBLK = ("--json", "--output", "NAME,KNAME,TYPE,MOUNTPOINTS")  # as a tree, if NAME is among them
_LSBLK_SECONDS = 10
_SWAP = "[SWAP]"  # lsblk's mount point of a swap area


def subsystems(function: Path) -> list[Path]:
    """Return the NVMe subsystems that the function is a controller of.

    In sysfs, disks of a subsystem are below the subsystem and not below the function.

    Args:
        function: its directory in sysfs, resolved.
    """
    found = []
    for controller in _entries(_NVME):
        if controller.resolve().is_relative_to(function):
            found += [entry for entry in _entries(_NVME_SUBSYSTEMS) if (entry / controller.name).exists()]
    return [entry.resolve() for entry in found]


def _entries(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def disks(function: Path) -> list[Path]:
    """Return the directories in sysfs, resolved, of the whole disks behind a function.

    Args:
        function: its directory in sysfs, resolved.
    """
    places = [function, *subsystems(function)]
    blocks = [entry.resolve() for entry in _entries(_BLOCK)]
    return [
        block
        for block in blocks
        if (block / "dev").exists()  # a path of a disk with several controllers has no device of its own
        and not (block / "partition").exists()
        and any(block.is_relative_to(place) for place in places)
    ]


def _is_claimed(node: str) -> bool | None:
    """Return whether somebody has claimed a disk or a part of it; None if this user may not ask."""
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return True if error.errno == errno.EBUSY else None
    return False


def parse_lsblk(text: str) -> list[str] | None:
    """Return a sentence for each use in what ``lsblk --json`` printed about a disk; None if it tells of no disk."""
    import json

    try:
        told = json.loads(text)["blockdevices"]
        return [use for disk in told for use in _uses_in_tree(disk, "")] if told else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _uses_in_tree(device: dict[str, Any], below: str) -> Iterator[str]:
    """Yield the uses of a disk, of its partitions, and of the devices that are stacked on those."""
    node = f"/dev/{device['kname']}"
    name = f"{node} (on {below})" if below and device["type"] != "part" else node
    places = [place for place in device["mountpoints"] if place]
    if _SWAP in places:
        yield f"{name} is swapped on"
        places = [place for place in places if place != _SWAP]
    if places:
        more = f" and {len(places) - 1} more places" if len(places) > 1 else ""
        yield f"{name} is mounted at {places[-1]}{more}"  # lsblk prints the latest mount first
    for child in device.get("children", ()):
        yield from _uses_in_tree(child, node)


def _lsblk(node: str) -> str:
    """Return what lsblk prints about a disk; "" if lsblk is not installed or does not know these columns."""
    import subprocess

    program = find_program("lsblk")
    if program is None:
        return ""
    try:
        command = [program, *_LSBLK, node]
        done = subprocess.run(command, capture_output=True, timeout=_LSBLK_SECONDS, env=environment(), check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="surrogateescape")


def _file_server(function: Path) -> list[str]:
    """Return what a virtio device serves if it serves files; a mount in another namespace cannot be seen from here."""
    found = []
    for tag in function.glob("virtio*/mount_tag"):
        if link_name(tag.parent / "driver") is not None:
            name = tag.read_text(errors="replace").strip("\0\n")
            found.append(f"it serves the file system {name!r} (9p), which a mount may use")
    for device in function.glob("virtio*"):
        if link_name(device / "driver") == "virtiofs":
            found.append("it serves a file system (virtiofs), which a mount may use")
    return found


def storage_uses(function: Path) -> list[str]:
    """Return a sentence for each use of the disks behind a function.

    Args:
        function: its directory in sysfs, resolved.
    """
    reasons = _file_server(function)
    for disk in disks(function):
        node = f"/dev/{disk.name.replace('!', '/')}"
        claimed = _is_claimed(node)
        uses = [] if claimed is False else parse_lsblk(_lsblk(node))
        if claimed and not uses:
            uses = [f"{node} is claimed: mounted elsewhere, or a part of RAID, LVM or the like (lsblk)"]
        if uses is None:
            uses = [f"{node} may be in use: this process cannot open it to ask the kernel, and lsblk does not tell"]
        reasons += uses
    return reasons
