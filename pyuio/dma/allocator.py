# SPDX-License-Identifier: MIT
"""Memory that a device reads and writes by itself: `Dma` hands it out, a `DmaBuffer` is a piece of it.

``docs/dma.md`` says what is guaranteed, and how. Source: Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import logging
import mmap
import operator
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import SupportsIndex

from pyuio._native._access import Presence
from pyuio._native._memory import dma_rmb, dma_wmb
from pyuio.dma.buffer import CACHE_LINE, DmaBuffer, DmaPool
from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.pinned_page import Segment, new_segments
from pyuio.dma.transaction import Unbroken
from pyuio.errors import ClosedError, DeviceRemovedError, DmaMemoryError, DmaUnavailableError
from pyuio.kernel.hugepages import HugepageSize, hugepages, why_none
from pyuio.kernel.sysfs import read_optional
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace
from pyuio.process.fork import Owned

__all__ = ["Dma", "DmaBuffer", "DmaPool", "dma_rmb", "dma_wmb"]

_log = logging.getLogger("pyuio.dma")

ALL_ADDRESSES = (1 << 64) - 1

# How many pages, and how many hugepages beyond those that were free, are looked at for one below the mask.
_PAGES_LOOKED_AT = 1024
_BYTES_RESERVED = 128 << 20


class Dma(Owned):
    """The memory that a device may reach. `Device.dma` is one.

    Args:
        name: of the device, for messages.
        directory: of the device in sysfs; None for memory without a device, as for a benchmark.
        config: its configuration space; None for what is not a PCI function, and has no bus mastering to switch.
        presence: of the device; None for memory without one.
    """

    def __init__(
        self,
        name: str,
        directory: Path | None = None,
        config: ConfigSpace | None = None,
        presence: Presence | None = None,
    ) -> None:
        self._name = name
        self._directory = directory
        self._config = config
        self._presence = presence
        # A message is a write to memory like any other (PCI 3.0, section 6.8): without bus mastering none is sent.
        self._sends_messages = directory is not None and any((directory / "msi_irqs").glob("*"))
        self._mask = ALL_ADDRESSES
        self.lock = _lock
        self._closed = False
        self._segments: list[Segment] = []
        self._live: set[DmaBuffer] = set()
        self._leaving: set[DmaBuffer] = set()  # closed, but somebody still looks at the memory
        self._reserved: dict[HugepageSize, int] = {}
        self._is_master: bool | None = False  # by this object's doing; None: an exception came while it was switched
        self._changing = Unbroken(self._work_out_what_is_free)

    @property
    def mask(self) -> int:
        """The highest bus address that the device can use: 2^n - 1; all of 64 bits unless the driver says otherwise."""
        return self._mask

    @mask.setter
    def mask(self, mask: int) -> None:
        self._mask = _checked_mask(mask)

    def alloc(self, size: SupportsIndex, *, align: int = 4096, mask: int | None = None) -> DmaBuffer:
        """Return memory for the device: zeroed, in one piece, and staying where it is.

        It comes from a hugepage, which it may share with other buffers, or, where there is none and a page suffices,
        from an ordinary page. A root process makes the kernel set more hugepages aside when none is free, and gives
        them back. The first buffer of a device switches its bus mastering on; closing the last one switches it off, but
        where the device's interrupt is MSI or MSI-X, which needs it: there it stays on, and the memory with the device,
        until that is closed.

        Args:
            size: in bytes, at least 1, at most the largest hugepage that the kernel is set up for.
            align: what its bus address is a multiple of, in bytes; a power of two up to the same limit.
            mask: the highest address that may occur in it, 2^n - 1; None for `mask`.

        Raises:
            DmaMemoryError: there is none, or a signal handler asks amid another call; the message says what to do.
            DmaUnavailableError: an IOMMU translates for the device.
            PermissionDeniedError: this user may not know physical addresses.
            DeviceRemovedError: the device is gone.
            ClosedError: the device is closed.
            ValueError: `size`, `align` or `mask` is out of range.
        """
        size = operator.index(size)
        if size < 1:
            raise ValueError(f"the size must be at least 1 byte, not {size}")
        align = operator.index(align)
        if align < 1 or align & (align - 1):
            raise ValueError(f"align must be a power of two, not {align}")
        mask = self._mask if mask is None else _checked_mask(mask)
        with self.lock, self._changing as inside_another:
            self._require_open()
            if inside_another:
                reason = "called by a signal handler in the middle of another alloc() or close()"
                raise DmaMemoryError(f"{self._name}: no memory for DMA: {reason}; do it after the handler")
            if self._presence is not None:
                self._presence.require()
            self._reap()
            if not self._live:
                self._require_untranslated()
            _open.add(self)
            segment, offset = self._find(-(-size // CACHE_LINE) * CACHE_LINE, max(align, CACHE_LINE), mask)
            buffer = DmaBuffer(segment.memory, offset, size, self, segment, offset)
            buffer.zero()
            try:
                self._live.add(buffer)
                if self._is_master is not True:
                    self._switch_bus_mastering(on=True)
                self._require_open()  # a signal handler may have closed it meanwhile
            except BaseException:
                self._live.discard(buffer)
                buffer.shut()
                if not self._live:
                    with contextlib.suppress(ClosedError):
                        self._end_bus_mastering()
                self._work_out_what_is_free()
                self._release_segments()
                raise
        _log.debug("%s: memory for DMA: %d bytes at %#x", self._name, size, buffer.address)
        return buffer

    def pool(self, count: int, size: int, *, align: int = 64, mask: int | None = None) -> DmaPool:
        """Return a pool of equal buffers, to be taken and given back without asking the kernel.

        Args:
            count: how many, at least 1.
            size: of each, in bytes, at least 1.
            align: what the bus address of each is a multiple of, in bytes; a power of two.
            mask: the highest address that may occur in them, 2^n - 1; None for `mask`.

        Errors are those of `alloc`.
        """
        count, size, align = operator.index(count), operator.index(size), operator.index(align)
        if count < 1 or size < 1:
            raise ValueError(f"a pool has at least one buffer of at least one byte, not {count} of {size}")
        if align < 1 or align & (align - 1):
            raise ValueError(f"align must be a power of two, not {align}")
        step = -(-size // max(align, CACHE_LINE)) * max(align, CACHE_LINE)
        # As many as possible in one piece: of the smallest hugepage, or else of one page, that holds one.
        pieces = [max(1, huge.size // step) for huge in hugepages() if huge.size >= step] + [mmap.PAGESIZE // step]
        wholes: list[DmaBuffer] = []
        buffers: list[DmaBuffer] = []
        try:
            while len(buffers) < count:
                number = min(pieces[0] or 1, count - len(buffers))
                try:
                    whole = self.alloc(number * step, align=align, mask=mask)
                except DmaMemoryError:
                    if len(pieces) == 1 or pieces[-1] == 0:
                        raise
                    pieces = pieces[-1:]
                    continue
                wholes.append(whole)
                buffers += [whole[index * step : index * step + size] for index in range(number)]
        except BaseException:
            for whole in wholes:
                whole.close()
            raise
        buffers.reverse()  # taken from the end: lowest first
        return DmaPool(wholes, buffers)

    def owns(self, buffer: DmaBuffer) -> bool:
        """Return whether a buffer, or what it is a part of, is open and came from here."""
        return not buffer.closed and (buffer.whole or buffer) in self._live

    def _find(self, size: int, align: int, mask: int) -> tuple[Segment, int]:
        for segment in self._segments:
            offset = segment.free.take(size, align, mask)
            if offset is not None:
                return segment, offset
        # Those that do not do are kept meanwhile, or the kernel would give them again and again.
        aside: list[Segment] = []
        try:
            for segment in self._candidates(max(size, align)):
                offset = segment.free.take(size, align, mask)
                if offset is not None:
                    self._segments.append(segment)
                    return segment, offset
                segment.let_move()
                aside.append(segment)
        finally:
            for segment in aside:
                self._release(segment)
        raise DmaMemoryError(self._why_not(size, align, mask, aside))

    def _candidates(self, least: int) -> Iterator[Segment]:
        """Yield new segments of at least so many bytes as long as there are any."""
        for index, huge in enumerate(huge for huge in hugepages() if huge.size >= least):
            yield from new_segments(huge)
            # More of the smallest size only: to have a kernel find a larger one can take it seconds.
            for _ in range(max(1, _BYTES_RESERVED // huge.size) if index == 0 else 0):
                if not self._reserve(huge):
                    break
                yield from itertools.islice(new_segments(huge), 1)
        if least <= mmap.PAGESIZE:
            yield from itertools.islice(new_segments(None), _PAGES_LOOKED_AT)

    def _reserve(self, huge: HugepageSize) -> bool:
        """Have the kernel set one more hugepage aside; return whether it did."""
        before = huge.set_aside
        self._reserved[huge] = self._reserved.get(huge, 0) + 1  # first: an exception may come when it is done already
        try:
            return huge.change(1)
        finally:
            if huge.set_aside <= before:
                self._reserved[huge] -= 1

    def _why_not(self, size: int, align: int, mask: int, aside: list[Segment]) -> str:
        tried = f"{self._name}: no memory for DMA of {size} bytes aligned to {align} up to {mask:#x}"
        if not aside:
            return f"{tried}: {why_none(max(size, align))}"
        pages = sum(segment.huge is None for segment in aside)
        return (
            f"{tried}: {len(aside) - pages} hugepages and {pages} pages were looked at, and none is below; "
            "close what has the low ones, or reserve some early (hugepages=N on the kernel's command line)"
        )

    def give_back(self, buffer: DmaBuffer) -> None:
        """Close a buffer, or a part of one: what `DmaBuffer.close` does."""
        with self.lock, self._changing as inside_another:
            if buffer.closed:
                return
            if buffer.whole is not None:  # a part
                buffer.shut()
                return
            if self._live == {buffer}:
                self._end_bus_mastering()
            self._leaving.add(buffer)  # it is in one of them at any time
            self._live.discard(buffer)
            buffer.shut()
            if not inside_another:  # else the next alloc() or close() does it
                if not self._live:
                    self._end_bus_mastering()  # a signal handler may have closed the others since the look above
                self._reap()

    def _reap(self) -> None:
        """Make the memory of closed buffers free when nobody looks at it any more."""
        gone = [one for one in self._leaving - self._live if one.closed and not one.exports]
        for buffer in gone:
            buffer.place.free.give(*buffer.room)
            self._leaving.discard(buffer)
        if gone:
            self._release_segments(keep=1)

    def _work_out_what_is_free(self) -> None:
        """Find it out anew, by the buffers there are: an exception may have come between the steps of a change."""
        for buffer in self._leaving - self._live:
            buffer.shut()
        for segment in self._segments:
            taken = [buffer.room for buffer in self._live | self._leaving if buffer.place is segment]
            segment.free = FreeRanges(segment.address, segment.size, taken)

    def _release_segments(self, keep: int = 0) -> None:
        """Give unused segments back to the kernel but for a few, so that a lone buffer's next one is quick."""
        if self._sends_messages:  # bus mastering stays on, and the device might still write to them
            return
        unused = [segment for segment in self._segments if segment.free.untouched]
        for segment in unused[keep:]:
            self._segments.remove(segment)
            self._release(segment)

    def _release(self, segment: Segment) -> None:
        segment.close()
        huge = segment.huge
        if huge is not None and self._reserved.get(huge, 0) > 0:
            before = huge.set_aside
            try:
                huge.change(-1)
            finally:  # where an exception came before it was done, `close` does it
                if huge.set_aside < before:
                    self._reserved[huge] -= 1

    def close(self) -> None:
        """End bus mastering, close every buffer, give all memory back; again is harmless. `Device.close` calls it."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            for buffer in self._live:
                buffer.shut()
            if self._is_master is not False:
                try:
                    self._switch_bus_mastering(on=False)
                except ClosedError:
                    # The program closed the configuration space first, and nothing here can stop the device any more.
                    # The memory stays, by way of _open, until the process ends.
                    return
            self._live.clear()
            self._leaving.clear()
            for segment in self._segments:
                self._release(segment)
            self._segments.clear()
            for huge, count in self._reserved.items():
                if count:
                    huge.change(-count)
            _open.discard(self)

    def forget(self) -> None:
        """In a forked child: close everything without touching the device, which is the parent's."""
        super().forget()
        self._closed = True
        for segment in self._segments:
            segment.forget()
        for buffer in self._live:
            buffer.shut()

    def let_go(self) -> None:
        """In a forked child, when the device's files are closed there: hold the memory no longer."""
        for segment in self._segments:
            segment.let_move()
        self._segments.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error(f"memory for DMA of {self._name}")

    def _require_untranslated(self) -> None:
        """Refuse a device whose IOMMU has page tables of its own, where a physical address is not the bus address.

        Source: Documentation/ABI/testing/sysfs-kernel-iommu_groups, ``type``.
        """
        kind = read_optional(self._directory / "iommu_group/type") if self._directory else None
        if kind not in (None, "identity"):
            raise DmaUnavailableError(
                errno.EOPNOTSUPP,
                f"memory for DMA of {self._name}: its IOMMU translates (iommu_group/type is {kind}), so the device "
                "would not reach it; boot with iommu=pt on the kernel's command line, or use VFIO",
            )

    def _end_bus_mastering(self) -> None:
        if self._is_master is not False and not self._sends_messages:
            self._switch_bus_mastering(on=False)

    def _switch_bus_mastering(self, *, on: bool) -> None:
        self._is_master = None
        if self._config is not None:
            _log.info("%s: bus mastering %s", self._name, "on" if on else "off")
            if on:
                self._config.change_command(set=Command.BUS_MASTER)
            else:
                with contextlib.suppress(DeviceRemovedError):
                    self._config.change_command(clear=Command.BUS_MASTER)
        self._is_master = on


def _checked_mask(mask: SupportsIndex) -> int:
    mask = operator.index(mask)
    if not 1 <= mask <= ALL_ADDRESSES or mask & (mask + 1):
        raise ValueError(f"a mask is 2^n - 1, up to {ALL_ADDRESSES:#x}, not {mask:#x}")
    return mask


# One for all, held across a fork, so that the child finds nothing half done by another thread.
_lock = threading.RLock()

# Those with memory: held here so that a device which nobody closed never writes to memory that was unmapped.
_open: set[Dma] = set()


@atexit.register
def _close_all() -> None:
    for dma in list(_open):
        with contextlib.suppress(ClosedError):
            dma.close()


def _forget_all() -> None:
    for dma in _open:
        dma.forget()
    _open.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_all)
