# SPDX-License-Identifier: MIT
"""The data that `list` shows of a device, in the form that docs/command-line.md describes for ``--json``.

Numbers are numbers, ids are text, and null stands for what does not exist.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from pyuio.errors import DeviceRemovedError, PermissionDeniedError
from pyuio.kernel import device_tree, vfio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.sysfs import link_name, translated
from pyuio.kernel.uio import UioNode
from pyuio.pci.assigned_interrupt import assigned_interrupt, line_of_node
from pyuio.pci.discovery import FoundDevice
from pyuio.pci.hardware_names import names

_INTERRUPT_PIN = 0x3D  # PCI Local Bus Specification 3.0, section 6.2.4


def _interrupt_pin(directory: Path) -> int:
    """Read a function's interrupt pin: 0 for none, or if this user may not read it, and 1 to 4 for INTA# to INTD#.

    Raises:
        DeviceRemovedError: the function is gone.
    """
    path = directory / "config"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            pin = os.pread(file, 1, _INTERRUPT_PIN)
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"opening {path}: there is no such device") from error
    except OSError as error:
        failed = translated(error, f"reading {path}")
        if isinstance(failed, PermissionDeniedError):
            return 0
        raise failed from error
    if not pin:
        raise DeviceRemovedError(errno.ENODEV, f"{path} has no byte {_INTERRUPT_PIN:#x}: the device is gone")
    return pin[0]


def _vfio_node(found: FoundDevice) -> str | None:
    """Return "vfio/7", the device node of its IOMMU group below /dev, if VFIO hands the device out; else None."""
    number = vfio.group_of(found.directory)
    return f"vfio/{number}" if number is not None and found.driver == VFIO_PCI else None


def summary(found: FoundDevice) -> dict[str, Any]:
    """Return the data that `list` shows of a device. DeviceRemovedError: it is gone."""
    directory, interrupt, called = found.directory, None, None
    if found.address is not None:
        assigned = assigned_interrupt(directory, _interrupt_pin(directory))
        interrupt = {
            "kind": assigned.kind,
            "pin": assigned.pin,
            "numbers": list(assigned.numbers),
            "text": str(assigned),
        }
        called = names(directory)
    elif found.uio is not None and (line := line_of_node(UioNode(found.uio))) is not None:
        interrupt = {"kind": "line", "pin": None, "numbers": [line], "text": str(line)}
    return {
        "name": found.device_name,
        "address": found.address,
        "ids": found.ids,
        "class_code": found.class_code,
        "class": called.kind if called else None,
        "vendor": called.vendor if called else None,
        "device": called.device if called else None,
        "driver": found.driver,
        "uio": found.uio,
        "uio_name": found.uio_name,
        "nodes": list(found.nodes),
        "device_tree": device_tree.path_of(found.directory),
        "compatible": list(found.compatible),
        "vfio": _vfio_node(found),
        "interrupt": interrupt,
        "iommu_group": link_name(directory / "iommu_group"),
    }
