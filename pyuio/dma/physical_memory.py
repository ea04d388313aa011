# SPDX-License-Identifier: MIT
"""Memory by its physical address: hugepages, of which the kernel finds more for root, and ordinary pages."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pyuio.dma.low_memory import LowMemory, is_narrow, nothing_up_to, remedy
from pyuio.dma.pinned_hugepages import PinnedHugepages, adjacent, below
from pyuio.dma.pinned_page import PinnedPage
from pyuio.dma.sieve import Sieve
from pyuio.errors import DmaMemoryError, DmaUnavailableError
from pyuio.kernel.hugepages import HugepageSize, hugepages, why_none
from pyuio.kernel.vfio import translating_type

if TYPE_CHECKING:
    from typing_extensions import Buffer

# How many bytes of hugepages beyond those that are needed are tried before all that there are.
_MORE = 128 << 20

Choice = Callable[[HugepageSize, int, list[int]], "list[int] | None"]


class PhysicalMemory:
    """The pages of one `Dma`; see `MemorySource`.

    Args:
        name: of the device, for messages.
        directory: of the device in sysfs; None for memory without a device.
    """

    guarded = False

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._name = name
        self._directory = directory
        self._search: LowMemory | None = None

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
        least = max(size, align)
        tried = f"{self._name}: no memory for DMA of {size} bytes aligned to {align} up to {mask:#x}"
        sizes = hugepages()
        large = [huge for huge in sizes[1:] if huge.size >= least]
        with Sieve(size, align, mask) as sieve:
            if sizes and sizes[0].size < least:
                if page := sieve.first_of(large):
                    return page
                self._require_hope(tried, mask)

                def choice(huge: HugepageSize, count: int, addresses: list[int]) -> list[int] | None:
                    return adjacent(addresses, huge.size, count, max(align, huge.size), mask)

                return self._several(size, mask, choice, f"{tried}: it takes adjacent hugepages", shared=True)
            if page := sieve.first_of(sizes[:1]):
                return page
            self._require_hope(tried, mask)
            with self._searched(LowMemory(sizes[0] if sizes else None, mask)) as search:
                # More of the smallest size only: it can take the kernel seconds to find a larger one.
                if page := sieve.first_of(sizes[:1], search.room) or sieve.first_of(large):
                    return page
                if least <= mmap.PAGESIZE and (page := sieve.first_ordinary()):
                    return page
        limited = "; its control group (memory.max) has room for no more" if sieve.limited else ""
        if not sieve.hugepages and not sieve.pages:
            raise DmaMemoryError(f"{tried}: {why_none(least)}{limited}")
        held = f", {search.held} hugepages above it were held meanwhile" if search.held else ""
        raise DmaMemoryError(
            f"{tried}: {sieve.hugepages} hugepages and {sieve.pages} pages were looked at{held}, and none is below; "
            f"{remedy(mask)}{limited}"
        )

    def scattered(self, size: int, mask: int) -> PinnedPage | PinnedHugepages:
        """Return a new page if one suffices, or else hugepages from anywhere."""
        sizes = hugepages()
        if not sizes or size <= sizes[0].size:
            return self.page(size, 1, mask)

        def choice(huge: HugepageSize, count: int, addresses: list[int]) -> list[int] | None:
            return below(addresses, huge.size, count, mask)

        tried = f"{self._name}: no memory for DMA of {size} bytes up to {mask:#x}"
        self._require_hope(tried, mask)
        return self._several(size, mask, choice, f"{tried}: it takes hugepages", shared=False)

    def _searched(self, search: LowMemory) -> LowMemory:
        """Keep a search, so that it ends whatever exception comes."""
        self._end_search()
        self._search = search
        return search

    def _end_search(self) -> None:
        if self._search is not None:
            self._search.close()

    @staticmethod
    def _require_hope(tried: str, mask: int) -> None:
        """Refuse a search that cannot find anything."""
        if nothing_up_to(mask):
            raise DmaMemoryError(f"{tried}: the kernel gives programs no memory there; {remedy(mask)}")

    def _several(self, size: int, mask: int, choice: Choice, tried: str, *, shared: bool) -> PinnedHugepages:
        """Return several hugepages that a choice finds among more: large ones if enough are free, else small ones.

        Args:
            size: of all, in bytes, at least.
            mask: no address in them is above this.
            choice: gets their kind, how many are needed, and the addresses of all; see `PinnedHugepages`.
            tried: begins the message of an error.
            shared: whether the choice returns adjacent ones.
        """
        small = hugepages()[0]
        looked_at: set[int] = set()
        for huge in reversed(hugepages()):
            if page := self._chosen(huge, size, [huge.free], choice, looked_at, shared=shared):
                return page
        with self._searched(LowMemory(small, mask)) as search:
            # A search that holds hugepages holds those that were free, too.
            free = 0 if search.held else small.free
            if page := self._chosen(
                small, size, [free + search.free, free + search.room], choice, looked_at, shared=shared
            ):
                return page
        count, most = -(-size // small.size), free + search.room
        early = f"reserve them early (hugepages={count + max(1, count // 4)} on the kernel's command line)"
        if most < count:
            reason = f"{tried}, {count} of {small}, and {most} were to be had"
            if search.held:
                raise DmaMemoryError(f"{reason} while {search.held} above it were held; {remedy(mask)}")
            reason = f"{reason}; free some, or {early}"
            raise DmaMemoryError(reason if small.may_change else f"{reason}; or, as root: {small.command(count)}")
        if not looked_at:
            limit = f"hugetlb.{small.size >> 20}MB.max"
            held = f" while {search.held} above it were held" if search.held else ""
            reason = f"the kernel gave none{held}: memory is in small pieces, or a control group ({limit}) forbids it"
            raise DmaMemoryError(f"{tried}, {count} of {small}; {reason}; {remedy(mask)}")
        if shared and is_narrow(mask):  # those that are reserved come from above
            raise DmaMemoryError(
                f"{tried}, {count} of {small}; {most} were looked at, and none of them are below and adjacent; "
                f"{remedy(mask)}; scatter({size}) takes ones that are not adjacent, in several segments"
            )
        if shared:
            raise DmaMemoryError(
                f"{tried}, {count} of {small}, and {most} that were looked at have none; scatter({size}) takes ones "
                f"from anywhere, in several segments; or {early}"
            )
        raise DmaMemoryError(f"{tried}, {count} of {small}, and fewer of {most} are below; {remedy(mask)}")

    @staticmethod
    def _chosen(
        huge: HugepageSize, size: int, most: list[int], choice: Choice, looked_at: set[int], *, shared: bool
    ) -> PinnedHugepages | None:
        """Return several hugepages that a choice finds among up to the largest of `most`; None if it finds none.

        `looked_at` gets the numbers of those among which it found none.
        """
        count = -(-size // huge.size)
        # A quarter more nearly always has neighbours enough. It takes more where many are above the mask.
        few = (count + max(1, count // 4), count + _MORE // huge.size)
        for total in sorted({min(number, max(most)) for number in few} | set(most)):
            if total < count:
                continue
            try:
                return PinnedHugepages(huge, total, partial(choice, huge, count), shared=shared)
            except LookupError:
                looked_at.add(total)
            except OSError as error:
                if error.errno not in (errno.ENOMEM, errno.EFAULT):
                    raise
        return None

    def map(self, memory: Buffer, mask: int) -> NoReturn:
        """Refuse: a buffer needs physical addresses that follow one another and stay."""
        raise DmaUnavailableError(
            errno.EOPNOTSUPP,
            f"{self._name}: memory that is there already cannot be mapped for DMA without an IOMMU that translates: "
            "copy it into a buffer of alloc(), or use VFIO",
        )

    def release(self, page: PinnedPage | PinnedHugepages) -> None:
        """Close a page."""
        page.close()

    def keep_only(self, pages: Iterable[object]) -> None:
        """End a search that an exception broke off. A page that it has kept from its caller is closed by itself."""
        self._end_search()

    def close(self) -> None:
        """End a search that an exception broke off."""
        self._end_search()
