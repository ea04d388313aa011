# SPDX-License-Identifier: MIT
"""Which file systems and swap areas are on the disks behind a PCI function, whatever is stacked between.

Sources: Documentation/ABI/stable/sysfs-block (partitions, holders), proc(5) (``mountinfo``, ``swaps``),
``block/bdev.c`` (who may claim a block device), ``drivers/nvme/host/multipath.c`` (disks with several controllers).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel.sysfs import link_name

_BLOCK = Path("/sys/class/block")
_NVME = Path("/sys/class/nvme")
_NVME_SUBSYSTEMS = Path("/sys/class/nvme-subsystem")


def _text(path: Path) -> str:
    """Return a file's text as it is, a carriage return in a path included."""
    return os.fsdecode(path.read_bytes())


def _unescaped(text: str) -> str:
    """Return a path of ``/proc`` with its escapes, a backslash and three octal digits, resolved."""
    return re.sub(r"\\([0-3][0-7]{2})", lambda match: chr(int(match[1], 8)), text)


@dataclass(frozen=True)
class Mount:
    """One mounted file system.

    Attributes:
        number: of its device, ``8:1``; ``0:44`` for a file system that has none of its own.
        kind: of file system, ``ext4``.
        source: what was mounted, usually a path.
        where: the mount point.
    """

    number: str
    kind: str
    source: str
    where: str


def parse_mounts(text: str) -> list[Mount]:
    """Return what the text of ``/proc/self/mountinfo`` lists; lines of another form are left out.

    The kernel escapes spaces, tabs, line ends and backslashes in paths, and nothing else that Python would split at.
    """
    found = []
    for line in text.split("\n"):
        before, dash, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if dash and len(fields) >= 6 and len(rest) >= 2:
            found.append(Mount(fields[2], rest[0], _unescaped(rest[1]), _unescaped(fields[4])))
    return found


def parse_swaps(text: str) -> list[str]:
    """Return the paths in the text of ``/proc/swaps``, which has a line of titles first."""
    return [_unescaped(re.split("[ \t]", line, maxsplit=1)[0]) for line in text.split("\n")[1:] if line]


def _block_number(path: str) -> str | None:
    """Return the device number of a block device's node, ``8:1``, or None for anything else."""
    try:
        # Others are not looked at: a server that is away would take for ever.
        status = Path(path).stat() if path.startswith("/dev/") else None
    except (OSError, ValueError):
        return None
    if status is None or not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _number(block: Path) -> str:
    try:
        return (block / "dev").read_text().strip()
    except OSError:  # a path of a disk with several controllers has none; the disk does
        return ""


def subsystems(function: Path) -> list[Path]:
    """Return the NVMe subsystems that the function is a controller of; their disks are there, not below the function.

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
    """Return the directories in sysfs of the whole disks behind a function, itself given as such, resolved."""
    places = [function, *subsystems(function)]
    blocks = [entry.resolve() for entry in _entries(_BLOCK)]
    return [
        block
        for block in blocks
        if not (block / "partition").exists() and any(block.is_relative_to(place) for place in places)
    ]


def _stacked(block: Path, below: str = "", seen: tuple[Path, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield the number, and what to call it, of a disk, of its partitions, and of whatever was made of those."""
    if block in seen:
        return
    seen = (*seen, block)
    name = f"/dev/{block.name.replace('!', '/')}"
    yield _number(block), f"{name}{below}"
    for partition in _entries(block):
        if (partition / "partition").exists():
            yield from _stacked(partition, "", seen)
    for holder in _entries(block / "holders"):
        yield from _stacked(holder.resolve(), f" (on {name})", seen)


def _is_claimed(disk: Path) -> bool:
    """Return whether somebody has claimed the disk or a part of it for himself: the kernel admits no second one.

    A mount does that, in whichever mount namespace, and so do swap, RAID, LVM, ZFS and the like.
    """
    try:
        os.close(os.open(f"/dev/{disk.name.replace('!', '/')}", os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _file_server(function: Path) -> list[str]:
    """Return what a virtio device that serves files serves; where it is mounted cannot be seen from everywhere."""
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
    # Some file systems have numbers of their own, and only their source is a device.
    mounts: dict[str, list[str]] = {}
    for mount in parse_mounts(_text(Path("/proc/self/mountinfo"))):
        for number in {mount.number, _block_number(mount.source)}:
            if number is not None:
                mounts.setdefault(number, []).append(mount.where)
    swaps = Path("/proc/swaps")  # not in a kernel without swap
    paths = parse_swaps(_text(swaps)) if swaps.exists() else []
    swapping = {_block_number(path) for path in paths}
    reasons = _file_server(function)
    for disk in disks(function):
        uses = []
        for number, name in dict(_stacked(disk)).items():
            if places := mounts.get(number):
                more = f" and {len(places) - 1} more places" if len(places) > 1 else ""
                uses.append(f"{name} is mounted at {places[0]}{more}")
            if number in swapping:
                uses.append(f"{name} is swapped on")
        if not uses and _is_claimed(disk):
            uses.append(f"/dev/{disk.name} is claimed: mounted elsewhere, or a part of RAID, LVM or the like (lsblk)")
        reasons += uses
    return reasons
