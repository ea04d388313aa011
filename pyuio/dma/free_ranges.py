# SPDX-License-Identifier: MIT
"""Which parts of a piece of memory are free: first fit, and neighbours that become free are joined."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable


class FreeRanges:
    """The free ranges of `size` bytes that start at a bus address, which is what alignment and limit are about.

    Each change is one assignment to one list, so that an exception that comes in the middle, Ctrl-C, finds it as it was
    before or as it is afterwards.

    Args:
        address: of the first byte, on the bus.
        size: in bytes.
        taken: offsets and sizes of what is not free, apart from each other.
    """

    def __init__(self, address: int, size: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        self._address = address
        self._size = size
        # Sorted, and apart from each other: [start, end) as offsets from the first byte.
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

    def take(self, size: int, align: int, mask: int) -> int | None:
        """Take the first range that fits and return its offset, or None when there is none.

        Args:
            size: in bytes, at least 1.
            align: what its bus address is a multiple of; a power of two.
            mask: what no bus address in it may be above.
        """
        for index, (start, end) in enumerate(self._ranges):
            first = -(-(self._address + start) // align) * align - self._address
            last = first + size
            if last > end:
                continue
            if self._address + last - 1 > mask:
                return None  # and so is all that follows
            # What is left before and after it.
            self._ranges[index : index + 1] = [(a, b) for a, b in ((start, first), (last, end)) if a < b]
            return first
        return None

    def give(self, offset: int, size: int) -> None:
        """Give back what `take` returned, of that size."""
        start, end = offset, offset + size
        first = last = bisect_left(self._ranges, (offset, 0))
        if last < len(self._ranges) and self._ranges[last][0] == end:
            end = self._ranges[last][1]
            last += 1
        if first > 0 and self._ranges[first - 1][1] == offset:
            first -= 1
            start = self._ranges[first][0]
        self._ranges[first:last] = [(start, end)]
