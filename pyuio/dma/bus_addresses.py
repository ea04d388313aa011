# SPDX-License-Identifier: MIT
"""The free bus addresses of an IOMMU: from which place on they are given out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyuio.dma.free_ranges import FreeRanges

# In bytes. Memory that is aligned to it on both sides takes one entry of an IOMMU instead of 512.
LARGE_PAGE = 2 << 20
# Where there is room for so many starts that are multiples of LARGE_PAGE, nobody guesses which one it is.
_STARTS = 4096


class BusAddresses:
    """The free ranges of bus addresses. They are given out from a start on, and from below it when that is full.

    Address 0 and the rest of its page are given to nobody, because cards and their drivers take 0 for "nothing there".

    Args:
        ranges: those that the IOMMU translates: the first and the last address of each, in ascending order.
        unit: each range that is given out starts and ends at a multiple of this.
        start: any number; it chooses the start, in the lowest quarter of what a mask leaves. The other three quarters
            stay in one piece for large buffers.
        taken: addresses and sizes of the ranges that are not free.
    """

    def __init__(
        self, ranges: Sequence[tuple[int, int]], unit: int, start: int, taken: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._unit = unit
        self._start = start
        holes = []
        end = 0
        for first, last in ranges:
            begin = -(-max(first, unit) // unit) * unit
            holes.append((end, begin - end))
            end = (last + 1) // unit * unit
        self._end = end
        self._free = FreeRanges(0, end, [*holes, *taken])

    def take(self, size: int, align: int, mask: int) -> int | None:
        """Take a range and return its first address; None when no range fits.

        Args:
            size: in bytes, a multiple of the unit.
            align: the address is a multiple of this; a power of two.
            mask: no address in the range is above this.
        """
        align = max(align, self._unit)
        room = min(mask + 1, self._end) // 4
        least = self._start % max(1, room // self._unit) * self._unit
        large = max(align, LARGE_PAGE) if size >= LARGE_PAGE and room >= _STARTS * LARGE_PAGE else align
        for start, alignment in ((least, large), (least, align), (0, align)):
            address = self._free.take(size, alignment, mask, start)
            if address is not None:
                return address
        return None

    def give(self, address: int, size: int) -> None:
        """Free a range that `take` returned, of that size."""
        self._free.give(address, size)
