# SPDX-License-Identifier: MIT
"""Bus addresses that an IOMMU translates: which are free, and which memory of this process is at the others."""

from __future__ import annotations

import logging
import mmap
import os
from typing import Protocol

from pyuio.dma.bus_addresses import BusAddresses
from pyuio.dma.lock import lock
from pyuio.dma.transaction import Transaction
from pyuio.errors import DmaMemoryError

_log = logging.getLogger("pyuio.dma")


class Mappings(Protocol):
    """What `AddressSpace` uses of a container of VFIO's, an IOAS of iommufd's, and what stands for them."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The bus addresses that can be given out, as pairs of the first and the last."""

    @property
    def page_sizes(self) -> tuple[int, ...]:
        """The sizes that can be mapped, in bytes, ascending."""

    def over_limit(self, size: int) -> str | None:
        """Say what is locked, if the limit of locked memory does not permit so many bytes more; None if it does."""

    def map(self, memory: int, address: int, size: int) -> None:
        """Map memory of this process at a bus address."""

    def unmap(self, address: int, size: int) -> None:
        """End a mapping."""

    def close(self) -> None:
        """End all."""


class AddressSpace:
    """Gives out the bus addresses of a VFIO container, or of an IOAS of iommufd's, which several devices may share.

    The first addresses differ from one to the next. So a transfer that a killed driver left in the card finds
    nothing at its address when the next driver switches bus mastering on, instead of that driver's memory.

    Those who map and unmap hold the lock of all memory for DMA.

    Args:
        container: set up, with a group in it; or an IOAS.
        start: chooses the first addresses; None for a random number.
    """

    def __init__(self, container: Mappings, start: int | None = None) -> None:
        self._container = container
        self.unit = max(container.page_sizes[0], mmap.PAGESIZE)
        """Addresses and sizes of mappings are multiples of this."""
        self._start = int.from_bytes(os.urandom(8), "little") if start is None else start
        self._taken: dict[object, tuple[int, int]] = {}  # address and size, by owner
        self._transaction = Transaction(self._rebuild)
        self._rebuild()

    def _rebuild(self) -> None:
        self._free = BusAddresses(self._container.ranges, self.unit, self._start, self._taken.values())
        self._outdated = False

    def renew(self) -> None:
        """Heed that the container translates fewer addresses from now on."""
        self._outdated = True

    def over_limit(self, size: int) -> str | None:
        """Say what is locked, if the limit of locked memory does not permit `size` bytes more; None if it does."""
        return self._container.over_limit(size)

    def map(self, owner: object, memory: int, size: int, align: int, mask: int) -> int:
        """Pin memory of this process, let the devices read and write it, and return its bus address.

        Args:
            owner: whoever calls `unmap` for it, even if this call does not come to its end.
            memory: its address in this process, a multiple of `unit`.
            size: in bytes, a multiple of `unit`.
            align: the bus address is a multiple of this; a power of two.
            mask: no bus address in it is above this.

        Raises:
            DmaMemoryError: there is no such range of addresses, or a signal handler asks in the middle of another call.
            OSError, ValueError: the container's answer; see `Container.map`.
        """
        with self._transaction as inside_another:
            if inside_another:
                reason = "called by a signal handler in the middle of another call; do it after the handler"
                raise DmaMemoryError(f"no bus addresses: {reason}")
            if self._outdated:
                self._rebuild()
            address = self._free.take(size, align, mask)
            if address is None:
                ranges = ", ".join(f"{first:#x} to {last:#x}" for first, last in self._container.ranges)
                taken = sum(size for _, size in self._taken.values())
                raise DmaMemoryError(
                    f"no free range of so many bus addresses: the IOMMU translates {ranges}, of which {taken} bytes "
                    f"in {len(self._taken)} mappings are taken; close buffers, or let the mask be larger"
                )
            self._taken[owner] = address, size
            try:
                self._container.map(memory, address, size)
            except (OSError, ValueError):
                del self._taken[owner]
                self._free.give(address, size)
                raise
        return address

    def unmap(self, owner: object) -> None:
        """End what `map` began for this owner, if anything. It never fails.

        When the container is closed, or a device that was removed has been let go, the kernel has ended all mappings.
        """
        with self._transaction as inside_another:
            place = self._taken.get(owner)
            if place is None:
                return
            address, size = place
            try:
                self._container.unmap(address, size)
            except (OSError, ValueError) as error:
                # The addresses stay taken. The kernel gives pages that it has pinned to nobody else.
                _log.debug("memory for DMA at %#x stays mapped until its container is closed: %s", address, error)
                return
            del self._taken[owner]
            if inside_another:
                self._outdated = True
            else:
                self._free.give(address, size)

    def close(self) -> None:
        """Close the container, while nobody maps or unmaps. A second close does nothing."""
        with lock:
            self._container.close()
