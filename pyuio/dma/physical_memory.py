# SPDX-License-Identifier: MIT
"""Memory by its physical address: ordinary pages, and hugepages, of which the kernel sets aside more for root."""

from __future__ import annotations

import errno
import itertools
import mmap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.pinned_hugepages import PinnedHugepages, adjacent, below
from pyuio.dma.pinned_page import PinnedPage, pinned_pages
from pyuio.errors import DmaMemoryError, DmaUnavailableError
from pyuio.kernel.hugepages import HugepageSize, hugepages, why_none
from pyuio.kernel.memory_use import available
from pyuio.kernel.vfio import translating_type
from pyuio.process.signals import postponed_signals

if TYPE_CHECKING:
    from typing_extensions import Buffer

# How many ordinary pages, and bytes of hugepages beyond those that were free, are tried to find one below the mask.
_PAGES_LOOKED_AT = 1024
_BYTES_RESERVED = 128 << 20


class PhysicalMemory:
    """The pages of one `Dma`, and the hugepages that the kernel sets aside because of it; see `MemorySource`.

    Args:
        name: of the device, for messages.
        directory: of the device in sysfs; None for memory without a device.
    """

    guarded = False

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._name = name
        self._directory = directory
        self._reserved: dict[HugepageSize, int] = {}

    def require_usable(self) -> None:
        """Refuse a device for which an IOMMU translates: there a physical address is not the bus address."""
        if self._directory and (kind := translating_type(self._directory)) is not None:
            raise DmaUnavailableError(
                errno.EOPNOTSUPP,
                f"memory for DMA of {self._name}: its IOMMU translates (iommu_group/type is {kind}), so the device "
                "would not reach it; boot with iommu=pt on the kernel's command line, or use VFIO",
            )

    def page(self, size: int, align: int, mask: int) -> PinnedPage | PinnedHugepages:
        """Return a new page, or adjacent hugepages, physically contiguous, with room for a buffer."""
        # Pages above the mask are kept meanwhile, or the kernel would offer them again and again.
        unsuitable: list[PinnedPage] = []
        try:
            for page in self._single_pages(max(size, align)):
                if FreeRanges(page.address, page.size).take(size, align, mask) is not None:
                    return page
                page.unpin()
                unsuitable.append(page)
        finally:
            for page in unsuitable:
                self.release(page)
        tried = f"{self._name}: no memory for DMA of {size} bytes aligned to {align} up to {mask:#x}"
        sizes = hugepages()
        if sizes and sizes[0].size < max(size, align):

            def choice(huge: HugepageSize, count: int, addresses: list[int]) -> list[int] | None:
                return adjacent(addresses, huge.size, count, max(align, huge.size), mask)

            return self._several(size, choice, f"{tried}: it takes adjacent hugepages", shared=True)
        if not unsuitable:
            raise DmaMemoryError(f"{tried}: {why_none(max(size, align))}")
        pages = sum(page.huge is None for page in unsuitable)
        raise DmaMemoryError(
            f"{tried}: {len(unsuitable) - pages} hugepages and {pages} pages were looked at, and none is below; "
            "close what has the low ones, or reserve some early (hugepages=N on the kernel's command line)"
        )

    def scattered(self, size: int, mask: int) -> PinnedPage | PinnedHugepages:
        """Return a new page if one suffices, or else hugepages from anywhere."""
        sizes = hugepages()
        if not sizes or size <= sizes[0].size:
            return self.page(size, 1, mask)

        def choice(huge: HugepageSize, count: int, addresses: list[int]) -> list[int] | None:
            return below(addresses, huge.size, count, mask)

        tried = f"{self._name}: no memory for DMA of {size} bytes up to {mask:#x}: it takes hugepages"
        return self._several(size, choice, tried, shared=False)

    def _single_pages(self, least: int) -> Iterator[PinnedPage]:
        """Yield new pages of at least `least` bytes as long as there are any; the caller keeps or releases each."""
        for index, huge in enumerate(hugepages()):
            if huge.size < least:
                continue
            yield from pinned_pages(huge)
            # More of the smallest size only: it can take the kernel seconds to find a larger one.
            for _ in range(_BYTES_RESERVED // huge.size if index == 0 else 0):
                if not self._reserve(huge):
                    break
                yield from itertools.islice(pinned_pages(huge), 1)
        if least <= mmap.PAGESIZE:
            yield from itertools.islice(pinned_pages(None), _PAGES_LOOKED_AT)

    def _several(
        self, size: int, choice: Callable[[HugepageSize, int, list[int]], list[int] | None], tried: str, *, shared: bool
    ) -> PinnedHugepages:
        """Return several hugepages that a choice finds among more: large ones if enough are free, else small ones.

        Args:
            size: of all, in bytes, at least.
            choice: gets their kind, how many are needed, and the addresses of all; see `PinnedHugepages`.
            tried: begins the message of an error.
            shared: whether the choice returns adjacent ones.
        """
        most = 0
        for huge in reversed(sizes := hugepages()):
            count = -(-size // huge.size)
            spare = max(1, _BYTES_RESERVED // huge.size)
            # A quarter more nearly always has neighbours enough. It takes more where many are above the mask.
            for more in sorted({min(spare, -(-count // 4)), spare}):
                total = self._gather(huge, count, count + more, reserve=huge == sizes[0])
                try:
                    most = max(total, most if huge == sizes[0] else 0)
                    if total >= count:
                        page = PinnedHugepages(huge, total, partial(choice, huge, count), shared=shared)
                        self._give_back(huge, total - count)
                        return page
                except LookupError:
                    pass
                except OSError as error:
                    if error.errno not in (errno.ENOMEM, errno.EFAULT):
                        raise
                self._give_back(huge, total)
        early = f"reserve them early (hugepages={count + max(1, count // 4)} on the kernel's command line)"
        if most < count:
            had = f"{most} were to be had" if most else "there is no memory for so many"
            reason = f"{tried}, {count} of {huge}, and {had}; free some, or {early}"
            raise DmaMemoryError(reason if huge.may_change else f"{reason}; or, as root: {huge.command(count)}")
        if shared:
            raise DmaMemoryError(
                f"{tried}, {count} of {huge}, and {most} that were looked at have none; scatter({size}) takes ones "
                f"from anywhere, in several segments; or {early}"
            )
        raise DmaMemoryError(f"{tried}, {count} of {huge}, and fewer of {most} are below; {early}")

    def _gather(self, huge: HugepageSize, least: int, wanted: int, *, reserve: bool) -> int:
        """Return how many hugepages there are to take, up to `wanted`, or 0 if there is no memory for `least`."""
        free = huge.free
        if reserve and free < wanted:
            wanted = min(wanted, free + available() // huge.size)
            if wanted < least:
                return 0
            self._reserve(huge, wanted - free)
        return max(0, min(wanted, huge.free))

    def _reserve(self, huge: HugepageSize, more: int = 1) -> bool:
        """Make the kernel set more hugepages aside; return whether it set as many aside."""
        with postponed_signals():  # or an exception between the change and the count would make the count wrong
            before = huge.set_aside
            done = huge.change(more)
            self._reserved[huge] = self._reserved.get(huge, 0) + min(more, max(0, huge.set_aside - before))
        return done

    def _give_back(self, huge: HugepageSize, number: int) -> None:
        """Give hugepages back to the kernel, as far as they were set aside for this source."""
        number = min(number, self._reserved.get(huge, 0))
        if number > 0:
            with postponed_signals():
                huge.change(-number)
                self._reserved[huge] -= number

    def map(self, memory: Buffer, mask: int) -> NoReturn:
        """Refuse: a buffer needs physical addresses that follow one another and stay."""
        raise DmaUnavailableError(
            errno.EOPNOTSUPP,
            f"{self._name}: memory that is there already cannot be mapped for DMA without an IOMMU that translates: "
            "copy it into a buffer of alloc(), or use VFIO",
        )

    def release(self, page: PinnedPage | PinnedHugepages) -> None:
        """Close a page, and give hugepages that were set aside for this source back to the kernel."""
        page.close()
        if page.huge is not None:
            self._give_back(page.huge, page.count)

    def keep_only(self, pages: Iterable[object]) -> None:
        """Do nothing: a page that an exception has kept from its caller is closed when nothing refers to it."""

    def close(self) -> None:
        """Give the rest of the hugepages that were set aside for this source back to the kernel."""
        for huge, count in self._reserved.items():
            if count:
                huge.change(-count)
