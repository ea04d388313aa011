# SPDX-License-Identifier: MIT
"""The sources of pages for DMA: ordinary pages, and hugepages, more of which the kernel sets aside for root."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator

from pyuio.dma.pinned_page import PinnedPage, pinned_pages
from pyuio.kernel.hugepages import HugepageSize, hugepages

# How many ordinary pages, and bytes of hugepages beyond those that were free, are tried to find one below the mask.
_PAGES_LOOKED_AT = 1024
_BYTES_RESERVED = 128 << 20


class PageSource:
    """The pages of one `Dma`, and the hugepages that the kernel sets aside because of it."""

    def __init__(self) -> None:
        self._reserved: dict[HugepageSize, int] = {}

    def pages(self, least: int) -> Iterator[PinnedPage]:
        """Yield new pages of at least `least` bytes as long as there are any; the caller keeps or releases each."""
        for index, huge in enumerate(huge for huge in hugepages() if huge.size >= least):
            yield from pinned_pages(huge)
            # More of the smallest size only: it can take the kernel seconds to find a larger one.
            for _ in range(max(1, _BYTES_RESERVED // huge.size) if index == 0 else 0):
                if not self._reserve(huge):
                    break
                yield from itertools.islice(pinned_pages(huge), 1)
        if least <= mmap.PAGESIZE:
            yield from itertools.islice(pinned_pages(None), _PAGES_LOOKED_AT)

    def _reserve(self, huge: HugepageSize) -> bool:
        """Make the kernel set one more hugepage aside; return whether it did."""
        before = huge.set_aside
        self._reserved[huge] = self._reserved.get(huge, 0) + 1  # first, because an exception may come after the change
        try:
            return huge.change(1)
        finally:
            if huge.set_aside <= before:
                self._reserved[huge] -= 1

    def release(self, page: PinnedPage) -> None:
        """Close a page, and give a hugepage that was set aside for this source back to the kernel."""
        page.close()
        huge = page.huge
        if huge is not None and self._reserved.get(huge, 0) > 0:
            before = huge.set_aside
            try:
                huge.change(-1)
            finally:  # where an exception came before the change, close() makes it
                if huge.set_aside < before:
                    self._reserved[huge] -= 1

    def close(self) -> None:
        """Give the rest of the hugepages that were set aside for this source back to the kernel."""
        for huge, count in self._reserved.items():
            if count:
                huge.change(-count)
