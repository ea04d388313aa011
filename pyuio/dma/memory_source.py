# SPDX-License-Identifier: MIT
"""Where the memory of a `Dma` comes from: the interface of a source, and of the pages that it gives.

Each way to a device has its own source: `pyuio.dma.physical_memory`, where a bus address is a physical one, and
`pyuio.dma.iommu_memory`, where an IOMMU translates.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pyuio._native._memory import Span
    from pyuio.dma.free_ranges import FreeRanges


class Page(Protocol):
    """A piece of memory that stays in place until it is released. Buffers are parts of it.

    Attributes:
        free: the parts that belong to no buffer.
    """

    free: FreeRanges

    @property
    def memory(self) -> Span | mmap.mmap | memoryview:
        """Its mapping."""

    @property
    def address(self) -> int:
        """The bus address of its first byte."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def shared(self) -> bool:
        """Whether it has one range of bus addresses, with room for several buffers. Else it has one buffer only."""

    @property
    def lasting(self) -> bool:
        """Whether it may be kept for the next buffer when it has none."""

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of each piece of a part, in order."""

    def verify(self, offset: int, size: int) -> None:
        """Look the bus addresses of a part up again. DmaMovedError: they have changed."""

    def forget(self) -> None:
        """In a forked child: map zeros where the memory is missing, so that views of it do not crash."""

    def let_go(self) -> None:
        """In a forked child, once the device's files are closed there: keep nothing of the memory."""


P = TypeVar("P", bound=Page)


class MemorySource(Protocol[P]):
    """The source of the pages of one `Dma`, which calls it with its lock locked."""

    @property
    def guarded(self) -> bool:
        """Whether the device cannot reach what was released, even as a bus master."""

    def require_usable(self) -> None:
        """Refuse a device that would not reach the memory. DmaUnavailableError: it would not."""

    def page(self, size: int, align: int, mask: int) -> P:
        """Return a new page in which a buffer has room; the caller releases it.

        Args:
            size: of the buffer, in bytes.
            align: its bus address is a multiple of this; a power of two.
            mask: no bus address in it is above this.

        Raises:
            DmaMemoryError: there is no such memory; the message says why, and what to do.
        """

    def scattered(self, size: int, mask: int) -> P:
        """Return a new page in which a buffer has room, in pieces that have addresses of their own; else as `page`."""

    def map(self, memory: Buffer, mask: int) -> Any:
        """Return the pages around memory that the program has; attribute ``offset`` is of its first byte in them.

        The arguments and errors are those of `Dma.map`.
        """

    def release(self, page: P) -> None:
        """Give a page back. Memory that views still export stays until they are gone, as ordinary memory."""

    def keep_only(self, pages: Iterable[Page]) -> None:
        """Release all pages but these: an exception, such as Ctrl-C's, may have kept one from its caller."""

    def close(self) -> None:
        """Give back what else the source has."""
