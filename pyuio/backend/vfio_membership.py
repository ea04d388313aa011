# SPDX-License-Identifier: MIT
"""The IOMMU groups that this process has open. The functions of a group share it, because the kernel opens it once.

A group is opened by the device files of iommufd, where this user may open those, and by its group file otherwise.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

from pyuio.backend.vfio_group import OpenGroup
from pyuio.backend.vfio_iommufd import OpenIommufd
from pyuio.dma.lock import lock
from pyuio.errors import DeviceBusyError
from pyuio.kernel import iommufd, vfio
from pyuio.kernel.sysfs import PCI_DEVICES


class _Open(NamedTuple):
    """An open group, and the addresses of the functions of it that this process has open."""

    group: OpenGroup | OpenIommufd
    users: set[str]


# `lock`, that of all memory for DMA, guards it: the last one that leaves a group closes its memory, and whoever closes
# a device while it allocates memory, as a signal handler may, leaves the group.
_open: dict[int, _Open] = {}


class Membership:
    """One function's use of its group, which this process may have open already.

    Args:
        number: of the group.
        address: of the function.

    It raises the errors of `OpenGroup` or `OpenIommufd`, and DeviceBusyError if this process has the function open.
    """

    def __init__(self, number: int, address: str) -> None:
        self._number = number
        self._address = address
        function = PCI_DEVICES / address
        with lock:
            found = _open.get(number)
            if found is None:
                by_device = iommufd.is_usable(function)
                found = _Open(OpenIommufd(number) if by_device else OpenGroup(number, address), set())
                _open[number] = found
            elif address in found.users:  # the kernel would open it again
                raise DeviceBusyError(errno.EBUSY, f"{address} is open already, in this process; close it first")
            elif found.group.ending:
                reason = f"{address}: this process closes another function of its IOMMU group now; open it afterwards"
                raise DeviceBusyError(errno.EBUSY, reason)
            found.users.add(address)
        self._group: OpenGroup | OpenIommufd | None = found.group
        self.space = found.group.space
        """The bus addresses that the functions of the group share."""
        by_device = isinstance(found.group, OpenIommufd)
        self.path: Path = (iommufd.device_node(function) if by_device else None) or vfio.group_path(number)
        """The file by which the function is opened."""

    def open_device(self) -> int:
        """Return a new descriptor of the function; see `OpenGroup.open_device` and `OpenIommufd.open_device`."""
        assert self._group is not None
        return self._group.open_device(self._address)

    def end_memory(self) -> None:
        """Map and unmap no more if no other function of the group is open here; call it before closing the function.

        When the last function of a group is unplugged, Linux frees what the calls of the group's container use as soon
        as the function is closed, even in the middle of such a call (``drivers/vfio/vfio_main.c`` in 6.1, later
        ``group.c``: vfio_device_remove_group). A program that unmapped memory at that moment hung in the kernel.
        """
        with lock:
            found = _open.get(self._number)
            if self._group is not None and found is not None and found.users == {self._address}:
                self._group.end_memory()

    def leave(self) -> None:
        """Leave the group; the last function that leaves closes it. A second call does nothing."""
        with lock:
            group, self._group = self._group, None
            found = _open.get(self._number)
            if group is not None and found is not None:
                found.users.discard(self._address)
                if not found.users:
                    del _open[self._number]
                    group.close()


def forget_all() -> None:
    """In a forked child: close the groups there."""
    for found in _open.values():
        found.group.close()
    _open.clear()
