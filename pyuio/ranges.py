# SPDX-License-Identifier: MIT
"""Which parts of a piece of memory are free: first fit, and neighbours that become free are joined."""

from __future__ import annotations

from bisect import bisect_left


class FreeRanges:
    """The free ranges of `size` bytes that start at a bus address, which is what alignment and limit are about.

    Args:
        address: of the first byte, on the bus.
        size: in bytes.
    """

    def __init__(self, address: int, size: int) -> None:
        self._address = address
        self._size = size
        # Sorted, and apart from each other: [start, end) as offsets from the first byte.
        self._starts = [0]
        self._ends = [size]

    @property
    def untouched(self) -> bool:
        """Whether all of it is free."""
        return self._starts == [0] and self._ends == [self._size]

    def take(self, size: int, align: int, mask: int) -> int | None:
        """Take the first range that fits and return its offset, or None when there is none.

        Args:
            size: in bytes, at least 1.
            align: what its bus address is a multiple of; a power of two.
            mask: what no bus address in it may be above.
        """
        for index, (start, end) in enumerate(zip(self._starts, self._ends, strict=True)):
            first = -(-(self._address + start) // align) * align - self._address
            last = first + size
            if last > end:
                continue
            if self._address + last - 1 > mask:
                return None  # and so is all that follows
            # What is left before and after it.
            rest = [(a, b) for a, b in ((start, first), (last, end)) if a < b]
            self._starts[index : index + 1] = [a for a, _ in rest]
            self._ends[index : index + 1] = [b for _, b in rest]
            return first
        return None

    def give(self, offset: int, size: int) -> None:
        """Give back what `take` returned, of that size."""
        end = offset + size
        index = bisect_left(self._starts, offset)
        if index < len(self._starts) and self._starts[index] == end:
            end = self._ends[index]
            del self._starts[index], self._ends[index]
        if index > 0 and self._ends[index - 1] == offset:
            self._ends[index - 1] = end
        else:
            self._starts.insert(index, offset)
            self._ends.insert(index, end)
