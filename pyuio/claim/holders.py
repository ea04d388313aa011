# SPDX-License-Identifier: MIT
"""Processes of ordinary users that have the files of a PCI function open or mapped: by UIO, or by VFIO.

Changing the mode of a file takes nothing from those who have it open. So whoever takes a card away from its users looks
for them. Source: proc(5), ``/proc/PID/task/TID/fd``, ``fdinfo`` and ``maps``. Not found is a file that is on its way in
a UNIX socket (SCM_RIGHTS), because it is in no process then.

By VFIO a process has the node of the IOMMU group open and, from that, a file of the function. Only Linux 6.18 and later
tell of which function (``vfio-device-syspath`` in ``fdinfo``). A process that has closed the node and kept such a file
is a suspect, if the kernel says that the group is in use.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pyuio.claim import group_users
from pyuio.claim.nodes_in_use import is_roots
from pyuio.errors import DeviceBusyError, PyuioError
from pyuio.kernel import vfio
from pyuio.kernel.sysfs import UIO_CLASS
from pyuio.kernel.uio import UioNode
from pyuio.process.printable import printable

_PROC = Path("/proc")
_ROUNDS = 20  # a process may fork while it is looked for
_END_SECONDS = 5.0  # for one process, after SIGKILL


class Holder(NamedTuple):
    """A process, and the files that it holds.

    Attributes:
        process: its id.
        name: what the process calls itself.
        files: their paths.
        certain: whether they are of the function in question; otherwise they may be of another.
    """

    process: int
    name: str
    files: tuple[str, ...]
    certain: bool = True

    def __str__(self) -> str:
        doubt = "" if self.certain else ", which may be this function or another; end it by hand if it is"
        return printable(f"process {self.process} ({self.name}) has {', '.join(self.files)}{doubt}")


def files_of(function: Path) -> list[Path]:
    """Return the files by which a device is driven, of those that exist: config, resourceN, UIO's or VFIO's nodes.

    Args:
        function: its directory in sysfs; or that of a UIO node, ``/sys/class/uio/uioN``, for the node alone.
    """
    if function.parent == UIO_CLASS:
        return [path for path in [UioNode(function.name).path] if path.exists()]
    nodes = [node.path for node in UioNode.of_device(function)]
    number = vfio.group_to_try(function)
    nodes += [] if number is None else [vfio.group_path(number)]
    return [path for path in (function / "config", *sorted(function.glob("resource[0-5]*")), *nodes) if path.exists()]


def holders(function: Path) -> list[Holder]:
    """Return the processes of others than root that have a function's files open or mapped; as root, all of them.

    Args:
        function: as for `files_of`.
    """
    files = _by_inode(function)
    found, suspects = [], []
    for process in sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()):
        with suppress(OSError):  # it has ended
            if is_roots(process):
                continue
            if held := _held(process, files) or _held_by_path(process, function):
                found.append(Holder(process, _name(process), held))
            elif _has_some_function(process):
                suspects.append(Holder(process, _name(process), ("a function of VFIO's",), certain=False))
    return found if found or not _is_busy(function) else suspects


def _name(process: int) -> str:
    return (_PROC / str(process) / "comm").read_text(errors="replace").strip()


def _held_by_path(process: int, function: Path) -> tuple[str, ...]:
    """Return the function's path if a process has VFIO's file of it open and the kernel tells so."""
    path = str(function.resolve())
    for entry in (_PROC / str(process) / "fdinfo").iterdir():
        with suppress(OSError):
            for line in entry.read_text(errors="replace").splitlines():
                name, _, value = line.partition(":")
                if name == "vfio-device-syspath" and value.strip() == path:
                    return (path,)
    return ()


def _has_some_function(process: int) -> bool:
    """Return whether a process has a function open or mapped by VFIO."""
    return group_users.has_open(_PROC / str(process), group_users.FUNCTION)


def _is_busy(function: Path) -> bool:
    """Return whether the kernel says that somebody has the function's IOMMU group open."""
    number = vfio.group_to_try(function)
    if number is None:
        return False
    try:
        vfio.Group(number).close()
    except DeviceBusyError:
        return True
    except PyuioError:
        return False
    return False


def _by_inode(function: Path) -> dict[tuple[int, int], str]:
    files = {}
    for path in files_of(function):
        with suppress(FileNotFoundError):
            status = path.stat()
            files[status.st_dev, status.st_ino] = str(path)
    return files


def _held(process: int, files: dict[tuple[int, int], str]) -> tuple[str, ...]:
    held = set()
    for thread in (_PROC / str(process) / "task").iterdir():  # each may have descriptors of its own
        with suppress(OSError):
            for key in (*_opened(thread, {inode for _device, inode in files}), *_mapped(thread)):
                held |= {files[key]} if key in files else set()
    return tuple(sorted(held))


def _opened(thread: Path, inodes: set[int]) -> Iterator[tuple[int, int]]:
    for entry in (thread / "fdinfo").iterdir():
        with suppress(OSError, ValueError):
            fields = dict(line.split(":", 1) for line in entry.read_text(errors="replace").splitlines() if ":" in line)
            # Linux before 5.14 does not tell the inode: look at all then. Otherwise only at those that may be ours,
            # because the server of a file may not answer.
            if "ino" not in fields or int(fields["ino"]) in inodes:
                status = (thread / "fd" / entry.name).stat()
                yield status.st_dev, status.st_ino


def _mapped(thread: Path) -> Iterator[tuple[int, int]]:
    for line in (thread / "maps").read_text(errors="replace").splitlines():
        with suppress(ValueError, IndexError):
            _place, _mode, _offset, device, inode = line.split(maxsplit=5)[:5]
            major, minor = (int(number, 16) for number in device.split(":"))
            yield os.makedev(major, minor), int(inode)


def end(function: Path) -> list[Holder]:
    """Kill the processes that `holders` finds, and return those that are left, or [].

    Args:
        function: as for `files_of`.
    """
    for _ in range(_ROUNDS):
        found = holders(function)
        if not any(holder.certain for holder in found):
            return found
        for holder in found:
            if holder.certain:
                _kill(holder, function)
    return holders(function)


def _kill(holder: Holder, function: Path) -> None:
    with suppress(OSError):  # it has ended
        # The descriptor stands for this process, also when another gets its id.
        process = os.pidfd_open(holder.process)
        try:
            if _held(holder.process, _by_inode(function)) or _held_by_path(holder.process, function):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], _END_SECONDS)
        finally:
            os.close(process)
