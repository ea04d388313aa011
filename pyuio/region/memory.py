# SPDX-License-Identifier: MIT
"""A BAR in memory, or a map of a UIO node: `Region`.

Offsets are in bytes from the start of the BAR or map. Registers wider than a byte are
little-endian, as PCI is, unless the region or a single call says ``endian="big"``.

Source: Documentation/PCI/sysfs-pci.rst; ``drivers/pci/pci-sysfs.c`` (pci_mmap_resource, pci_resource_io).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio._native._access import Window
from pyuio._native._memory import pointer
from pyuio.errors import ClosedError, MappingError
from pyuio.region.common import Common, checked_size, refused

if TYPE_CHECKING:
    from periphery import MMIO

    from pyuio._native._access import Endian, Presence
    from pyuio.region.mapping import Mapping


class Region(Common, Window):
    """A BAR in memory, or a map of a UIO node. Each access is exactly one load or store of its width, in program order.

    ``read8/16/32/64(offset)``, ``write8/16/32/64(offset, value)``, ``update8/16/32/64(offset, mask, value)``,
    ``set8/16/32/64(offset, mask)``, ``clear8/16/32/64(offset, mask)``, ``read(offset, length, width=4, *,
    fixed=False)`` and ``write(offset, data, width=4, *, fixed=False)`` come from the compiled `Window`;
    ``pyuio/_native/_access.pyi`` says what each does and raises. They keep the global interpreter lock, so `update32`
    and its like are whole as seen from other threads.

    A region of a UIO device can be used on both sides of a fork; the memory is the same. That of a device that VFIO has
    is closed in a forked child. It cannot be pickled.

    Args:
        path: the BAR's file, ``/sys/bus/pci/devices/*/resourceN``; or ``resourceN_wc`` for write combining, where the
            order of accesses is not kept; or ``/dev/uioN``.
        size: the size of the BAR in bytes, at least 1.
        page_offset: where in its page the BAR or map starts, in bytes: its physical address modulo the page size. The
            kernel maps whole pages.
        file_offset: where in the file the mapping starts, in bytes, a multiple of the page size: N pages for map N of
            ``/dev/uioN``.
        address: the physical address that the property `address` returns; it has no other use.
        name: the region's name in error messages, as in "BAR 0 of 0000:00:04.0"; the path if None.
        endian: byte order of registers wider than a byte.
        width: bits of the widest access that the device takes: 8, 16, 32 or 64. Wider ones, which such a device answers
            with 0 or drops, raise ValueError.
        presence: tells whether the device is still there, so that reads from a removed device are not believed; None
            for a region that cannot be removed.
        mapping: the mapping to use; None to map `path`, which is for messages only otherwise.

    Raises:
        MappingError: there is no such BAR, it has I/O ports, it is smaller than `size`, or the kernel refused.
        PermissionDeniedError: the file may not be opened, or the kernel is locked down.
        DeviceRemovedError: the device is gone.
        ValueError: the size is below 1, `page_offset` is not within the first page, or there is no such width.
    """

    __slots__ = ("__weakref__", "_address", "_mmio", "_page_offset")

    _mmio: Mapping

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        page_offset: int = 0,
        file_offset: int = 0,
        address: int | None = None,
        name: str | None = None,
        endian: Endian = "little",
        width: int = 64,
        presence: Presence | None = None,
        mapping: Mapping | None = None,
    ) -> None:
        from pyuio.region.mapping import Mapping  # periphery takes 6 ms to import

        path = os.fspath(path)
        name = path if name is None else name
        size = checked_size(size, name)
        if not 0 <= page_offset < mmap.PAGESIZE:
            raise ValueError(f"{name}: page_offset is 0 to {mmap.PAGESIZE - 1}, not {page_offset}")
        doing = f"mapping {name}, {size:#x} bytes of {path}"
        # A mapping is no longer than a regular file, as that of a BAR, but the rest of its last page can be accessed.
        within = page_offset + size <= mmap.PAGESIZE and Path(path).is_file()
        length = size if within else page_offset + size
        try:
            mapping = mapping or Mapping(file_offset, length, path=path)
        except OSError as error:
            raise refused(error, doing, path) from error
        except (ValueError, OverflowError) as error:  # mmap's own checks of the length
            raise MappingError(errno.EINVAL, f"{doing}: {error}; give the BAR's size") from error
        try:
            super().__init__(mapping.mapping, offset=page_offset, size=size, name=name, endian=endian, width=width)
            if presence is not None:
                self._join(presence)
        except BaseException:
            super().close()
            mapping.close()
            raise
        self._mmio = mapping
        self._page_offset = page_offset
        self._address = address

    @property
    def address(self) -> int | None:
        """Physical address of the first byte, or None if it was not given."""
        return self._address

    @property
    def mapping(self) -> mmap.mmap:
        """The mapping, whose first byte is that of the first page. ClosedError: the region was closed."""
        if self.closed:
            raise ClosedError(f"{self.name} is closed")
        return self._mmio.mapping

    @property
    def page_offset(self) -> int:
        """Where in `mapping` the region starts, in bytes."""
        return self._page_offset

    @property
    def mmio(self) -> MMIO:
        """The periphery object, for code that was written for periphery.

        periphery's accesses are not exact, and in the processor's byte order.

        Raises:
            MappingError: the BAR does not start at the start of its page, so periphery cannot reach it.
            ClosedError: the region was closed.
        """
        if self.closed:
            raise ClosedError(f"{self.name} is closed")
        if self._page_offset:
            raise MappingError(
                errno.EOPNOTSUPP,
                f"{self.name} starts {self._page_offset:#x} bytes into its page, where periphery cannot reach it: its "
                "offset 0 is another register; use the region's own methods",
            )
        return self._mmio

    @property
    def file_and_offset(self) -> tuple[int, int]:
        """Over VFIO: the descriptor of the function's file, which stays the device's, and where in it the BAR starts.

        A process that inherits the descriptor can map the BAR; VFIO keeps the device until it has unmapped it.
        AttributeError: the region maps a file that anyone may open by its path.
        """
        from pyuio.region.mapping import RevocableMapping

        if not isinstance(self._mmio, RevocableMapping):
            raise AttributeError(f"{self.name} is no part of a device's file; anyone may map its own")
        return self._mmio.file, self._mmio.offset

    def reach(self, offset: int, stack: ExitStack) -> tuple[int, int, bool]:
        """Return where and how native code reads and writes a register until `stack` is closed.

        Returns:
            -1, for memory; the address; and whether the register's bytes are in the other order than the processor's.

        Raises:
            ClosedError: the region was closed.
            DeviceRemovedError: the device is gone.
        """
        if self.closed:
            raise ClosedError(f"{self.name} is closed")
        if self.presence is not None:
            self.presence.require()
        try:
            memory = stack.enter_context(memoryview(self._mmio.mapping))  # so that it is not unmapped meanwhile
        except (TypeError, ValueError):  # another thread has closed it since the look above
            raise ClosedError(f"{self.name} is closed") from None
        return -1, pointer(memory) + self._page_offset + offset, self.endian != sys.byteorder

    def let_go(self) -> None:
        """Unmap the BAR of a device that is gone, for VFIO; accesses raise `DeviceRemovedError`."""
        self._mmio.let_go()

    def inherit(self) -> None:
        """Let children that are forked from now on use the region: `pyuio.Device.let_children_access`."""
        self._mmio.inherit()

    def forget(self) -> None:
        """In a forked child of a process that has the device by VFIO: close the region, unless it was inherited."""
        if not self._mmio.inherited:
            self._mmio.forget()
            self.close()

    def close(self) -> None:
        """Unmap the BAR. Accesses raise ClosedError afterwards; a second close does nothing.

        If the program has taken a view of the memory from `mmio`, the memory stays mapped until the view is gone; or,
        over VFIO, until the device is closed: then the view shows zeros.
        """
        super().close()
        with contextlib.suppress(BufferError):
            self._mmio.close()
