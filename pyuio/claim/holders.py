# SPDX-License-Identifier: MIT
"""Processes of ordinary users that have the files of a PCI function open or mapped: by UIO, or by VFIO.

Changing the mode of a file takes nothing from those who have it open. So whoever takes a card away from its users looks
for them (`pyuio.kernel.process_files`). Not found is the file of a process that hands it on to new ones faster than
they can be looked at; nor, by UIO, one that is on its way in a UNIX socket (SCM_RIGHTS), because it is in no process
then. Of a device file of iommufd's, for which the kernel would wait, whoever has such a socket is a suspect.

By VFIO a process has the node of the IOMMU group open and, from that, a file of the function. Only Linux 6.18 and later
tell of which function (``vfio-device-syspath`` in ``fdinfo``). A process that has closed the node and kept such a file
is a suspect, if the kernel says that the group is in use. Or, by iommufd, it has the function's device file open.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pyuio.claim import group_users
from pyuio.claim.nodes_in_use import is_roots
from pyuio.errors import DeviceBusyError, PyuioError
from pyuio.kernel import process_files, vfio
from pyuio.kernel.iommufd import device_node
from pyuio.kernel.process_files import Identity, OpenFile
from pyuio.kernel.sysfs import UIO_CLASS
from pyuio.kernel.uio import UioNode
from pyuio.process.printable import printable_name

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
        return printable_name(f"process {self.process} ({self.name}) has {', '.join(self.files)}{doubt}")


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
    nodes += [node for node in [device_node(function)] if node is not None]
    return [path for path in (function / "config", *sorted(function.glob("resource[0-5]*")), *nodes) if path.exists()]


_SOME_FUNCTION = "a function of VFIO's"


class _Sought:
    """What is looked for.

    Args:
        function: as for `files_of`.
    """

    def __init__(self, function: Path) -> None:
        self._path = str(function.resolve())
        self._files: dict[Identity, Path] = {}
        for path in files_of(function):
            with suppress(FileNotFoundError):
                self._files[process_files.identity(path)] = path
        self._inodes = {what.inode for what in self._files}
        self._places = {(what.device, what.inode): str(path) for what, path in self._files.items()}
        self._in_use = _is_in_use(function)
        self._has_device_file = function.parent != UIO_CLASS and device_node(function) is not None

    def holder(self, process: int) -> Holder | None:
        """Return what a process has of it; None for nothing. OSError: it has ended."""
        if is_roots(process):
            return None
        certain: set[str] = set()
        doubtful: set[str] = set()
        for file in process_files.opened(process, self._inodes):
            if path := self._path_of(file):
                certain.add(path)
            elif names := self._names_of(file):
                doubtful.update(f"{name}, kept by an io_uring" for name in names)
            elif file.is_some_function:
                doubtful.add(_SOME_FUNCTION)
            elif file.on_their_way and self._has_device_file:
                doubtful.add(group_users.ON_THEIR_WAY)
        try:
            for device, inode, name in process_files.mapped(process):
                if (device, inode) in self._places:
                    certain.add(self._places[device, inode])
                elif name == process_files.VFIO_FUNCTION:
                    doubtful.add(_SOME_FUNCTION)
        except TimeoutError as error:
            doubtful.add(f"memory that cannot be looked at ({error})")
        if not self._in_use:
            doubtful.discard(_SOME_FUNCTION)
        held = certain or doubtful
        return Holder(process, process_files.name_of(process), tuple(sorted(held)), bool(certain)) if held else None

    def _path_of(self, file: OpenFile) -> str | None:
        """Return the path of an open file if it is certainly one of those."""
        if file.path == process_files.VFIO_FUNCTION:
            return self._path if self._path in file.inside else None
        for what, path in self._files.items():
            if file.identity == what or (file.identity and file.identity.node and file.identity.node == what.node):
                # Everybody may read config. So anybody may have sent such a file to this process.
                return str(path) if file.writable or path.name != "config" else None
        return None

    def _names_of(self, file: OpenFile) -> set[str]:
        """Return what an io_uring keeps and may be one of those: the kernel tells names, which do not say of what."""
        names = {name for path in self._files.values() for name in (path.name, str(path), str(path.resolve()))}
        return names & {*file.inside}


def _is_in_use(function: Path) -> bool:
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


def _those_that_count(found: list[Holder]) -> list[Holder]:
    return [holder for holder in found if holder.certain] or found


def holders(function: Path) -> list[Holder]:
    """Return the processes of others than root that have a function's files open or mapped; as root, all of them.

    Those that may have them are returned if there is no other.

    Args:
        function: as for `files_of`.
    """
    sought = _Sought(function)
    found = []
    for process in process_files.processes():
        with suppress(OSError):  # it has ended
            if (holder := sought.holder(process)) is not None:
                found.append(holder)
    return _those_that_count(found)


def end(function: Path) -> tuple[list[Holder], list[Holder]]:
    """Kill the processes that `holders` is certain of.

    Args:
        function: as for `files_of`.

    Returns:
        Those that were killed, and those that are left.
    """
    killed: list[Holder] = []
    found: list[Holder] = []
    for _ in range(_ROUNDS):
        sought = _Sought(function)
        found = []
        for number in process_files.processes():
            with suppress(OSError), _descriptor(number) as process:
                if (holder := sought.holder(number)) is not None:
                    found.append(holder)
                    if holder.certain:
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        select.select([process], [], [], _END_SECONDS)
                        killed.append(holder)
        if not any(holder.certain for holder in found):
            break
    return killed, _those_that_count(found)


@contextmanager
def _descriptor(process: int) -> Iterator[int]:
    """Have a descriptor that stands for a process, also when another gets its id. OSError: it has ended."""
    descriptor = os.pidfd_open(process)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
