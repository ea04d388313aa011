# SPDX-License-Identifier: MIT
"""A sieve for pages: it keeps those that do not suit until one is found, or the kernel would offer them again."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.low_memory import spare
from pyuio.dma.ordinary_page import ordinary_page
from pyuio.dma.pinned_page import PinnedPage, pinned_pages
from pyuio.kernel.hugepages import HugepageSize
from pyuio.kernel.memory_use import group_room


class Sieve(contextlib.ExitStack):
    """Lets pages through in which a buffer has room; closes the others at the end of its ``with`` block.

    Attributes:
        hugepages, pages: how many were looked at that do not suit.
        limited: whether more ordinary pages would have been looked at, but for the room of the control group.

    Args:
        size: of the buffer, in bytes.
        align: its bus address is a multiple of this; a power of two.
        mask: no bus address in it is above this.
    """

    def __init__(self, size: int, align: int, mask: int) -> None:
        super().__init__()
        self._size, self._align, self._mask = size, align, mask
        self.hugepages = self.pages = 0
        self.limited = False

    def __enter__(self) -> Sieve:
        """Return itself."""
        return self

    def first_of(self, sizes: Iterable[HugepageSize], most: int | None = None) -> PinnedPage | None:
        """Return the first hugepage that suits, of these sizes, and keep those before it.

        Args:
            sizes: in this order.
            most: how many of each size are looked at; None for all that there are.
        """
        for huge in sizes:
            for page in itertools.islice(pinned_pages(huge), most):
                if self._suits(page.address, page.size):
                    return page
                self.hugepages += 1
                page.unpin()
                self.callback(page.close)
        return None

    def first_ordinary(self) -> PinnedPage | None:
        """Return an ordinary page that suits."""
        page, looked_at = ordinary_page(self._suits, self._spare_pages)
        self.pages += looked_at
        return page

    def _spare_pages(self) -> int:
        """Return how many bytes of ordinary pages a search may take: this process's control group pays for them."""
        room, most = group_room(), spare()
        self.limited = room is not None and room // 2 < most
        return min(most, room // 2) if room is not None else most

    def _suits(self, address: int, size: int) -> bool:
        if address > self._mask:
            return False
        return FreeRanges(address, size).take(self._size, self._align, self._mask) is not None
