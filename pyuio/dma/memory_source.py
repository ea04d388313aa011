# SPDX-License-Identifier: MIT
"""Where the memory of a `Dma` comes from: the interface of a source, and of the pages that it gives.

Each way to a device has its own source: `pyuio.dma.physical_memory` where a bus address is a physical one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pyuio._native._memory import Span
    from pyuio.dma.free_ranges import FreeRanges


class Page(Protocol):
    """A piece of memory in one range of bus addresses, in place until it is released. Buffers are parts of it.

    Attributes:
        free: the parts that belong to no buffer.
    """

    free: FreeRanges

    @property
    def memory(self) -> Span | mmap.mmap:
        """Its mapping."""

    @property
    def address(self) -> int:
        """The bus address of its first byte."""

    @property
    def size(self) -> int:
        """In bytes."""

    def verify(self, offset: int, size: int) -> None:
        """Look the bus addresses of a part up again. DmaMovedError: they have changed."""

    def forget(self) -> None:
        """In a forked child: map zeros where the memory is missing, so that views of it do not crash."""

    def unpin(self) -> None:
        """Let the kernel move it: nobody gives its address to a device any more."""


P = TypeVar("P", bound=Page)


class MemorySource(Protocol[P]):
    """The source of the pages of one `Dma`, which calls it with its lock locked."""

    def require_usable(self) -> None:
        """Refuse a device that would not reach the memory. DmaUnavailableError: it would not."""

    def pages(self, size: int, align: int, mask: int) -> Iterator[P]:
        """Yield new pages that may have room for a buffer, as long as there are any; the caller releases each.

        Args:
            size: of the buffer, in bytes.
            align: its bus address is a multiple of this; a power of two.
            mask: no bus address in it is above this.
        """

    def why_none(self, size: int, align: int, mask: int, unsuitable: list[P]) -> str:
        """Return why there is no memory for a buffer, and what to do.

        Args:
            size: as for `pages`.
            align: as for `pages`.
            mask: as for `pages`.
            unsuitable: what `pages` yielded, in which the buffer has no room.
        """

    def release(self, page: P) -> None:
        """Give a page back. Memory that views still export stays until they are gone, as ordinary memory."""

    def close(self) -> None:
        """Give back what else the source has."""
