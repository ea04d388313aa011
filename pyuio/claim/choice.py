# SPDX-License-Identifier: MIT
"""Which kernel driver hands a device on to user space: the one that it has, the one named, or the better of two.

``vfio-pci`` is the better one where an IOMMU translates for the device, because only VFIO can set the IOMMU up. It is
the better one, too, on a kernel that is locked down, because that forbids what ``uio_pci_generic`` needs: mapping
``resourceN`` and writing ``config``. It needs all functions of an IOMMU group. Otherwise it is ``uio_pci_generic``.
"""

from __future__ import annotations

from typing import NamedTuple

from pyuio.kernel import vfio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI, generic_drivers
from pyuio.kernel.lockdown import is_locked_down
from pyuio.kernel.sysfs import link_name, read_optional
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
    number = vfio.group_of(found.directory)
    translated = (read_optional(found.directory / "iommu_group/type") or "identity") != "identity"
    locked = is_locked_down()
    if number is None:
        return Choice(UIO_PCI_GENERIC, "no IOMMU has the device")
    if not translated and not locked:
        return Choice(UIO_PCI_GENERIC, "its IOMMU does not translate (iommu=pt, or switched off for it)")
    why = "an IOMMU translates for the device" if translated else "the kernel is locked down"
    others = [one for one in vfio.members(number) if one.in_the_way and one.address != found.address]
    if others:
        names = ", ".join(f"{one.address} ({one.driver})" for one in others)
        return Choice(UIO_PCI_GENERIC, f"kernel drivers have functions of its IOMMU group, so VFIO is out: {names}")
    if VFIO_PCI not in generic_drivers():
        return Choice(UIO_PCI_GENERIC, f"this kernel has no {VFIO_PCI}")
    return Choice(VFIO_PCI, why)
