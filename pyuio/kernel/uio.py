# SPDX-License-Identifier: MIT
"""The kernel's UIO nodes: ``/dev/uioN`` and its directory in sysfs (``drivers/uio/uio.c``)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import DeviceBusyError, DeviceRemovedError
from pyuio.kernel.sysfs import UIO_CLASS, parse_number, read_number, read_optional, read_text, translated

_NODE = r"(?:/dev/)?(uio[0-9]+)"


class UioMap(NamedTuple):
    """One memory region that the UIO driver offers for mmap.

    Attributes:
        index: its number, which is not that of a BAR. mmap of ``/dev/uioN`` finds map M at an offset of M pages.
        name: the driver's name for the region; may be "".
        address: physical address in bytes.
        size: bytes.
        offset: bytes from the start of the first page to the region.
    """

    index: int  # type: ignore[assignment]  # in place of tuple.index
    name: str
    address: int
    size: int
    offset: int

    @property
    def label(self) -> str:
        """Its name, or ``map0`` and so on if it has none."""
        return self.name or f"map{self.index}"

    def __str__(self) -> str:
        name = f" ({self.name})" if self.name else ""
        start = f", from {self.offset:#x} on" if self.offset else ""
        return f"map {self.index}{name} of {self.size:#x} bytes at {self.address:#x}{start}"


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
        """Return the node that ``uio0``, ``/dev/uio0`` or the path of a link to that names; None for another text."""
        match = re.fullmatch(_NODE, text)
        if match is None and "/" in text:
            with suppress(ValueError):  # no path can have such a text
                match = re.fullmatch(_NODE, os.path.realpath(text))
        return cls(match[1]) if match else None

    @classmethod
    def of_device(cls, directory: Path) -> tuple[UioNode, ...]:
        """Return the nodes of the device with this directory in sysfs, by number; () if no UIO driver is bound to it.

        A kernel driver may register several for one device (``drivers/uio/uio.c``, __uio_register_device).
        """
        try:
            names = [entry.name for entry in (directory / "uio").iterdir() if re.fullmatch(_NODE, entry.name)]
        except OSError:
            return ()
        return tuple(cls(name) for name in sorted(names, key=lambda name: int(name[3:])))

    @classmethod
    def named(cls, name: str) -> tuple[UioNode, ...]:
        """Return the nodes whose driver gave them this name, by number: what ``/sys/class/uio/uioN/name`` says."""
        found = []
        for entry in UIO_CLASS.glob("uio*"):
            with suppress(OSError):  # it is going
                if re.fullmatch(_NODE, entry.name) and read_text(entry / "name") == name:
                    found.append(cls(entry.name))
        return tuple(sorted(found, key=lambda node: int(node.name[3:])))

    @property
    def device_directory(self) -> Path:
        """The sysfs directory of the device behind the node."""
        return (self.directory / "device").resolve()

    @property
    def driver_name(self) -> str:
        """The name that the kernel driver gave the node, which may be its own, as "uio_pci_generic".

        Raises:
            DeviceRemovedError: the node is gone.
        """
        return self._read("name")

    @property
    def event_count(self) -> int:
        """The kernel's running total of interrupts, modulo 2^32. DeviceRemovedError: the node is gone."""
        return parse_number(self._read("event"), self.directory / "event")

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """The memory regions that the driver offers, by index; () if it offers none."""
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
        """Open an attribute in sysfs for reading, and return its descriptor.

        From the moment when the node is gone, reading the descriptor fails with ENODEV.

        Raises:
            DeviceRemovedError: the node is gone already.
        """
        path = self.directory / "event"  # the kernel reads this attribute without a lock (event_show in uio.c)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DeviceRemovedError(error.errno, f"opening {path}: there is no such node") from error
        except OSError as error:  # ENODEV while the node is going
            raise translated(error, f"opening {path}") from error

    def open(self) -> int:
        """Open the node and return its descriptor, which is non-blocking and close-on-exec.

        Raises:
            DeviceRemovedError: there is no such node.
            PermissionDeniedError: this user may not open it.
            DeviceBusyError: the kernel driver admits only one opener, and there is one already.
        """
        try:
            return os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            reason = f"opening {self.path}: there is no such node"
            if self.directory.exists():
                reason += f", although the kernel has the device; a container is given it by --device {self.path}"
            raise DeviceRemovedError(error.errno, reason) from error
        except OSError as error:
            raise translated(error, f"opening {self.path}", DeviceBusyError) from error
