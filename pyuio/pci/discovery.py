# SPDX-License-Identifier: MIT
"""Finding devices: which devices there are, and which one a name means.

The attributes read here are those that the kernel shows without the device's lock. pyudev would read ``uevent``, which
takes that lock in many kernels (uevent_show in ``drivers/base/core.c``). Then a device that somebody is taking from a
program by VFIO would stop everybody who lists devices, until that program lets it go (`pyuio.kernel.vfio`).

Source: Documentation/ABI/testing/sysfs-bus-pci; pci_uevent in ``drivers/pci/pci-driver.c`` sets udev's properties.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyuio.errors import AmbiguousDeviceError, DeviceNotFoundError, DeviceRemovedError
from pyuio.kernel import device_tree
from pyuio.kernel.sysfs import PCI_DEVICES, UIO_CLASS, link_name, read_number, read_text
from pyuio.kernel.uio import UioNode
from pyuio.pci.address import is_id_pair, parse_address
from pyuio.process.printable import printable_name

if TYPE_CHECKING:
    import pyudev

# What is taken for the name of a node that is not there, and not for a mistyped address or path.
_LIKE_A_NAME = r"[A-Za-z_][\w .@-]*"


class FoundDevice(NamedTuple):
    """A PCI function, or another device that has a UIO node, in the state in which it was found.

    Attributes:
        directory: its directory in sysfs.
        address: of a PCI function, ``0000:00:04.0``; None for any other device.
        ids: vendor and device id of a PCI function, ``1234:11e8``; None for any other device.
        class_code: of a PCI function, 24 bits, base class first; None for any other device.
        driver: the kernel driver that has it, or None.
        uio: the name of its UIO node, ``uio0``. None if it has none, or if it has several and none of them was named.
        nodes: the names of all its UIO nodes, by number.
    """

    directory: Path
    address: str | None
    ids: str | None
    class_code: int | None
    driver: str | None
    uio: str | None
    nodes: tuple[str, ...] = ()

    @classmethod
    def from_udev(cls, device: pyudev.Device) -> FoundDevice:
        """Return a PCI function, or the device behind a UIO node, as an event of pyudev's describes it.

        Raises:
            DeviceRemovedError: the device has gone since pyudev found it, so that its properties are not known.
        """
        directory = Path(device.sys_path)
        properties = device.properties
        address, ids, class_code = (properties.get(name) for name in ("PCI_SLOT_NAME", "PCI_ID", "PCI_CLASS"))
        if not address and (parse_address(directory.name) or not directory.exists()):
            raise DeviceRemovedError(errno.ENODEV, f"{directory.name} is gone: it was removed")
        found = cls(
            directory=directory,
            address=address,
            ids=ids.lower() if ids else None,
            class_code=int(class_code, 16) if class_code else None,
            driver=None,
            uio=None,
        )
        return found.again()

    @classmethod
    def from_sysfs(cls, directory: Path) -> FoundDevice:
        """Return a PCI function, or the device behind a UIO node.

        Args:
            directory: its directory in sysfs, or a link to it.

        Raises:
            DeviceRemovedError: there is no such device any more.
        """
        directory = directory.resolve()
        address = ids = class_code = None
        try:
            if link_name(directory / "subsystem") == "pci":
                address = directory.name
                ids = ":".join(read_text(directory / name).removeprefix("0x") for name in ("vendor", "device"))
                class_code = read_number(directory / "class", 16)
        except FileNotFoundError as error:
            raise DeviceRemovedError(errno.ENODEV, f"{directory.name} is gone: it was removed") from error
        if not directory.exists():
            raise DeviceRemovedError(errno.ENODEV, f"{directory.name} is gone: it was removed")
        return cls(directory, address, ids, class_code, driver=None, uio=None).again()

    def again(self) -> FoundDevice:
        """Return the same device with the driver and the UIO nodes that it has now."""
        nodes = tuple(node.name for node in UioNode.of_device(self.directory))
        found = self._replace(driver=link_name(self.directory / "driver"), nodes=nodes)
        if self.uio in nodes:
            return found
        # With one node at a time it is the same node, whatever its number; one of several is not another one.
        return found._replace(uio=nodes[0] if len(nodes) == 1 and len(self.nodes) <= 1 else None)

    def each_node(self) -> tuple[FoundDevice, ...]:
        """Return the device once for each of its UIO nodes, or once if it has none."""
        return tuple(self._replace(uio=name) for name in self.nodes) or (self,)

    @property
    def uio_name(self) -> str | None:
        """The name that the kernel driver gave the UIO node `uio`; None if there is no such node now."""
        if self.uio is None:
            return None
        try:
            return UioNode(self.uio).driver_name
        except DeviceRemovedError:
            return None

    @property
    def compatible(self) -> tuple[str, ...]:
        """What the device tree says that it is compatible with, the most specific first; () without a device tree."""
        return device_tree.compatible(self.directory)

    @property
    def name(self) -> str:
        """Its name in messages: the address, or its name in sysfs; that of the node if it is one of several."""
        return self.uio if self.uio and len(self.nodes) > 1 else self.device_name

    @property
    def device_name(self) -> str:
        """The name that all its nodes share: the address, or its name in sysfs."""
        return self.address or self.directory.name

    def __str__(self) -> str:
        ids = f" {self.ids}" if self.ids else ""
        nodes = "".join(f", /dev/{name}" for name in ((self.uio,) if self.uio else self.nodes))
        named = f" named {self.uio_name}" if self.uio_name not in (None, self.driver) else ""
        named = printable_name(named)
        return f"{self.device_name}{ids} (driver: {self.driver or 'none'}{nodes}{named})"


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:  # a kernel without PCI, or without UIO
        return []


def devices() -> list[FoundDevice]:
    """Return every PCI function, and every other device with a UIO node, in the order of their addresses and names.

    A device with several UIO nodes comes once for each. This needs no privilege. The list shows the present state;
    `Hotplug` reports changes.
    """
    present = {entry.resolve() for entry in _entries(PCI_DEVICES)}
    present |= {(node / "device").resolve() for node in _entries(UIO_CLASS)}
    found: list[FoundDevice] = []
    for directory in present:
        with suppress(DeviceRemovedError):  # since it was listed
            found.extend(FoundDevice.from_sysfs(directory).each_node())
    return sorted(found, key=lambda device: (device.address is None, device.device_name))


def _listing(candidates: list[FoundDevice]) -> str:
    return "".join(f"\n  {candidate}" for candidate in candidates) or " none"


def find(which: str | os.PathLike[str] | FoundDevice) -> FoundDevice:
    """Return the one device that `which` names, in its present state.

    Args:
        which: a PCI address (``0000:00:04.0`` or ``00:04.0``), an id pair (``1234:11e8``), ``uio0``, ``/dev/uio0`` or a
            link to it, the name of a node (``/sys/class/uio/uioN/name``), the path, alias or label of a device with a
            node in the device tree (``/fpga@43c00000``), or an entry of `devices`. A text that has one of the first
            forms is not taken for a name.

    Returns:
        The device, with the UIO node that was named; with its only one if none was named.

    Raises:
        DeviceNotFoundError: there is no such device or node; the message lists what there is.
        AmbiguousDeviceError: there is more than one; the message lists them.
        ValueError: `which` has none of these forms, and no node has this name.
        TypeError: `which` is not a string, a path or an entry of `devices`.
    """
    named: str | None = None  # the node
    if isinstance(which, FoundDevice):
        name, directory = which.name, which.directory
        if len(which.nodes) > 1:
            named = which.uio
    elif not isinstance(which, (str, os.PathLike)):
        raise TypeError(f"a device is named by a string, a path or an entry of devices(), not {type(which).__name__}")
    else:
        name = os.fspath(which)
        if (address := parse_address(name)) is not None:
            directory = PCI_DEVICES / address
        elif (node := UioNode.parse(name)) is not None:
            named, directory = node.name, node.device_directory
        elif is_id_pair(name):
            return _only_one(name, _functions(name))
        else:
            return _node_named(name)
    try:
        found = FoundDevice.from_sysfs(directory)
    except DeviceRemovedError:
        return _only_one(name, [])
    if named is None:
        return found
    return found._replace(uio=named) if named in found.nodes else _only_one(name, [])


def _node_named(name: str) -> FoundDevice:
    found = []
    for node in UioNode.named(name):
        with suppress(DeviceNotFoundError):  # it has just gone
            found.append(find(node.name))
    if not found and (path := device_tree.resolve(name)) is not None:
        found = [one for one in devices() if one.uio is not None and device_tree.path_of(one.directory) == path]
        if not found:
            remedy = "bind one, as uio_pdrv_genirq by its parameter of_id (docs/platform.md)"
            raise DeviceNotFoundError(
                f"no UIO driver has the device tree's {path}: {remedy}; there is:{_listing(devices())}"
            )
    if not found and not re.fullmatch(_LIKE_A_NAME, name):
        forms = (
            "a PCI address (0000:00:04.0), an id pair (1234:11e8), a node (uio0), a node's name (fpga-regs), or a path "
            "in the device tree (/fpga@43c00000)"
        )
        raise ValueError(f"{name!r} does not name a device; give {forms}")
    return _only_one(name, found)


def _functions(ids: str) -> list[FoundDevice]:
    found = []
    for directory in _entries(PCI_DEVICES):
        with suppress(DeviceRemovedError):
            found.append(FoundDevice.from_sysfs(directory))
    return sorted((device for device in found if device.ids == ids.lower()), key=lambda device: device.address or "")


def _only_one(name: str, matching: list[FoundDevice]) -> FoundDevice:
    if not matching:
        raise DeviceNotFoundError(f"there is no device {name}; there is:{_listing(devices())}")
    if len(matching) > 1:
        raise AmbiguousDeviceError(
            f"{name} names {len(matching)} devices; name one by address or node:{_listing(matching)}"
        )
    return matching[0]
