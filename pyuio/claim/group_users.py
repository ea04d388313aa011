# SPDX-License-Identifier: MIT
"""Who keeps an IOMMU group from being opened: processes that have it open, and kernel drivers of its other functions.

Source: Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyuio.claim.nodes_in_use import is_roots
from pyuio.errors import DeviceBusyError
from pyuio.kernel import process_files, vfio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.iommufd import device_node
from pyuio.kernel.sysfs import PCI_DEVICES, link_name
from pyuio.process.printable import printable_name


def _nodes(number: int) -> list[Path]:
    """Return the files by which a group, and each of its functions, is opened, of those that there are."""
    functions = (device_node(PCI_DEVICES / one.address) for one in vfio.members(number))
    return [node for node in (vfio.group_path(number), *functions) if node is not None and node.exists()]


def processes(number: int) -> list[str]:
    """Return a few words on each process that has a group, or a function of it, open; only root sees all of them.

    A process that has closed the group and kept a function open does not show which group that is of. Such processes
    are returned if there is no other.
    """
    return _those_with(_nodes(number))


def who_has_device_file(node: Path, *, others_may: bool) -> str | None:
    """Say which processes have a function's device file open, bound or not, or may have; None if none is found.

    There need be no descriptor of the file: an io_uring may keep it, or it may be on its way in a UNIX socket.

    Args:
        node: the device file.
        others_may: whether others than root may open it, so that those who may have it so are suspects.
    """
    if who := _those_with([node], only_open=True):
        return f"{'; '.join(who)} has its device file, {node}, open"
    if others_may and (suspects := [*_who_may_hide(node)]):
        where = f"{ON_THEIR_WAY}, or in an io_uring, and one may be its device file, {node}"
        return f"{'; '.join(map(_named, suspects))} has {where}"
    return None


ON_THEIR_WAY = "files on their way in a UNIX socket"


def _who_may_hide(node: Path) -> Iterator[int]:
    """Yield processes of others than root that keep files in a UNIX socket, not yet received, or this one in a ring."""
    names = {node.name, str(node)}
    for process in process_files.processes():
        with suppress(OSError):  # it has ended, or is another user's
            files = () if is_roots(process) else process_files.opened(process)
            if any(file.on_their_way or names & {*file.inside} for file in files):
                yield process


def _those_with(nodes: list[Path], *, only_open: bool = False) -> list[str]:
    sought = []
    for node in nodes:
        with suppress(OSError):  # it has gone
            sought.append(process_files.identity(node))
    numbers, places = {what.node for what in sought}, {(what.device, what.inode) for what in sought}
    certain, others = [], []
    for process in process_files.processes() if sought else ():
        with suppress(OSError):  # it has ended, or is another user's
            files = list(process_files.opened(process, {what.inode for what in sought}))
            if any(file.identity and file.identity.node in numbers for file in files):
                certain.append(process)
                continue
            mapped = [] if only_open else process_files.mapped(process)
            if any((device, inode) in places for device, inode, _name in mapped):
                certain.append(process)
            elif not only_open and any(
                (
                    *(file.path == process_files.VFIO_FUNCTION or file.is_some_function for file in files),
                    *(name == process_files.VFIO_FUNCTION for _device, _inode, name in mapped),
                )
            ):
                others.append(process)
    return [*map(_named, certain or others)]


def _named(process: int) -> str:
    name = "ended meanwhile"
    with suppress(OSError):
        name = printable_name(process_files.name_of(process))
    return f"process {process} ({name})"


def _fuser(number: int) -> str:
    return f"fuser -v {' '.join(map(str, _nodes(number)))}"


def are_in_this_process(number: int) -> bool:
    """Return whether this process has an IOMMU group open, or a device file of one of its functions."""
    nodes = {str(path) for path in _nodes(number)}
    return any(os.path.realpath(f"/proc/self/fd/{file}") in nodes for file in os.listdir("/proc/self/fd"))  # noqa: PTH208


def taking(function: Path) -> str | None:
    """Return that somebody is taking a function from ``vfio-pci`` and waits, and for whom; None if nobody is.

    Args:
        function: its directory in sysfs.
    """
    number = vfio.group_to_try(function)
    if number is None or link_name(function / "driver") is not None:
        return None
    who = "; ".join(processes(number)) or f"a process (as root: {_fuser(number)} shows which)"
    return f"it is being taken from {VFIO_PCI}, which waits for {who}"


def busy(number: int, name: str) -> DeviceBusyError:
    """Return the error for a device whose group somebody has open."""
    paths = " or ".join(map(str, _nodes(number)))
    who = "; ".join(processes(number)) or f"another process (as root: {_fuser(number)} shows which)"
    reason = f"{name} is in use through VFIO: {who} has its IOMMU group, {paths}, open"
    return DeviceBusyError(errno.EBUSY, f"{reason}; end that, or close the device there, first")


def in_the_way(number: int, address: str) -> list[vfio.Member]:
    """Return the functions of a group, other than `address`, whose kernel drivers keep the group from VFIO."""
    return [one for one in vfio.members(number) if one.in_the_way and one.address != address]


def not_viable(number: int, address: str) -> DeviceBusyError:
    """Return the error for a function that shares its group with functions that have ordinary kernel drivers."""
    others = in_the_way(number, address)
    listed = ", ".join(f"{one.address} ({one.driver})" for one in others) or "a function that has gone since"
    reason = f"{address} shares IOMMU group {number} with functions that kernel drivers have: {listed}"
    command = f"pyuio bind --driver {VFIO_PCI} --whole-group {address}"
    advice = f"VFIO hands out whole groups only: take those from their drivers, too ({command})"
    return DeviceBusyError(
        errno.EBUSY,
        f"{reason}; {advice if others else 'try again'}, or move the card to a slot with a group of its own",
    )
