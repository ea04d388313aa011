# SPDX-License-Identifier: MIT
"""Maps a memory region that a UIO driver offers, one of its node's maps, as a region that can be read and written.

mmap of ``/dev/uioN`` at an offset of M pages is map M (``drivers/uio/uio.c``: uio_mmap). It begins where the map's page
begins; the map's ``offset`` says where in it the device begins. Its ``size`` counts from the start of the page.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, SupportsIndex, TypeVar

from pyuio.errors import DeviceRemovedError, MappingError
from pyuio.kernel.drivers import UIO_PCI_GENERIC
from pyuio.kernel.uio import UioMap, UioNode
from pyuio.region.common import checked_size
from pyuio.region.memory import Region

if TYPE_CHECKING:
    from pyuio._native._access import Endian, Presence

_T = TypeVar("_T")
_MADV_POPULATE_READ = 22  # include/uapi/asm-generic/mman-common.h; Python has no name for it
# What drivers/uio/uio_dmem_genirq.c shows for memory that it does not have: DMEM_MAP_ERROR, as long as an address.
_NO_MEMORY = ((1 << 64) - 1, (1 << 32) - 1)


def find_map(present: Iterable[UioMap], which: int | str, name: str) -> UioMap:
    """Return the map with an index, or with a name; ``map0`` and so on is also a name for the one with that index.

    Args:
        present: the maps.
        which: the index, or the name.
        name: of the device, for the message.

    Raises:
        MappingError: there is none, or there are several of that name; the message lists those that there are.
        TypeError: `which` is neither a number nor a name.
    """
    if isinstance(which, bool) or not isinstance(which, (int, str)):
        raise TypeError(f"a map is given by its index or its name, not by {type(which).__name__}")
    present = list(present)
    if isinstance(which, int):
        found = [item for item in present if item.index == which]
    else:
        found = [item for item in present if item.name and item.name == which]
        if not found and (number := re.fullmatch("map([0-9]{1,3})", which, re.ASCII)):
            found = [item for item in present if item.index == int(number[1])]
    if len(found) == 1:
        return found[0]
    has = "; ".join(map(str, present)) or "none"
    asked = f"map {which}" if isinstance(which, int) else f"map {which!r}"
    if found:
        raise MappingError(errno.EINVAL, f"{name} has {len(found)} maps named {which!r}; give the index; it has: {has}")
    raise MappingError(errno.ENXIO, f"{name} has no {asked}; it has: {has}")


def of_map(table: Mapping[int | str, _T], item: UioMap) -> _T | None:
    """Return a map's entry in a table such as `Driver.register_maps`: that of its name, or of ``map0`` and so on."""
    found = table.get(item.name) if item.name else None
    return table.get(f"map{item.index}") if found is None else found


def refuse_bars(node: UioNode, device: str) -> None:
    """Raise MappingError for a node of ``uio_pci_generic``, before it is opened a second time.

    Closing that would end bus mastering under whoever drives the device.
    """
    if node.driver_name == UIO_PCI_GENERIC:
        reason = f"{device}: the maps of {UIO_PCI_GENERIC} are BARs; map the BAR: bar(0), or bar0 for a command"
        raise MappingError(errno.EOPNOTSUPP, reason)


def map_region(
    node: UioNode,
    item: UioMap,
    device: str,
    *,
    size: SupportsIndex | None = None,
    endian: Endian = "little",
    width: int | None = None,
    region_class: type[Region] = Region,
    presence: Presence | None = None,
    file: int | None = None,
) -> Region:
    """Return a new region for a map.

    It opens the node once more, so that a child which keeps the map after a fork does not keep the caller's lock.

    Args:
        node: the node that offers it.
        item: the map, as the node describes it now.
        device: the device's name, for messages.
        size: bytes of it; None for all from its `offset` on.
        endian: "little" or "big".
        width: bits of the widest access that the device takes; None for 64.
        region_class: the class to make.
        presence: tells whether the device is still there; None if the caller only inspects the device.
        file: the caller's descriptor of the node, for a driver that admits only one opener.

    Raises:
        MappingError: the kernel or its driver refuses to map it; the message says why.
        PermissionDeniedError: this user may not open the node.
        DeviceRemovedError: the device is gone.
        ValueError: `size` is below 1 or beyond the map, or there is no such width.
    """
    name = f"map {item.index}{f' ({item.name})' if item.name else ''} of {device}"
    refuse_bars(node, device)
    if item.address in _NO_MEMORY:
        reason = f"{name}: its driver has no memory for it now; the kernel log says why (dmesg), and CMA helps (cma=)"
        raise MappingError(errno.ENOMEM, reason)
    # A driver gives a page's address and the offset; or, for memory of the kernel's own, the address of the first byte.
    offset = item.offset or item.address % mmap.PAGESIZE
    most = item.size - item.offset
    wanted = most if size is None else checked_size(size, name)
    if not 1 <= wanted <= most:
        raise ValueError(f"{name}: a size of {wanted:#x} is not in 1..{most:#x}, what the map has")
    start = item.index * mmap.PAGESIZE
    place = partial(
        region_class,
        node.path,
        wanted,
        page_offset=offset,
        file_offset=start,
        address=item.address + item.offset,
        name=name,
        endian=endian,
        width=64 if width is None else width,
        presence=presence,
    )
    try:
        try:
            region = place()
        except MappingError as error:
            if error.errno != errno.EBUSY or file is None:
                raise
            from pyuio.region.mapping import OpenFileMapping

            region = place(mapping=OpenFileMapping(file, start, offset + wanted))
    except OSError as error:
        if isinstance(error, DeviceRemovedError) or not os.access(node.path, os.R_OK | os.W_OK):
            raise
        doing = f"mapping {name}, {wanted:#x} bytes of {node.path}"
        answer = os.strerror(error.errno or errno.EIO)
        raise MappingError(error.errno, f"{doing}: {answer}; {_why(node, item, error.errno)}") from error
    # The kernel's own memory is mapped page by page at the first access, which is SIGBUS if the device is gone by then.
    # Registers are mapped already, and refuse this (mm/gup.c: check_vma_flags). Linux before 5.14 does not know it.
    with contextlib.suppress(OSError):
        region.mapping.madvise(_MADV_POPULATE_READ)
    return region


def _why(node: UioNode, item: UioMap, number: int | None) -> str:
    """Return why the kernel refused to map a map, and what to do (``drivers/uio/uio.c``: uio_mmap_physical)."""
    page = mmap.PAGESIZE
    driver = f"the kernel driver of {node.path} ({node.driver_name})"
    if number == errno.ENODEV and item.address % page:
        return (
            f"it starts at {item.address:#x}, {item.address % page:#x} bytes into a page, and mmap takes whole pages: "
            f"{driver} must give the page's address, and the rest as offset, as uio_pdrv_genirq does"
        )
    if number == errno.EINVAL and item.size % page:
        return (
            f"it has {item.size:#x} bytes, and the kernel maps whole pages of {page:#x} bytes and none beyond a map: "
            f"{driver} must round the size up, as uio_pdrv_genirq does"
        )
    return f"{driver} refuses mmap of it"
