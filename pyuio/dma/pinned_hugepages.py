# SPDX-License-Identifier: MIT
"""Several hugepages in one mapping, pinned as `pyuio.dma.pinned_page` says: adjacent ones, or ones from anywhere.

The kernel gives hugepages one by one, in no order that it promises. So a file in memory takes more of them than are
needed; their physical addresses tell which of them are neighbours; those are mapped in the order of their addresses;
and the file gives the rest back.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Callable, Iterator

from pyuio._native._memory import map_file_over, pointer, punch_hole, set_dontfork
from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.pinned_page import Pinned, pin, require_in_place
from pyuio.kernel.hugepages import HugepageSize, size_flag
from pyuio.kernel.pagemap import frame_numbers

Choice = Callable[[list[int]], list[int] | None]


def adjacent(addresses: list[int], size: int, count: int, align: int, mask: int) -> list[int] | None:
    """Return the indices of the lowest pages that follow one another, in that order; None if there are none.

    Args:
        addresses: of the pages, in any order.
        size: of each page, in bytes.
        count: how many to find.
        align: the first address is a multiple of this; a power of two.
        mask: no address in them is above this.
    """
    run: list[int] = []
    for index in sorted(range(len(addresses)), key=addresses.__getitem__):
        if run and addresses[index] != addresses[run[-1]] + size:
            run = []
        if run or addresses[index] % align == 0:
            run.append(index)
        if len(run) == count:
            return run if addresses[index] + size - 1 <= mask else None
    return None


def below(addresses: list[int], size: int, count: int, mask: int) -> list[int] | None:
    """Return the indices of `count` pages that are not above the mask, by address; None if there are not so many."""
    low = [index for index, address in enumerate(addresses) if address + size - 1 <= mask]
    return sorted(low, key=addresses.__getitem__)[:count] if len(low) >= count else None


def joined(addresses: list[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the address and the size of each run of pages that follow one another, in the order given."""
    start = end = addresses[0]
    for address in addresses:
        if address != end:
            yield start, end - start
            start = address
        end = address + size
    yield start, end - start


class PinnedHugepages(Pinned):
    """Hugepages of one kind, present and pinned, one behind the other in one mapping; see `PinnedPage`.

    Attributes:
        huge: their size.
        count: how many.
        memory: the mapping.
        address: the bus address of the first.
        size: of all, in bytes.
        shared: whether they are adjacent, and so have one range of bus addresses.

    Args:
        huge: the size.
        total: how many to take from the kernel, of which the choice leaves some.
        choice: gets the addresses of all and returns the indices of those to keep, in the order in which they are
            mapped; or None.
        shared: whether those that it returns are adjacent.

    Raises:
        LookupError: the choice returned None.
        OSError: so many are not free (errno ENOMEM or EFAULT).
        PermissionDeniedError: this user may not know physical addresses.
    """

    lasting = False

    def __init__(self, huge: HugepageSize, total: int, choice: Choice, *, shared: bool) -> None:
        self.huge = huge
        self.shared = shared
        kind = os.MFD_CLOEXEC | os.MFD_HUGETLB | size_flag(huge.size)
        with io.FileIO(os.memfd_create("pyuio", kind), "r+") as file, contextlib.ExitStack() as stack:
            os.ftruncate(file.fileno(), total * huge.size)
            everything = stack.enter_context(mmap.mmap(file.fileno(), total * huge.size))
            set_dontfork(everything, True)
            stack.enter_context(pin(everything, huge.size))
            addresses = []
            start = pointer(everything)
            for offset in range(0, len(everything), huge.size):
                everything[offset] = 0  # puts the page into the page table, which pagemap shows
                (number,) = frame_numbers(start + offset, 1)
                addresses.append((number or 0) * mmap.PAGESIZE)
            chosen = choice(addresses)
            if chosen is None:
                raise LookupError
            self.count = len(chosen)
            self.size = self.count * huge.size
            self.memory = mmap.mmap(file.fileno(), self.size)
            try:
                set_dontfork(self.memory, True)
                with memoryview(self.memory) as view:
                    for place, index in enumerate(chosen):
                        with view[place * huge.size : (place + 1) * huge.size] as page:
                            map_file_over(page, file.fileno(), index * huge.size)
                            set_dontfork(page, True)
                self._pin = pin(self.memory, huge.size)
                self._start = pointer(self.memory)
                self._pieces = list(joined([addresses[index] for index in chosen], huge.size))
                self.address = self._pieces[0][0]
                require_in_place(self.memory, self._start, 0, self._pieces, huge.size)
                for index in set(range(total)).difference(chosen):
                    punch_hole(file.fileno(), index * huge.size, huge.size)
            except BaseException:
                self.unpin()
                self.memory.close()
                raise
        self.free = FreeRanges(self.address, self.size, [] if shared else [(0, self.size)])

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of each piece of a part."""
        found = []
        start = 0
        for address, length in self._pieces:
            first, last = max(start, offset), min(start + length, offset + size)
            if first < last:
                found.append((address + first - start, last - first))
            start += length
        return found

    def verify(self, offset: int, size: int) -> None:
        """Look the bus addresses of a part up again. DmaMovedError: they have changed."""
        require_in_place(self.memory, self._start, offset, self.pieces(offset, size), self.huge.size)
