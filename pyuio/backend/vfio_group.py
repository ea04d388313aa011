# SPDX-License-Identifier: MIT
"""The IOMMU groups that this process has open. The functions of a group share it, because the kernel opens it once."""

from __future__ import annotations

import errno
from contextlib import ExitStack

from pyuio.claim import group_users
from pyuio.dma.address_space import AddressSpace
from pyuio.dma.lock import lock
from pyuio.errors import DeviceBusyError
from pyuio.kernel import vfio
from pyuio.kernel.sysfs import translated

# `lock`, that of all memory for DMA, guards it: the last one that leaves a group closes its memory, and whoever closes
# a device while it allocates memory, as a signal handler may, leaves the group.
_open: dict[int, OpenGroup] = {}


class OpenGroup:
    """An IOMMU group and its container, and the functions of it that this process has open.

    Args:
        number: of the group.
        name: of the device for which it is opened, for error messages.

    Raises:
        DeviceBusyError: another process has the group, or an ordinary kernel driver has a function of it.
        DeviceRemovedError: no VFIO driver has a function of the group.
        KernelSupportError: this kernel has no VFIO for the IOMMU.
        PermissionDeniedError: this user may not open it.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.users: set[str] = set()
        with ExitStack() as undo:
            try:
                self._group = vfio.Group(number)
            except DeviceBusyError as error:
                raise group_users.busy(number, name) from error
            undo.callback(self._group.close)
            if not self._group.viable:
                raise group_users.not_viable(number, name)
            container = vfio.Container()
            undo.callback(container.close)
            try:
                self._group.join(container)
            except OSError as error:
                raise translated(error, f"{name}: setting up the IOMMU for its group {number}") from error
            self.space = AddressSpace(container)
            undo.callback(self.space.close)
            self._files = undo.pop_all()

    def open_device(self, address: str) -> int:
        """Return a new descriptor of a function. OSError: the kernel's answer."""
        return self._group.open_device(address)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._files.close()


class Membership:
    """One function's use of its group, which this process may have open already.

    Args:
        number: of the group.
        address: of the function.

    It raises the errors of `OpenGroup`, and DeviceBusyError if this process has the function open.
    """

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self._address = address
        with lock:
            group = _open.get(number)
            if group is None:
                group = _open[number] = OpenGroup(number, address)
            elif address in group.users:  # the kernel would open it again
                raise DeviceBusyError(errno.EBUSY, f"{address} is open already, in this process; close it first")
            group.users.add(address)
        self._group: OpenGroup | None = group
        self.space = group.space
        """The bus addresses that its functions share."""

    def open_device(self) -> int:
        """Return a new descriptor of the function. OSError: the kernel's answer."""
        assert self._group is not None
        return self._group.open_device(self._address)

    def leave(self) -> None:
        """Leave the group; the last function that leaves closes it. A second call does nothing."""
        with lock:
            group, self._group = self._group, None
            if group is not None:
                group.users.discard(self._address)
                if not group.users:
                    _open.pop(group.number, None)
                    group.close()


def forget_all() -> None:
    """In a forked child: close the groups there."""
    for group in _open.values():
        group.close()
    _open.clear()
