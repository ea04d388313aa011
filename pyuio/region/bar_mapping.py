# SPDX-License-Identifier: MIT
"""Maps a BAR of the kernel's list as a region that can be read and written."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio.errors import MappingError
from pyuio.kernel.uio import UioNode
from pyuio.pci.bars import Bar
from pyuio.region import PortRegion, Region

if TYPE_CHECKING:
    from pyuio._native._access import Endian, Presence


def checked_index(index: int) -> int:
    """Return a BAR's index, or raise TypeError or ValueError."""
    if not isinstance(index, int):
        raise TypeError(f"a BAR's index is an int, not {type(index).__name__}")
    if not 0 <= index <= 5:
        raise ValueError(f"a BAR's index is 0 to 5, not {index}")
    return index


def find_bar(present: Iterable[Bar], index: int, name: str) -> Bar:
    """Return the BAR with an index. MappingError, with the device's `name`: there is none, or it has no address."""
    present = list(present)
    for bar in present:
        if bar.index == index and bar.address:
            return bar
    has = "; ".join(str(bar) for bar in present) or "none"
    raise MappingError(errno.ENXIO, f"{name} has no BAR {index} with an address; it has: {has}")


def checked_write_combining(bar: Bar, name: str) -> None:
    """Raise ValueError if writes to a BAR, called `name`, must not be combined: if it is not prefetchable memory."""
    if bar.kind != "memory" or not bar.prefetchable:
        raise ValueError(f"{name} is not prefetchable memory: write combining would change what the device sees")


def map_bar(
    bar: Bar,
    directory: Path,
    name: str,
    *,
    nodes: Iterable[UioNode] = (),
    write_combining: bool = False,
    endian: Endian = "little",
    width: int | None = None,
    region_classes: tuple[type[Region], type[PortRegion]] = (Region, PortRegion),
    presence: Presence | None = None,
) -> Region | PortRegion:
    """Return a region for a BAR.

    Args:
        bar: a BAR that has an address.
        directory: the function's directory in sysfs.
        name: the device's name, for messages.
        nodes: UIO nodes of the device, which may offer a BAR that the kernel refuses otherwise.
        write_combining: let the processor merge writes.
        endian: "little" or "big".
        width: bits of the widest access that the device takes; None for what the kind of BAR allows.
        region_classes: the classes for a BAR in memory, and for one of I/O ports.
        presence: tells whether the device is still there; None if the caller only inspects the device.

    Raises:
        MappingError: the kernel refuses to map it.
        PermissionDeniedError: this user may not.
        ValueError: the BAR is not prefetchable memory and `write_combining` is set; or there is no such width.
    """
    name = f"BAR {bar.index} of {name}"
    path = str(directory / f"resource{bar.index}")
    if write_combining:
        checked_write_combining(bar, name)
        path += "_wc"
    ports = bar.kind == "io"
    place = partial(
        region_classes[ports],
        address=bar.address,
        name=name,
        endian=endian,
        width=(32 if ports else 64) if width is None else width,
        presence=presence,
    )
    if ports:
        return place(path, bar.size)
    # mmap maps whole pages, and a BAR that is smaller than a page may start in its middle.
    place = partial(place, page_offset=bar.address % mmap.PAGESIZE)
    try:
        return place(path, bar.size)
    except MappingError:
        # A kernel driver that keeps the BAR for itself may offer it through its own node.
        if write_combining:
            raise
        for node in nodes:
            for offered in node.maps:
                if offered.address == bar.address and offered.size >= bar.size:
                    return place(node.path, bar.size, file_offset=offered.index * mmap.PAGESIZE)
        raise
