# SPDX-License-Identifier: MIT
"""Memory by its physical address: ordinary pages, and hugepages, of which the kernel sets aside more for root."""

from __future__ import annotations

import errno
import itertools
import mmap
from collections.abc import Iterator
from pathlib import Path

from pyuio.dma.pinned_page import PinnedPage, pinned_pages
from pyuio.errors import DmaUnavailableError
from pyuio.kernel.hugepages import HugepageSize, hugepages, why_none
from pyuio.kernel.sysfs import read_optional

# How many ordinary pages, and bytes of hugepages beyond those that were free, are tried to find one below the mask.
_PAGES_LOOKED_AT = 1024
_BYTES_RESERVED = 128 << 20


class PhysicalMemory:
    """The pages of one `Dma`, and the hugepages that the kernel sets aside because of it; see `MemorySource`.

    Args:
        name: of the device, for messages.
        directory: of the device in sysfs; None for memory without a device.
    """

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._name = name
        self._directory = directory
        self._reserved: dict[HugepageSize, int] = {}

    def require_usable(self) -> None:
        """Refuse a device for which an IOMMU translates: there a physical address is not the bus address.

        Source: Documentation/ABI/testing/sysfs-kernel-iommu_groups, ``type``.
        """
        kind = read_optional(self._directory / "iommu_group/type") if self._directory else None
        if kind not in (None, "identity"):
            raise DmaUnavailableError(
                errno.EOPNOTSUPP,
                f"memory for DMA of {self._name}: its IOMMU translates (iommu_group/type is {kind}), so the device "
                "would not reach it; boot with iommu=pt on the kernel's command line, or use VFIO",
            )

    def pages(self, size: int, align: int, mask: int) -> Iterator[PinnedPage]:
        """Yield new pages that may have room for a buffer; each is physically contiguous."""
        least = max(size, align)
        for index, huge in enumerate(huge for huge in hugepages() if huge.size >= least):
            yield from pinned_pages(huge)
            # More of the smallest size only: it can take the kernel seconds to find a larger one.
            for _ in range(max(1, _BYTES_RESERVED // huge.size) if index == 0 else 0):
                if not self._reserve(huge):
                    break
                yield from itertools.islice(pinned_pages(huge), 1)
        if least <= mmap.PAGESIZE:
            yield from itertools.islice(pinned_pages(None), _PAGES_LOOKED_AT)

    def why_none(self, size: int, align: int, mask: int, unsuitable: list[PinnedPage]) -> str:
        """Return why there is no memory for a buffer, and what to do."""
        if not unsuitable:
            return why_none(max(size, align))
        pages = sum(page.huge is None for page in unsuitable)
        return (
            f"{len(unsuitable) - pages} hugepages and {pages} pages were looked at, and none is below; "
            "close what has the low ones, or reserve some early (hugepages=N on the kernel's command line)"
        )

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
