# SPDX-License-Identifier: MIT
"""Finding devices: which devices there are, and which one a name means. pyudev enumerates them.

Source: Documentation/ABI/testing/sysfs-bus-pci; pci_uevent in ``drivers/pci/pci-driver.c`` sets the properties.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyuio.errors import AmbiguousDeviceError, DeviceNotFoundError
from pyuio.kernel.sysfs import PCI_DEVICES, link_name
from pyuio.kernel.uio import UioNode
from pyuio.pci.address import is_id_pair, parse_address
from pyuio.process.late import late

if TYPE_CHECKING:
    import pyudev

_threads = threading.local()  # libudev's objects are for one thread


class FoundDevice(NamedTuple):
    """A PCI function, or another device that has a UIO node, in the state in which it was found.

    Attributes:
        directory: its directory in sysfs.
        address: of a PCI function, ``0000:00:04.0``; None for any other device.
        ids: vendor and device id of a PCI function, ``1234:11e8``; None for any other device.
        class_code: of a PCI function, 24 bits, base class first; None for any other device.
        driver: the kernel driver that has it, or None.
        uio: the name of its UIO node, ``uio0``, or None.
    """

    directory: Path
    address: str | None
    ids: str | None
    class_code: int | None
    driver: str | None
    uio: str | None

    @classmethod
    def from_udev(cls, device: pyudev.Device) -> FoundDevice:
        """Return a PCI function, or the device behind a UIO node, as pyudev describes it."""
        directory = Path(device.sys_path)
        node = UioNode.of_device(directory)
        ids, class_code = device.properties.get("PCI_ID"), device.properties.get("PCI_CLASS")
        return cls(
            directory=directory,
            address=device.properties.get("PCI_SLOT_NAME"),
            ids=ids.lower() if ids else None,
            class_code=int(class_code, 16) if class_code else None,
            driver=link_name(directory / "driver"),
            uio=node.name if node else None,
        )

    def again(self) -> FoundDevice:
        """Return the same device with the driver and the UIO node that it has now."""
        node = UioNode.of_device(self.directory)
        return self._replace(driver=link_name(self.directory / "driver"), uio=node.name if node else None)

    @property
    def name(self) -> str:
        """Its name in messages: its address, or its name in sysfs."""
        return self.address or self.directory.name

    def __str__(self) -> str:
        ids = f" {self.ids}" if self.ids else ""
        node = f", /dev/{self.uio}" if self.uio else ""
        return f"{self.name}{ids} (driver: {self.driver or 'none'}{node})"


def _context() -> pyudev.Context:
    """Return this thread's context. It is made once, because pyudev then runs ``ldconfig``, the slowest step here."""
    if not hasattr(_threads, "context"):
        _threads.context = late("pyudev").Context()
    context: pyudev.Context = _threads.context
    return context


def devices() -> list[FoundDevice]:
    """Return every PCI function, and every other device with a UIO node, in the order of their addresses and names.

    This needs no privilege. The list shows the present state; `Hotplug` reports changes.
    """
    context = _context()
    present = {device.sys_path: device for device in context.list_devices(subsystem="pci")}
    for node in context.list_devices(subsystem="uio"):
        device = _behind(node)
        present.setdefault(device.sys_path, device)
    return sorted(
        map(FoundDevice.from_udev, present.values()), key=lambda device: (device.address is None, device.name)
    )


def _behind(node: pyudev.Device) -> pyudev.Device:
    return node if node.parent is None else node.parent  # a node without a device behind it stands for itself


def _listing(candidates: list[FoundDevice]) -> str:
    return "".join(f"\n  {candidate}" for candidate in candidates) or " none"


def find(which: str | os.PathLike[str] | FoundDevice) -> FoundDevice:
    """Return the one device that `which` names, in its present state.

    Args:
        which: a PCI address (``0000:00:04.0`` or ``00:04.0``), an id pair (``1234:11e8``), ``uio0``, ``/dev/uio0``, or
            an entry of `devices`.

    Raises:
        DeviceNotFoundError: there is no such device; the message lists what there is.
        AmbiguousDeviceError: there is more than one; the message lists them.
        ValueError: `which` has none of these forms.
        TypeError: `which` is not a string, a path or an entry of `devices`.
    """
    context = _context()
    pyudev = late("pyudev")
    if isinstance(which, FoundDevice):
        name, directory = which.name, which.directory
    elif not isinstance(which, (str, os.PathLike)):
        raise TypeError(f"a device is named by a string, a path or an entry of devices(), not {type(which).__name__}")
    else:
        name = os.fspath(which)
        if (address := parse_address(name)) is not None:
            directory = PCI_DEVICES / address
        elif (node := UioNode.parse(name)) is not None:
            directory = node.directory
        elif is_id_pair(name):
            return _only_one(
                name, [FoundDevice.from_udev(device) for device in context.list_devices(PCI_ID=name.upper())]
            )
        else:
            forms = "a PCI address (0000:00:04.0), an id pair (1234:11e8) or a node (uio0)"
            raise ValueError(f"{name!r} does not name a device; give {forms}")
    try:
        device = pyudev.Devices.from_sys_path(context, str(directory))
    except pyudev.DeviceNotFoundError:
        return _only_one(name, [])
    return FoundDevice.from_udev(_behind(device) if device.subsystem == "uio" else device)


def _only_one(name: str, matching: list[FoundDevice]) -> FoundDevice:
    if not matching:
        raise DeviceNotFoundError(f"there is no device {name}; there is:{_listing(devices())}")
    if len(matching) > 1:
        raise AmbiguousDeviceError(f"{name} names {len(matching)} devices; name one by address:{_listing(matching)}")
    return matching[0]
