# SPDX-License-Identifier: MIT
"""Memory that a kernel driver allocated for a device, and gave to this process with its bus address.

`pyuio.dma.Dma.adopt` takes it. Such drivers are ``drivers/uio/uio_dmem_genirq.c``, whose dynamic regions are maps of a
UIO node, and u-dma-buf.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, SupportsIndex

from pyuio.dma.buffer import CACHE_LINE
from pyuio.dma.free_ranges import FreeRanges
from pyuio.region import Region

if TYPE_CHECKING:
    from typing_extensions import Buffer

_HIGHEST = (1 << 64) - 1


class AdoptedMemory:
    """Memory that belongs to a kernel driver; see `pyuio.dma.memory_source.Page`.

    Attributes:
        memory: the writable buffer that it is a part of.
        offset: where in `memory` it starts, in bytes.
        address: its bus address.
        size: in bytes.
        free: no part of it is free for another buffer.

    Args:
        memory: a region of a UIO node, or a writable buffer, such as an `mmap.mmap`.
        address: the bus address of its first byte, as the kernel driver says.

    Raises:
        ValueError: it is empty, or not within 64 bits of address.
        TypeError: it is neither a region nor a buffer in one piece.
        BufferError: it is read-only.
        ClosedError: the region is closed.
    """

    memory: Any  # a buffer
    shared = False
    lasting = False

    def __init__(self, memory: Region | Buffer, address: SupportsIndex) -> None:
        self.address = operator.index(address)
        if isinstance(memory, Region):
            self.memory, self.offset, self.size = memory.mapping, memory.page_offset, memory.size
        else:
            with memoryview(memory) as view:
                if view.readonly:
                    raise BufferError("memory to adopt for DMA must be writable, not read-only")
                if not view.c_contiguous:
                    raise TypeError("memory to adopt for DMA must be in one piece")
                self.memory, self.offset, self.size = memory, 0, view.nbytes
        if self.size < 1:
            raise ValueError("memory to adopt for DMA has at least 1 byte")
        if not 0 <= self.address <= _HIGHEST + 1 - self.size:
            raise ValueError(f"{self.size} bytes at bus address {self.address:#x} are not within 64 bits")
        occupied = -(-self.size // CACHE_LINE) * CACHE_LINE
        self.free = FreeRanges(self.address, occupied, [(0, occupied)])

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of a part, in a list."""
        return [(self.address + offset, size)]

    def verify(self, offset: int, size: int) -> None:
        """Do nothing: only its kernel driver knows where it is, and does not move it."""

    def forget(self) -> None:
        """Do nothing: a forked child shares it."""

    def let_go(self) -> None:
        """Do nothing: this process does not hold it in place."""
