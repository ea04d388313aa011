# SPDX-License-Identifier: MIT
"""The kernel's UIO nodes: ``/dev/uioN`` and its directory in sysfs (``drivers/uio/uio.c``)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import DeviceBusyError, DeviceRemovedError
from pyuio.kernel.sysfs import UIO_CLASS, parse_number, read_number, read_optional, read_text, translated

_NODE = re.compile(r"(?:/dev/)?(uio[0-9]+)")


class UioMap(NamedTuple):
    """One memory region that the UIO driver offers for mmap.

    Attributes:
        index: its number; map N is mapped at offset N pages of ``/dev/uioN``, and is not BAR N.
        name: the driver's name for it, possibly "".
        address: physical address in bytes.
        size: bytes.
        offset: bytes from the start of the first page to the region.
    """

    index: int  # type: ignore[assignment]  # in place of tuple.index
    name: str
    address: int
    size: int
    offset: int


class UioNode:
    """One ``/dev/uioN``.

    Args:
        name: "uio0" and so on.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/dev", name)
        self.directory = UIO_CLASS / name

    @classmethod
    def parse(cls, text: str) -> UioNode | None:
        """Return the node named ``uio0`` or ``/dev/uio0``, or None when `text` does not have that form."""
        match = _NODE.fullmatch(text)
        return cls(match[1]) if match else None

    @classmethod
    def of_device(cls, directory: Path) -> UioNode | None:
        """Return the node of the device with this directory in sysfs, or None when no UIO driver is bound to it."""
        try:
            return cls(next(entry.name for entry in (directory / "uio").iterdir()))
        except (OSError, StopIteration):
            return None

    @property
    def device_directory(self) -> Path:
        """The sysfs directory of the device behind the node."""
        return (self.directory / "device").resolve()

    @property
    def driver_name(self) -> str:
        """What the kernel driver calls itself, such as "uio_pci_generic". DeviceRemovedError: the node is gone."""
        return self._read("name")

    @property
    def event_count(self) -> int:
        """The kernel's running total of interrupts, modulo 2^32. DeviceRemovedError: the node is gone."""
        return parse_number(self._read("event"), self.directory / "event")

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """The memory regions the driver offers, by index; () for those that offer none."""
        found = []
        for directory in self.directory.glob("maps/map*"):
            address, size, offset = (read_number(directory / name, 16) for name in ("addr", "size", "offset"))
            index = parse_number(directory.name[3:], directory)
            found.append(UioMap(index, read_optional(directory / "name") or "", address, size, offset))
        return tuple(sorted(found, key=lambda item: item.index))

    def _read(self, attribute: str) -> str:
        try:
            return read_text(self.directory / attribute)
        except FileNotFoundError as error:
            raise DeviceRemovedError(error.errno, f"{self.path} is gone: the device was removed or unbound") from error

    def open_attribute(self) -> int:
        """Open an attribute in sysfs, for reading, and return its descriptor.

        Reading it gives ENODEV from the moment on at which the node is gone. DeviceRemovedError: it is gone already.
        """
        path = self.directory / "event"  # the one that takes no lock to read (drivers/uio/uio.c, event_show)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DeviceRemovedError(error.errno, f"opening {path}: there is no such node") from error

    def open(self) -> int:
        """Open the node and return its descriptor, non-blocking and closed in programs that this one executes.

        Raises:
            DeviceRemovedError: there is no such node.
            PermissionDeniedError: this user may not open it.
            DeviceBusyError: the kernel driver admits one opener, and there is one.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DeviceRemovedError(error.errno, f"opening {self.path}: there is no such node") from error
        except OSError as error:
            raise translated(error, f"opening {self.path}", DeviceBusyError) from error
