# SPDX-License-Identifier: MIT
"""Memory for DMA behind an IOMMU: ordinary memory of this process, at bus addresses that VFIO maps it to.

The kernel pins what is mapped, and the IOMMU keeps the device from everything else. When the process ends, however it
ends, the kernel unmaps the memory before it frees it, because a mapping has a reference to each page. So neither order
nor hugepages matter here, and nobody needs to know a physical address.

Sources: Documentation/driver-api/vfio.rst; ``drivers/vfio/vfio_iommu_type1.c``; ``drivers/iommu/iommufd/pages.c``.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyuio._native._memory import Span, fill_hole, pointer, set_dontfork
from pyuio.dma.address_space import AddressSpace
from pyuio.dma.bus_addresses import LARGE_PAGE
from pyuio.dma.free_ranges import FreeRanges
from pyuio.errors import DeviceRemovedError, DmaMemoryError
from pyuio.kernel import privilege
from pyuio.kernel.memory_use import available, lock_limit

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pyuio.dma.memory_source import Page

# In bytes. Small buffers share a mapping of this size: a mapping costs a call of the kernel, and there can be 65,535.
_SEGMENT = LARGE_PAGE


class OwnMemory:
    """Memory of this process's own, in one mapping; see `Page`. Forked children have neither a copy nor a mapping.

    Args:
        size: in bytes, a multiple of a page.

    Raises:
        OSError: there is not so much memory (ENOMEM).
    """

    shared = True

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = 0
        self.free = FreeRanges(0, size)
        self.lasting = size <= _SEGMENT
        large = size >= LARGE_PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._mapping = mmap.mmap(-1, size + (LARGE_PAGE if large else 0), flags=flags)
        # Aligned, so that the kernel can give large pages, which are large pages for the IOMMU, too.
        start = -pointer(self._mapping) % LARGE_PAGE if large else 0
        self.memory = Span(self._mapping, start, size)
        set_dontfork(self.memory, True)

    def place(self, address: int) -> None:
        """Say at which bus address it was mapped."""
        self.address = address
        self.free = FreeRanges(address, self.size)

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of a part, in a list."""
        return [(self.address + offset, size)]

    def verify(self, offset: int, size: int) -> None:
        """Do nothing: the bus address is this process's own choice, and the kernel keeps what is at it."""

    def forget(self) -> None:
        """In a forked child: map zeros where the memory is missing, so that views of it do not crash."""
        with contextlib.suppress(OSError):  # something else is mapped there already; then this mapping stays for good
            fill_hole(self.memory)

    def let_go(self) -> None:
        """In a forked child: do nothing, as the mapping for the device belongs to files that are closed."""

    def close(self) -> None:
        """Free the memory. What views still export stays until they are gone."""
        if self.memory.exports:
            set_dontfork(self.memory, False)  # forget() will not fill the hole any more
        self.memory.close()
        with contextlib.suppress(BufferError):
            self._mapping.close()


class ProgramMemory:
    """Memory that the program had already, with the rest of its first and of its last page; see `Page`.

    Args:
        memory: a writable buffer without gaps.

    Raises:
        BufferError, ValueError, TypeError: as `Dma.map`.
    """

    shared = False
    lasting = False

    def __init__(self, memory: Buffer) -> None:
        view = memoryview(memory)
        if view.readonly:
            raise BufferError("the memory is read-only; copy it into a buffer of alloc()")
        if not view.c_contiguous:
            raise BufferError("the memory has gaps (it is not C-contiguous); copy it into a buffer of alloc()")
        if not view.nbytes:
            raise ValueError("the memory has no bytes")
        self.memory = view.cast("B")
        start = pointer(self.memory)
        self.offset = start % mmap.PAGESIZE
        """Of the first byte in its page."""
        self.size = -(-(self.offset + view.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.start = start - self.offset
        """The address of its first page in this process."""
        self.address = 0
        self.free = FreeRanges(0, self.size, [(0, self.size)])

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of a part, in a list."""
        return [(self.address + offset, size)]

    def verify(self, offset: int, size: int) -> None:
        """Do nothing, as `OwnMemory.verify`."""

    def forget(self) -> None:
        """In a forked child: do nothing. The child has a copy of the memory, as of all memory."""

    def let_go(self) -> None:
        """Let the program have its memory back. It stays exported while views of the buffer exist."""
        with contextlib.suppress(BufferError):
            self.memory.release()

    close = let_go


class IommuMemory:
    """The memory of one `Dma` whose device is behind an IOMMU; see `MemorySource`.

    Args:
        name: of the device, for messages.
        space: the bus addresses of the device's container.
    """

    guarded = True
    own_memory: type[OwnMemory] = OwnMemory

    def __init__(self, name: str, space: AddressSpace) -> None:
        self._name = name
        self._space = space
        self._mapped: set[OwnMemory | ProgramMemory] = set()

    def require_usable(self) -> None:
        """Do nothing: the device reaches what is mapped."""

    def page(self, size: int, align: int, mask: int) -> OwnMemory:
        """Return new memory, larger than a small buffer so that others have room in it, unless so much is refused."""
        unit = self._space.unit
        exact = -(-size // unit) * unit
        if exact < _SEGMENT:
            with contextlib.suppress(DmaMemoryError):
                return self._segment(_SEGMENT, size, align, mask)
        return self._segment(exact, size, align, mask)

    def _segment(self, size: int, wanted: int, align: int, mask: int) -> OwnMemory:
        tried = f"{self._name}: no memory for DMA of {wanted} bytes up to {mask:#x}"
        free = available()
        if size > free:  # the kernel would end programs to make room
            raise DmaMemoryError(f"{tried}: the kernel has {free} bytes left")
        try:
            segment = self.own_memory(size)
        except OSError as error:
            raise DmaMemoryError(f"{tried}: {os.strerror(error.errno or 0)}") from error
        segment.place(self._map(segment, pointer(segment.memory), size, align, mask, tried))
        return segment

    def scattered(self, size: int, mask: int) -> OwnMemory:
        """Return new memory, which is in one piece."""
        return self.page(size, 1, mask)

    def map(self, memory: Buffer, mask: int) -> ProgramMemory:
        """Return memory of the program, mapped."""
        mine = ProgramMemory(memory)
        tried = f"{self._name}: no mapping for DMA of {mine.size} bytes of memory up to {mask:#x}"
        mine.address = self._map(mine, mine.start, mine.size, 1, mask, tried)
        return mine

    def _map(self, page: OwnMemory | ProgramMemory, memory: int, size: int, align: int, mask: int, tried: str) -> int:
        self._mapped.add(page)  # first, because an exception may come after the mapping
        try:
            return self._space.map(page, memory, size, align, mask)
        except DmaMemoryError as error:
            self.release(page)
            raise DmaMemoryError(f"{tried}: {error}") from None
        except (OSError, ValueError) as error:
            self.release(page)
            raise self._refusal(error, size, tried) from error

    def _refusal(self, error: OSError | ValueError, size: int, tried: str) -> Exception:
        """Return the error that says why the kernel did not map memory."""
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        if number in (errno.EBADF, errno.ENOTTY, errno.ENODEV):  # the container was closed when the device was let go
            return DeviceRemovedError(errno.ENODEV, f"{tried}: the device was removed or unbound")
        if number == errno.ENOMEM:
            if used := self._space.over_limit(size):
                return DmaMemoryError(
                    f"{tried}: the limit of locked memory (ulimit -l) is {lock_limit()} bytes, of which {used}. "
                    f"{privilege.remedy(privilege.CAP_IPC_LOCK, 'memlock', 'unlimited')}"
                )
            return DmaMemoryError(f"{tried}: the kernel has no memory left")
        if number == errno.ENOSPC:
            return DmaMemoryError(
                f"{tried}: the container is full, with {len(self._mapped)} mappings of this device; map fewer "
                "and larger pieces, or raise the limit (the parameter dma_entry_limit of the module vfio_iommu_type1)"
            )
        if number == errno.EFAULT:
            return DmaMemoryError(
                f"{tried}: the kernel cannot pin it, as it cannot what is not there, or on newer kernels a file on a "
                "disk; copy it into a buffer of alloc()"
            )
        return DmaMemoryError(f"{tried}: {error}")

    def release(self, page: OwnMemory | ProgramMemory) -> None:
        """Unmap memory, then free it, or let the program have it back."""
        self._space.unmap(page)
        page.close()
        self._mapped.discard(page)

    def keep_only(self, pages: Iterable[Page]) -> None:
        """Release what an exception has kept from its caller."""
        for page in self._mapped.difference(pages):
            self.release(page)

    def close(self) -> None:
        """Release what is left."""
        self.keep_only(())
