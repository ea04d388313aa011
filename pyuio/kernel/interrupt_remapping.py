# SPDX-License-Identifier: MIT
"""Interrupt remapping: whether the IOMMU checks the message interrupts of cards, without which VFIO hands out no card.

A message interrupt is a write to memory, so a card could send any interrupt of the machine, unless the IOMMU checks
such writes. VFIO insists on that, until root tells it by the parameter ``allow_unsafe_interrupts`` to do without
(``drivers/vfio/vfio_iommu_type1.c``, vfio_iommu_type1_attach_group; ``drivers/iommu/iommufd/device.c``,
iommufd_device_bind).
"""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path

from pyuio.errors import PermissionDeniedError
from pyuio.kernel.drivers import modprobe
from pyuio.kernel.sysfs import read_optional

# The modules that insist on it, by the way to a card: the file of its IOMMU group, or its own device file.
BY_GROUP, BY_IOMMUFD = "vfio_iommu_type1", "iommufd"
_PARAMETER = "allow_unsafe_interrupts"
_MODULES = Path("/sys/module")

OBSTACLE = "the IOMMU does not remap interrupts"
"""Why VFIO is out, in half a sentence."""

REMEDY = (
    "switch interrupt remapping on (in the firmware's setup; no intremap=off on the kernel's command line), or set "
    f"{_PARAMETER} of {BY_GROUP}, by which a card may raise any interrupt of this machine"
)
"""What to do then."""


def is_off(interrupts: str) -> bool:
    """Return whether the IOMMU, if the machine has one, remaps no interrupts; False where the kernel does not tell.

    On x86 the controllers of remapped interrupts have names with ``IR-``, of which every machine has some: those of the
    I/O APIC (``arch/x86/kernel/apic/io_apic.c``).

    Args:
        interrupts: the text of ``/proc/interrupts``.
    """
    head, *lines = interrupts.splitlines() or [""]
    cpus = len(head.split())
    fields = [line.split(None, cpus + 2) for line in lines]
    controllers = [one[cpus + 1] for one in fields if len(one) > cpus + 1 and re.fullmatch("[0-9]+:", one[0])]
    named = [name for name in controllers if re.match(r"(IR-)?(IO-APIC|PCI-MSI)", name)]
    return bool(named) and not any(name.startswith("IR-") for name in named)


def keeps_vfio_out() -> bool:
    """Return whether VFIO hands out no card, as the IOMMU remaps no interrupts and root has not said that it may."""
    with suppress(OSError):
        text = Path("/proc/interrupts").read_text(errors="replace")
        return is_off(text) and not any(map(_may_do_without, (BY_GROUP, BY_IOMMUFD)))
    return False


def _may_do_without(module: str) -> bool:
    """Return whether a module, loaded or as it would be loaded, has its parameter set."""
    if (_MODULES / module).exists():
        return read_optional(_MODULES / module / "parameters" / _PARAMETER) == "Y"
    return re.search(rf" {_PARAMETER}=[1yYtT]", modprobe("--dry-run", "--verbose", module) or "") is not None


def missing(what: str, module: str) -> PermissionDeniedError:
    """Return the error for a card, or a group of cards, that is not handed out for that reason.

    Args:
        what: the card or the group.
        module: the one that insists, `BY_GROUP` or `BY_IOMMUFD`.
    """
    keep = f"a line 'options {module} {_PARAMETER}=1' in /etc/modprobe.d keeps that"
    return PermissionDeniedError(
        errno.EPERM,
        f"{what}: the IOMMU does not remap interrupts, so a card could raise any interrupt of this machine; switch "
        f"interrupt remapping on (in the firmware's setup; no intremap=off on the kernel's command line), or accept "
        f"that, as root: modprobe {module} && echo 1 > {_MODULES}/{module}/parameters/{_PARAMETER} ({keep})",
    )
