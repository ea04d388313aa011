# SPDX-License-Identifier: MIT
"""The free ranges of a piece of memory: allocation is first fit, and neighbours that become free are joined."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class FreeRanges:
    """The free ranges of `size` bytes that start at a bus address, to which alignment and limit apply.

    Each change is one assignment to one list. So an exception in its middle, such as Ctrl-C's, leaves the list either
    unchanged or changed completely.

    Args:
        address: the bus address of the first byte.
        size: in bytes.
        taken: offsets and sizes of the ranges that are not free; they do not overlap.
    """

    def __init__(self, address: int, size: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        self._address = address
        self._size = size
        # [start, end) as offsets from the first byte; sorted, and none touches another.
        self._ranges: list[tuple[int, int]] = []
        start = 0
        for offset, length in [*sorted(taken), (size, 0)]:
            if start < offset:
                self._ranges.append((start, offset))
            start = offset + length

    @property
    def untouched(self) -> bool:
        """Whether all of it is free."""
        return self._ranges == [(0, self._size)]

    def take(self, size: int, align: int, mask: int, least: int = 0) -> int | None:
        """Take the first range that fits and return its offset; None when no range fits.

        Args:
            size: in bytes, at least 1.
            align: its bus address is a multiple of this; a power of two.
            mask: no bus address in it is above this.
            least: nor below this.
        """
        for index, (start, end) in enumerate(self._ranges):
            first = -(-max(self._address + start, least) // align) * align - self._address
            last = first + size
            if last > end:
                continue
            if self._address + last - 1 > mask:
                return None  # and all that follow are above it, too
            # What remains before and after it stays free.
            self._ranges[index : index + 1] = [(a, b) for a, b in ((start, first), (last, end)) if a < b]
            return first
        return None

    def give(self, offset: int, size: int) -> None:
        """Free a range that `take` returned, of that size."""
        start, end = offset, offset + size
        first = last = bisect_left(self._ranges, (offset, 0))
        if last < len(self._ranges) and self._ranges[last][0] == end:
            end = self._ranges[last][1]
            last += 1
        if first > 0 and self._ranges[first - 1][1] == offset:
            first -= 1
            start = self._ranges[first][0]
        self._ranges[first:last] = [(start, end)]
