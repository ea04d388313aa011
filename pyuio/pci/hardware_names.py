# SPDX-License-Identifier: MIT
"""Names of PCI vendors, devices and classes, from udev's hardware database, which is made from pci.ids.

The database (``hwdb.bin``) comes with udev, and ``systemd-hwdb update`` adds the content of /etc/udev/hwdb.d. This
module asks it directly through libudev (``udev_hwdb_new`` in libudev.h), because containers lack udevd's records of
each device, and pyudev has no class for the database.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import NamedTuple

from pyuio.kernel.sysfs import read_optional


class HardwareNames(NamedTuple):
    """The names of a PCI function in the hardware database; None where it has no name.

    Attributes:
        vendor: as in "Red Hat, Inc.".
        device: as in "QEMU XHCI Host Controller".
        kind: the name of its subclass, else of its base class, without the programming interface: "USB controller".
    """

    vendor: str | None = None
    device: str | None = None
    kind: str | None = None


class _Database:
    """libudev's hardware database; it stays open until the process ends."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libudev.so.1")
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, *arguments in (
            ("udev_new", pointer),
            ("udev_hwdb_new", pointer, pointer),
            ("udev_hwdb_get_properties_list_entry", pointer, pointer, text, ctypes.c_uint),
            ("udev_list_entry_get_next", pointer, pointer),
            ("udev_list_entry_get_name", text, pointer),
            ("udev_list_entry_get_value", text, pointer),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._library = library
        self._handle = library.udev_hwdb_new(library.udev_new())

    def properties(self, alias: str) -> dict[str, str]:
        """Return the properties of a modalias; {} if the database does not have it, or if there is no database."""
        found: dict[str, str] = {}
        if not self._handle:
            return found
        library = self._library
        entry = library.udev_hwdb_get_properties_list_entry(self._handle, alias.encode(), 0)
        while entry:
            name, value = library.udev_list_entry_get_name(entry), library.udev_list_entry_get_value(entry)
            found[name.decode(errors="replace")] = (value or b"").decode(errors="replace")
            entry = library.udev_list_entry_get_next(entry)
        return found


@functools.cache
def _database() -> _Database | None:
    try:
        return _Database()
    except (OSError, AttributeError):  # no libudev, or one without a database
        return None


def names_of(alias: str) -> HardwareNames:
    """Return the names for a modalias, ``pci:v00001234d000011E8sv...``; all are None if there is no database."""
    database = _database()
    properties = database.properties(alias) if database else {}
    return HardwareNames(
        vendor=properties.get("ID_VENDOR_FROM_DATABASE"),
        device=properties.get("ID_MODEL_FROM_DATABASE"),
        kind=properties.get("ID_PCI_SUBCLASS_FROM_DATABASE") or properties.get("ID_PCI_CLASS_FROM_DATABASE"),
    )


def names(directory: Path) -> HardwareNames:
    """Return the names of the PCI function with this directory in sysfs; all are None if it is gone."""
    alias = read_optional(directory / "modalias")
    return names_of(alias) if alias else HardwareNames()
