# SPDX-License-Identifier: MIT
"""An IOMMU group that this process has open by its group file, with a container for memory."""

from __future__ import annotations

from contextlib import ExitStack

from pyuio.claim import group_users
from pyuio.dma.address_space import AddressSpace
from pyuio.errors import DeviceBusyError
from pyuio.kernel import vfio
from pyuio.kernel.sysfs import translated


class OpenGroup:
    """An IOMMU group and its container.

    Args:
        number: of the group.
        name: of the device for which it is opened, for error messages.

    Raises:
        DeviceBusyError: another process has the group, or an ordinary kernel driver has a function of it.
        DeviceRemovedError: no VFIO driver has a function of the group.
        KernelSupportError: this kernel has no VFIO for the IOMMU.
        PermissionDeniedError: this user may not open it.
    """

    ending = False
    """Whether `end_memory` was called."""

    def __init__(self, number: int, name: str) -> None:
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
            """The bus addresses that its functions share."""
            undo.callback(self.space.close)
            self._files = undo.pop_all()

    def open_device(self, address: str) -> int:
        """Return a new descriptor of a function. OSError: the kernel's answer."""
        return self._group.open_device(address)

    def end_memory(self) -> None:
        """Map and unmap no more; what is mapped stays so until `close`."""
        self.ending = True
        self.space.close()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self._files.close()
