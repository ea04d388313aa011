# SPDX-License-Identifier: MIT
"""A pool of equal buffers for DMA. `pyuio.dma.Dma.pool` makes it."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from pyuio.dma.buffer import CACHE_LINE, DmaBuffer
from pyuio.errors import ClosedError, DmaMemoryError
from pyuio.kernel.hugepages import hugepages


class DmaPool:
    """Buffers of equal size, which a program takes and gives back without asking the kernel. `Dma.pool` makes it.

    A buffer that is taken holds what it held when it was given back; at first, zeros. Closing a buffer does not give it
    back.
    """

    def __init__(self, wholes: list[DmaBuffer], buffers: list[DmaBuffer]) -> None:
        self.wholes = wholes
        self._free = buffers
        self._taken: set[DmaBuffer] = set()
        self._count = len(buffers)

    def __len__(self) -> int:
        """How many buffers can be taken."""
        return len(self._free)

    def take(self) -> DmaBuffer:
        """Return a buffer that is free. DmaMemoryError: there is none; ClosedError: the pool is closed."""
        try:
            buffer = self._free.pop()
        except IndexError:
            if not self.wholes:
                raise ClosedError("the pool is closed") from None
            raise DmaMemoryError(f"all {self._count} buffers of the pool are taken; give some back") from None
        self._taken.add(buffer)
        return buffer

    def give(self, buffer: DmaBuffer) -> None:
        """Take a buffer back, closed or not.

        Raises:
            ValueError: it was given back already, or does not belong to the pool.
            ClosedError: the pool is closed.
        """
        try:
            self._taken.remove(buffer)
        except KeyError:
            if not self.wholes:
                raise ClosedError("the pool is closed") from None
            raise ValueError(f"{buffer!r} was not taken from this pool, or was given back already") from None
        if buffer.closed and buffer.whole is not None:  # a with statement closed it: slice the same part again
            start = buffer.offset_in_page - buffer.whole.offset_in_page
            buffer = buffer.whole[start : start + buffer.size]
        self._free.append(buffer)

    def close(self) -> None:
        """Close all buffers, taken or not. A second close does nothing."""
        wholes, self.wholes = self.wholes, []
        self._free.clear()
        self._taken.clear()
        for whole in wholes:
            whole.close()

    def __enter__(self) -> DmaPool:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def allocate_pool(alloc: Callable[[int], DmaBuffer], count: int, size: int, align: int) -> DmaPool:
    """Return a pool whose buffers are slices of as few allocations as possible.

    Args:
        alloc: allocates so many bytes with the alignment `align`.
        count: how many buffers, at least 1.
        size: of each, in bytes, at least 1.
        align: of each, in bytes; a power of two.

    It raises the errors of `alloc`; then it has closed what it allocated.
    """
    step = -(-size // max(align, CACHE_LINE)) * max(align, CACHE_LINE)
    # How many buffers one allocation has: as many as fit the smallest hugepage that holds one; without it, one page.
    numbers = [max(1, huge.size // step) for huge in hugepages() if huge.size >= step] + [mmap.PAGESIZE // step]
    wholes: list[DmaBuffer] = []
    buffers: list[DmaBuffer] = []
    try:
        while len(buffers) < count:
            number = min(numbers[0] or 1, count - len(buffers))
            try:
                whole = alloc(number * step)
            except DmaMemoryError:
                if len(numbers) == 1 or numbers[-1] == 0:
                    raise
                numbers = numbers[-1:]
                continue
            wholes.append(whole)
            buffers += [whole[index * step : index * step + size] for index in range(number)]
    except BaseException:
        for whole in wholes:
            whole.close()
        raise
    buffers.reverse()  # taken from the end: lowest address first
    return DmaPool(wholes, buffers)
