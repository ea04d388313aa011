# SPDX-License-Identifier: MIT
"""Which kernel driver hands a device on to user space: the one that it has, the one named, or the better of two.

``vfio-pci`` is the better one where an IOMMU translates for the device, because only VFIO can set the IOMMU up. It is
the better one, too, on a kernel that is locked down, because that forbids what ``uio_pci_generic`` needs: mapping
``resourceN`` and writing ``config``. It needs all functions of an IOMMU group. Otherwise it is ``uio_pci_generic``.

Where a device tree says which IOMMU has a function, as on arm64, a function has its IOMMU group only once a driver has
been bound to it, so the tree is asked.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from pyuio.claim import group_users
from pyuio.errors import KernelSupportError
from pyuio.kernel import device_tree, interrupt_remapping, vfio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI, is_available
from pyuio.kernel.lockdown import is_locked_down
from pyuio.kernel.sysfs import link_name
from pyuio.kernel.uio import UioNode
from pyuio.pci.discovery import FoundDevice


class Choice(NamedTuple):
    """A kernel driver, and why it is the one.

    Attributes:
        driver: its name.
        reason: the end of a sentence that begins with "because".
    """

    driver: str
    reason: str


def present_driver(found: FoundDevice) -> str | None:
    """Return the kernel driver that hands the device on to user space now; None if none does."""
    has = link_name(found.directory / "driver")
    return has if has == VFIO_PCI or UioNode.of_device(found.directory) else None


def choose(found: FoundDevice) -> Choice:
    """Return the kernel driver that `pyuio.open` with ``bind=True`` binds to a PCI function."""
    if group_comes(found):
        obstacle = no_vfio_at_all()
        by = "the device tree gives it an IOMMU, which translates once a driver is bound"
        return Choice(VFIO_PCI, by) if obstacle is None else Choice(UIO_PCI_GENERIC, f"VFIO is out: {obstacle}")
    translated = translates(found)
    if not translated and vfio.group_of(found.directory) is not None and not is_locked_down():
        return Choice(UIO_PCI_GENERIC, "its IOMMU does not translate (iommu=pt, or switched off for it)")
    if (obstacle := no_vfio(found)) is not None:
        return Choice(UIO_PCI_GENERIC, f"VFIO is out: {obstacle}")
    return Choice(VFIO_PCI, "an IOMMU translates for the device" if translated else "the kernel is locked down")


def group_comes(found: FoundDevice) -> bool:
    """Return whether a PCI function gets its IOMMU group with the first driver that is bound to it."""
    if vfio.group_of(found.directory) is not None or not vfio.iommus():
        return False
    return device_tree.stream_id(found.directory) is not None


def translates(found: FoundDevice) -> bool:
    """Return whether an IOMMU translates the addresses that a device uses, so that physical ones mean nothing to it."""
    return vfio.translating_type(found.directory) is not None


def no_vfio(found: FoundDevice) -> str | None:
    """Return why VFIO cannot hand out a PCI function, in half a sentence; None if it can."""
    number = vfio.group_of(found.directory)
    if number is None:
        return no_vfio_at_all() if group_comes(found) else "no IOMMU has the device"
    if others := group_users.in_the_way(number, found.address or ""):
        names = ", ".join(f"{one.address} ({one.driver})" for one in others)
        return f"kernel drivers have functions of its IOMMU group: {names}"
    return no_vfio_at_all()


def no_vfio_at_all() -> str | None:
    """Return why VFIO hands out no card on this machine, although it has an IOMMU; None if it can."""
    if interrupt_remapping.keeps_vfio_out():
        return interrupt_remapping.OBSTACLE
    return None if is_available(VFIO_PCI) else f"this kernel has no {VFIO_PCI}"


SWITCH_IOMMU_ON = (
    "switch it on in the firmware's setup (VT-d, AMD-Vi, SMMU) and on the kernel's command line (Intel: "
    "intel_iommu=on; and without iommu=off)"
)
"""The remedy if no IOMMU has a device."""


def remedy(obstacle: str) -> str:
    """Return what to do about what `no_vfio` has returned."""
    return interrupt_remapping.REMEDY if obstacle == interrupt_remapping.OBSTACLE else SWITCH_IOMMU_ON


def require_vfio(found: FoundDevice) -> None:
    """Check, before anything is changed, that VFIO can hand out a PCI function once ``vfio-pci`` has it.

    Raises:
        KernelSupportError: this machine has no IOMMU.
        DeviceBusyError: ordinary kernel drivers have other functions of its IOMMU group.
        PermissionDeniedError: the IOMMU remaps no interrupts, and root has not said that it need not.
    """
    number = vfio.group_of(found.directory)
    require_remapping(found)
    if number is None and vfio.iommus():
        return  # there may be a group as soon as a driver is bound; if not, vfio-pci does not take the function
    if number is None:
        reason = f"{found.name} has no IOMMU group, without which {VFIO_PCI} hands out nothing: this machine has no "
        raise KernelSupportError(errno.ENOSYS, f"{reason}IOMMU, or it is off; {SWITCH_IOMMU_ON}")
    if group_users.in_the_way(number, str(found.address)):
        raise group_users.not_viable(number, str(found.address))


def require_remapping(found: FoundDevice) -> None:
    """Raise PermissionDeniedError if an IOMMU that remaps no interrupts keeps VFIO from handing out a PCI function."""
    has_iommu = vfio.group_of(found.directory) is not None or vfio.iommus()
    if has_iommu and interrupt_remapping.keeps_vfio_out():
        raise interrupt_remapping.missing(found.name, interrupt_remapping.BY_GROUP)
