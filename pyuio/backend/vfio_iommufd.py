# SPDX-License-Identifier: MIT
"""An IOMMU group whose functions this process opens by the device files of iommufd."""

from __future__ import annotations

import errno
import os

from pyuio.claim import group_users
from pyuio.dma.address_space import AddressSpace
from pyuio.errors import DeviceBusyError, DeviceRemovedError
from pyuio.kernel import interrupt_remapping, vfio
from pyuio.kernel.iommufd import Ioas, device_node
from pyuio.kernel.sysfs import PCI_DEVICES


class OpenIommufd:
    """The memory that functions of an IOMMU group share, while this process has any open; as `OpenGroup`.

    Args:
        number: of the group.

    Raises:
        KernelSupportError: this kernel has no iommufd.
        PermissionDeniedError: this user may not open it.
    """

    ending = False

    def __init__(self, number: int) -> None:
        self._number = number
        self._ioas = Ioas()
        self.space = AddressSpace(self._ioas)
        """The bus addresses that its functions share."""

    def open_device(self, address: str) -> int:
        """Return a new descriptor of a function.

        Raises:
            DeviceBusyError: another process has the function, or one of its group; or an ordinary kernel driver has.
            DeviceRemovedError: VFIO does not have the function any more.
            PermissionDeniedError: the IOMMU cannot keep the group's interrupts apart, and the kernel insists on that.
            OSError: the kernel's answer.
        """
        node = device_node(PCI_DEVICES / address)
        if node is None:
            raise DeviceRemovedError(errno.ENODEV, f"{address} has no device file of VFIO's any more")
        file = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._ioas.attach(file)
        except BaseException as error:
            os.close(file)  # first, because whoever has it open is looked for
            if isinstance(error, OSError):
                self._explain(error, address)
            raise
        self.space.renew()
        return file

    def _explain(self, error: OSError, address: str) -> None:
        """Raise the error that says why the kernel did not hand the function out: its answers have many meanings."""
        if group_users.in_the_way(self._number, address):
            raise group_users.not_viable(self._number, address) from error
        # EBUSY: somebody has the group open. EINVAL: the function is bound already. EPERM, too, means that another
        # process has a function of the group; whether it does shows in trying to open the group, if there are groups.
        busy = error.errno in (errno.EBUSY, errno.EINVAL)
        try:
            vfio.Group(self._number).close()
        except DeviceBusyError:
            busy = True
        except OSError:  # this user may not open it, or this kernel has no groups
            busy = busy or bool(group_users.processes(self._number))
        if busy:
            raise group_users.busy(self._number, address) from error
        if error.errno == errno.EPERM:
            raise interrupt_remapping.missing(f"IOMMU group {self._number}", interrupt_remapping.BY_IOMMUFD) from error

    def end_memory(self) -> None:
        """Do nothing: iommufd keeps what its calls use until they end."""

    def close(self) -> None:
        """Close it; a second call does nothing."""
        self.space.close()
