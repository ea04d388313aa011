# SPDX-License-Identifier: MIT
"""Memory that a device reads and writes by itself: `Dma` allocates it, a `DmaBuffer` is a piece of it.

``docs/dma.md`` says what is guaranteed, and how. Source: Documentation/admin-guide/mm/pagemap.rst.

A `Dma` has pages from a `MemorySource`, and each page knows its free ranges. Two rules shape the code:

- The device must never write to memory that is not its own any more. So bus mastering is on only while there are
  buffers, and ends before the last one is freed.
- An exception, such as Ctrl-C's, may come between any two steps, and a signal handler may allocate or close in the
  middle. So each change is a `Transaction`: the next one repairs what an exception left, by looking at the buffers that
  exist.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import logging
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from pyuio._native._access import Presence
from pyuio._native._memory import dma_rmb, dma_wmb
from pyuio.dma.adopted import AdoptedMemory
from pyuio.dma.buffer import CACHE_LINE, DmaBuffer
from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.lock import lock as _lock
from pyuio.dma.memory_source import MemorySource, Page
from pyuio.dma.physical_memory import PhysicalMemory
from pyuio.dma.pool import DmaPool, allocate_pool
from pyuio.dma.scatter import ScatterBuffer
from pyuio.dma.transaction import Transaction
from pyuio.errors import ClosedError, DeviceRemovedError, DmaMemoryError, DmaUnavailableError
from pyuio.kernel import device_tree
from pyuio.pci.assigned_interrupt import message_interrupts
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace
from pyuio.process.fork import Owned
from pyuio.process.late import release_after_fork

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pyuio.region import Region

__all__ = ["Dma", "DmaBuffer", "DmaPool", "ScatterBuffer", "dma_rmb", "dma_wmb"]

B = TypeVar("B", bound=DmaBuffer)

_log = logging.getLogger("pyuio.dma")

ALL_ADDRESSES = (1 << 64) - 1


class Dma(Owned):
    """The memory that a device may access. `Device.dma` is one.

    Args:
        name: of the device, for messages.
        directory: of the device in sysfs; None for memory without a device, as for a benchmark.
        config: its configuration space; None if it is not a PCI function, and has no bus mastering to switch.
        presence: of the device; None for memory without one.
        source: where the memory comes from; None for memory by its physical address.
    """

    def __init__(
        self,
        name: str,
        directory: Path | None = None,
        config: ConfigSpace | None = None,
        presence: Presence | None = None,
        source: MemorySource[Any] | None = None,
    ) -> None:
        self._name = name
        self._config = config
        self._presence = presence
        # A message is a write to memory (PCI 3.0, section 6.8), so the device sends none without bus mastering.
        self._sends_messages = directory is not None and bool(message_interrupts(directory))
        self._mask = ALL_ADDRESSES
        self._directory = directory
        self._is_physical = directory is None or config is not None  # PCI's bus addresses are physical ones
        self._is_assumed = False
        self.lock = _lock
        self._closed = False
        self.on_buffer: Callable[[int, int], object] | None = None
        """Called with address and size of each piece of a new buffer, for a recording."""
        self._source: MemorySource[Any] = PhysicalMemory(name, directory) if source is None else source
        self._pages: list[Page] = []
        self._live: set[DmaBuffer] = set()
        self._leaving: set[DmaBuffer] = set()  # closed, but views of the memory still exist
        self._is_master: bool | None = (
            False  # because of this object; None: an exception came while it was being switched
        )
        self._transaction = Transaction(self._rebuild_free_ranges)

    @property
    def mask(self) -> int:
        """The highest bus address that the device can use: 2^n - 1; all of 64 bits unless the driver says otherwise."""
        return self._mask

    @mask.setter
    def mask(self, mask: int) -> None:
        self._mask = _checked_mask(mask)

    @property
    def buffers(self) -> tuple[DmaBuffer, ...]:
        """Those that are open, by the address of the first byte; none after `close`."""

        def first(buffer: DmaBuffer) -> int:  # a scattered buffer has no address
            return buffer.page.pieces(buffer.offset_in_page, 1)[0][0]

        with self.lock:
            return tuple(sorted((one for one in self._live if not one.closed), key=first))

    def assume_coherent(self) -> None:
        """Let `alloc` give memory that it would refuse, as to a device that is not a PCI function.

        Whoever calls this answers for the board.

        Its bus addresses must be physical addresses, which ``dma-ranges`` in its device tree or an IOMMU make untrue.
        Caches must follow its accesses (``dma-coherent``). And nothing ends its transfers when this process is killed:
        they go on into memory that is somebody else's by then. On a PCI function only the caches matter, and it does
        nothing where they follow.
        """
        self._is_assumed = True

    def adopt(self, memory: Region | Buffer, address: SupportsIndex) -> DmaBuffer:
        """Return memory that a kernel driver allocated for the device as a buffer like those of `alloc`.

        It is for what ``uio_dmem_genirq`` and u-dma-buf give. It needs no privilege. Closing the buffer leaves the
        memory to its driver. As with `alloc`, a PCI function is bus master while there is a buffer.

        Args:
            memory: a region that `Device.map` returned, or a writable buffer in one piece, such as an `mmap.mmap` of
                ``/dev/udmabuf0``.
            address: the bus address of its first byte: the region's `Region.address`, or what the driver's file
                ``phys_addr`` says.

        Raises:
            DmaMemoryError: a part of it is above `mask`; or a signal handler asks in the middle of another call.
            DmaUnavailableError: an IOMMU lets the device reach only what `alloc` and `map` give it: VFIO.
            DeviceRemovedError: the device is gone.
            ClosedError: the device, or the region, is closed.
            ValueError: the memory is empty, or not within 64 bits of address.
            TypeError, BufferError: the memory is not a writable buffer in one piece.
        """
        if self._source.guarded:
            reason = "no memory is adopted by VFIO, where the device reaches only what is mapped for it; map() it"
            raise DmaUnavailableError(errno.EOPNOTSUPP, f"{self._name}: {reason}")
        adopted = AdoptedMemory(memory, address)
        last = adopted.address + adopted.size - 1
        if last > self._mask:
            reason = f"it ends at {last:#x}, and the device reaches {self._mask:#x}"
            raise DmaMemoryError(f"{self._name}: the memory at {adopted.address:#x} is not for DMA: {reason}")
        with self.lock, self._transaction as inside_another:
            self._require_start(inside_another)
            self._reap()
            _open.add(self)
            buffer = DmaBuffer(adopted.memory, adopted.offset, adopted.size, self, adopted, 0)
            self._hand_out(buffer)
        _log.debug("%s: adopted for DMA: %d bytes at %#x", self._name, adopted.size, adopted.address)
        return buffer

    def alloc(self, size: SupportsIndex, *, align: int = 4096, mask: int | None = None) -> DmaBuffer:
        """Return memory for the device: zeroed, contiguous on the bus, and pinned.

        Where an IOMMU translates (VFIO), it is ordinary memory. Elsewhere it comes from a hugepage, which it may share
        with other buffers, or from adjacent ones. Where there is no hugepage and a page suffices, it comes from an
        ordinary page. When no hugepage is free, the kernel finds more for a root process, and has them back later.
        Where there is memory above the mask, the kernel gives that first, and a search holds it for as long as the
        kernel takes to find it: see ``docs/dma.md``.

        The first buffer of a device switches its bus mastering on; closing the last one switches
        it off. But if the device's interrupt is MSI or MSI-X, which needs bus mastering, it stays on, and the device
        keeps the memory, until the device is closed.

        Args:
            size: in bytes, at least 1.
            align: its bus address is a multiple of this, in bytes; a power of two.
            mask: no address in it is above this, 2^n - 1; None stands for the attribute `mask`.

        Raises:
            DmaMemoryError: there is no such memory, or a signal handler asks in the middle of another call; the message
                says what to do.
            DmaUnavailableError: an IOMMU translates for the device; or it is not a PCI function: see `adopt` and
                `assume_coherent`.
            PermissionDeniedError: this user may not know physical addresses.
            DeviceRemovedError: the device is gone.
            ClosedError: the device is closed.
            ValueError: `size`, `align` or `mask` is out of range.
        """
        size, align = _checked_size(size), _checked_align(align)
        mask = self._mask if mask is None else _checked_mask(mask)
        rounded, align = -(-size // CACHE_LINE) * CACHE_LINE, max(align, CACHE_LINE)
        return self._make(
            DmaBuffer, size, lambda: self._find(rounded, align, mask, lambda: self._source.page(rounded, align, mask))
        )

    def scatter(self, size: SupportsIndex, *, mask: int | None = None) -> ScatterBuffer:
        """Return memory for the device, zeroed and pinned, which may have several ranges of bus addresses.

        It is contiguous for the program. Where no IOMMU translates, it takes hugepages from wherever they are, and so
        can be as large as all of them.

        Args:
            size: in bytes, at least 1.
            mask: no address in it is above this, 2^n - 1; None stands for the attribute `mask`.

        The errors are those of `alloc`.
        """
        size = _checked_size(size)
        mask = self._mask if mask is None else _checked_mask(mask)
        rounded = -(-size // CACHE_LINE) * CACHE_LINE
        return self._make(
            ScatterBuffer,
            size,
            lambda: self._find(rounded, CACHE_LINE, mask, lambda: self._source.scattered(rounded, mask)),
        )

    def map(self, memory: Buffer, *, mask: int | None = None) -> DmaBuffer:
        """Let the device read and write memory that the program has already, and return it as a buffer.

        It needs an IOMMU that translates: VFIO. The memory stays exported (a bytearray keeps its size) until the buffer
        is closed. The device can reach all of each page that the memory is a part of, so also what lies before its
        first and behind its last byte there. The same memory may be mapped twice, for the same device or for several. A
        forked child has a copy of it, which the device does not reach.

        Args:
            memory: a writable buffer without gaps, of at least one byte: a bytearray, a numpy array, an mmap of memory
                or of a file, a `DmaBuffer` of another device.
            mask: no address in it is above this, 2^n - 1; None stands for the attribute `mask`.

        Raises:
            DmaUnavailableError: no IOMMU translates for the device; copy the memory into a buffer of `alloc`.
            DmaMemoryError: the limit of locked memory, the mask or the container leaves no room, or the kernel cannot
                pin such memory.
            BufferError: the memory is read-only, or has gaps.
            ValueError: it has no bytes, or `mask` is out of range.
            DeviceRemovedError: the device is gone.
            ClosedError: the device is closed.
        """
        mask = self._mask if mask is None else _checked_mask(mask)

        def find() -> tuple[Page, int]:
            page = self._source.map(memory, mask)
            self._pages.append(page)
            return page, page.offset

        return self._make(DmaBuffer, None, find)

    def _make(self, kind: type[B], size: int | None, find: Callable[[], tuple[Page, int]]) -> B:
        """Return a buffer on memory that a function finds: zeroed if it has a size, else all that was found, as it is.

        Args:
            kind: of buffer.
            size: in bytes; None for memory of the program.
            find: returns a page in which the buffer has its place by then, and the offset.
        """
        with self.lock, self._transaction as inside_another:
            self._require_start(inside_another)
            self._reap()
            if not self._pages:
                self._require_coherent()
                self._source.require_usable()
            _open.add(self)
            page, offset = find()
            start, room = (offset, size) if size is not None else (0, len(page.memory))
            buffer = kind(page.memory, start, room, self, page, offset)
            self._hand_out(buffer, zeroed=size is not None)
        _log.debug("%s: memory for DMA: %r", self._name, buffer)
        return buffer

    def _require_start(self, inside_another: bool) -> None:
        """Raise an error unless a new buffer may be made now."""
        self._require_open()
        if inside_another:
            reason = "called by a signal handler in the middle of another alloc() or close()"
            raise DmaMemoryError(f"{self._name}: no memory for DMA: {reason}; do it after the handler")
        if self._presence is not None:
            self._presence.require()

    def _hand_out(self, buffer: DmaBuffer, *, zeroed: bool = False) -> None:
        """Make a new buffer one of those that the device may access, and zero it first if asked to."""
        try:
            if zeroed:
                buffer.zero()
            self._live.add(buffer)
            if self._is_master is not True:
                self._switch_bus_mastering(on=True)
            self._require_open()  # a signal handler may have closed it meanwhile
            if self.on_buffer is not None:
                for address, size in buffer.page.pieces(buffer.offset_in_page, buffer.size):
                    self.on_buffer(address, size)
        except BaseException:
            self._live.discard(buffer)
            buffer.close_views()
            if not self._live:
                with contextlib.suppress(ClosedError):
                    self._end_bus_mastering()
            self._rebuild_free_ranges()
            self._release_unused_pages()
            raise

    def pool(self, count: int, size: int, *, align: int = 64, mask: int | None = None) -> DmaPool:
        """Return a pool of equal buffers, which a program takes and gives back without asking the kernel.

        Args:
            count: how many, at least 1.
            size: of each, in bytes, at least 1.
            align: the bus address of each is a multiple of this, in bytes; a power of two.
            mask: no address in them is above this, 2^n - 1; None stands for the attribute `mask`.

        The errors are those of `alloc`.
        """
        count, size, align = operator.index(count), operator.index(size), _checked_align(align)
        if count < 1 or size < 1:
            raise ValueError(f"a pool has at least one buffer of at least one byte, not {count} of {size}")
        return allocate_pool(lambda whole: self.alloc(whole, align=align, mask=mask), count, size, align)

    def covers(self, address: int, size: int) -> bool:
        """Return whether a range of bus addresses is inside one of its buffers that are not closed."""
        with self.lock:
            return any(
                start <= address and address + size <= start + length
                for buffer in self._live
                for start, length in buffer.page.pieces(buffer.offset_in_page, buffer.size)
            )

    def owns(self, buffer: DmaBuffer) -> bool:
        """Return whether a buffer is open and, like the whole that it may be a part of, came from here."""
        return not buffer.closed and (buffer.whole or buffer) in self._live

    def _find(self, size: int, align: int, mask: int, new: Callable[[], Page]) -> tuple[Page, int]:
        """Take a range of a page, perhaps of a new one, and return the page and the offset."""
        for page in self._pages:
            offset = page.free.take(size, align, mask) if page.shared else None
            if offset is not None:
                return page, offset
        page = new()
        self._pages.append(page)
        offset = page.free.take(size, align, mask) if page.shared else 0
        assert offset is not None
        return page, offset

    def close_buffer(self, buffer: DmaBuffer) -> None:
        """Close a buffer, or a part of one: `DmaBuffer.close` calls this."""
        with self.lock, self._transaction as inside_another:
            if buffer.closed:
                return
            if buffer.whole is not None:  # a part
                buffer.close_views()
                return
            if self._live == {buffer}:
                self._end_bus_mastering()
            self._leaving.add(buffer)  # before the next line, so that it is in one of the two sets at any time
            self._live.discard(buffer)
            buffer.close_views()
            if not inside_another:  # else the next alloc() or close() does it
                if not self._live:
                    self._end_bus_mastering()  # a signal handler may have closed the others since the look above
                self._reap()

    def _reap(self) -> None:
        """Free the ranges of closed buffers that have no views any more."""
        gone = [one for one in self._leaving - self._live if one.closed and not one.exports]
        for buffer in gone:
            buffer.page.free.give(*buffer.range_in_page)
            self._leaving.discard(buffer)
        if gone:
            self._release_unused_pages(keep=1)

    def _rebuild_free_ranges(self) -> None:
        """Work the free ranges out again from the buffers that exist: an exception may have ended a change early."""
        for buffer in self._leaving - self._live:
            buffer.close_views()
        self._source.keep_only(self._pages)
        for page in self._pages:
            taken = [buffer.range_in_page for buffer in self._live | self._leaving if buffer.page is page]
            page.free = FreeRanges(page.address, page.size, taken)

    def _release_unused_pages(self, keep: int = 0) -> None:
        """Give unused pages back to the kernel, except for a few, so that the next buffer of a lone one is quick."""
        unused = [page for page in self._pages if page.free.untouched]
        kept = [page for page in unused if page.lasting][:keep]
        unused = [page for page in unused if page not in kept]
        if unused and self._sends_messages and not self._source.guarded:
            return  # bus mastering stays on, and the device might still write to them
        for page in unused:
            self._pages.remove(page)
            self._source.release(page)

    def close(self) -> None:
        """End bus mastering, close every buffer and free all memory. A second close does nothing.

        `Device.close` calls it.
        """
        with self.lock:
            if self._closed:
                return
            self._closed = True
            for buffer in self._live:
                buffer.close_views()
            if self._is_master is not False:
                try:
                    self._switch_bus_mastering(on=False)
                except ClosedError:
                    # The program closed the configuration space first, so nothing here can stop the device any more.
                    # _open keeps the memory until the process ends, unless an IOMMU guards it.
                    if not self._source.guarded:
                        return
            self._live.clear()
            self._leaving.clear()
            for page in self._pages:
                self._source.release(page)
            self._pages.clear()
            self._source.close()
            _open.discard(self)

    def forget(self) -> None:
        """In a forked child: close everything, and do not touch the device, which is the parent's."""
        super().forget()
        self._closed = True
        for page in self._pages:
            page.forget()
        for buffer in self._live:
            buffer.close_views()

    def unpin(self) -> None:
        """In a forked child, once the device's files are closed there: pin the memory no longer."""
        for page in self._pages:
            page.let_go()
        self._pages.clear()

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error(f"memory for DMA of {self._name}")

    def _require_coherent(self) -> None:
        """Refuse a device of which nobody knows whether a physical address is the bus address, or whose caches lie."""
        if self._is_assumed or self._source.guarded or self._directory is None:
            return
        by_tree = device_tree.is_coherent(self._directory)
        if self._is_physical and by_tree is not False:
            return
        caches = {
            None: "nor whether caches follow the device",
            True: "though caches follow the device (dma-coherent)",
            False: "and the device tree does not say dma-coherent for it, so caches would hide what it writes",
        }
        reason = f"it is not a PCI function, so nobody knows the bus address of memory, {caches[by_tree]}"
        when = "its bus addresses are physical ones and its bus is coherent"
        if self._is_physical:
            reason = (
                "the device tree does not say dma-coherent for its host bridge, so the processor's caches would hide "
                "what the device writes, and the device would not see what the program writes"
            )
            when = "you know that it is coherent all the same"
        raise DmaUnavailableError(
            errno.EOPNOTSUPP,
            f"memory for DMA of {self._name}: {reason}; take memory from its kernel driver, or of u-dma-buf "
            f"(dma.adopt), or call dma.assume_coherent() if {when}",
        )

    def _end_bus_mastering(self) -> None:
        if self._is_master is not False and not self._sends_messages:
            self._switch_bus_mastering(on=False)

    def send_messages(self) -> None:
        """Keep bus mastering on until `close`, for interrupts that are messages. DeviceRemovedError: it is gone."""
        with self.lock:
            self._require_open()
            _open.add(self)
            self._sends_messages = True
            if self._is_master is not True:
                self._switch_bus_mastering(on=True)

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


def _checked_size(size: SupportsIndex) -> int:
    size = operator.index(size)
    if size < 1:
        raise ValueError(f"the size must be at least 1 byte, not {size}")
    return size


def _checked_align(align: SupportsIndex) -> int:
    align = operator.index(align)
    if align < 1 or align & (align - 1):
        raise ValueError(f"align must be a power of two, not {align}")
    return align


def _checked_mask(mask: SupportsIndex) -> int:
    mask = operator.index(mask)
    if not 1 <= mask <= ALL_ADDRESSES or mask & (mask + 1):
        raise ValueError(f"a mask is 2^n - 1, up to {ALL_ADDRESSES:#x}, not {mask:#x}")
    return mask


# Those with memory. This keeps them, because a device that nobody closed must not write to memory that was unmapped.
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
    release_after_fork(_lock)


os.register_at_fork(
    before=_lock.acquire,
    after_in_parent=functools.partial(release_after_fork, _lock),
    after_in_child=_forget_all,
)
