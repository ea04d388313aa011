# SPDX-License-Identifier: MIT
"""A piece of memory for DMA. `pyuio.dma.Dma` makes it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from pyuio._native._access import Window
from pyuio._native._memory import Span
from pyuio.dma.memory_source import Page
from pyuio.errors import ClosedError

if TYPE_CHECKING:
    import threading
    from types import TracebackType
    from typing import Protocol

    from typing_extensions import Buffer, Self

    from pyuio._native._access import Endian

    class Owner(Protocol):
        """The part of `Dma` that its buffers use."""

        lock: threading.RLock
        """Locked while a buffer is sliced or closed."""

        def close_buffer(self, buffer: DmaBuffer, /) -> None:
            """Close a buffer, or a part of one."""


# In bytes. No two buffers share a cache line: so a device's write to one buffer never meets a processor's write to the
# line of another.
CACHE_LINE = 64

_SHOWN = 128  # bytes that a notebook shows


def _characters(octets: bytes) -> str:
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in octets)


class DmaBuffer(Span):
    """Memory of a `Dma`: contiguous on the bus, pinned, with an address for the device.

    It is a writable buffer of bytes (``memoryview(buffer)``, ``numpy.frombuffer(buffer, dtype)``, ``file.readinto``);
    ``buffer[i]`` is a byte, ``buffer[a:b] = data`` copies, and ``buffer[a:b]`` is a `DmaBuffer` on that part, with the
    address of that part. Closing a part closes only that part. Closing the whole closes its parts.

    A context manager. It stays allocated until it is closed, even when the program has no reference to it any more,
    because the device may still have its address. A forked child must not use it: there it is closed, and views of it
    show zeros.

    Attributes:
        page: the page that it lies in, or the memory of a kernel driver's.
        offset_in_page: of its first byte, in bytes.
        whole: for a part, the buffer that `Dma.alloc` returned; None for that buffer itself.
    """

    def __init__(self, memory: Buffer, offset: int, size: int, owner: Owner, page: Page, at: int) -> None:
        super().__init__(memory, offset, size)
        self._owner = owner
        self.page = page
        self.offset_in_page = at
        self._windows: dict[Endian, Window] = {}
        self._parts: weakref.WeakSet[DmaBuffer] | None = None
        self.whole: DmaBuffer | None = None

    @property
    def address(self) -> int:
        """The bus address of its first byte. ClosedError: the buffer is closed."""
        self._require_open()
        return self.page.address + self.offset_in_page

    @property
    def range_in_page(self) -> tuple[int, int]:
        """The offset and the size of the range of its page that it occupies, for its owner."""
        if not self.page.shared:
            return 0, self.page.size
        return self.offset_in_page, -(-self.size // CACHE_LINE) * CACHE_LINE

    @property
    def registers(self) -> Window:
        """Exact-width access, little-endian: ``read32(offset)``, ``write32(offset, value)`` and so on, like a BAR's.

        It is for memory that the device reads while the program writes it: descriptors, indices, completion flags.
        """
        return self.window("little")

    def window(self, endian: Endian) -> Window:
        """Return what `registers` is, in a byte order, "little" or "big". `pyuio.RegisterMap` calls this."""
        self._require_open()
        if endian not in self._windows:
            name = f"DMA buffer at {self.page.pieces(self.offset_in_page, 1)[0][0]:#x}"
            kind = getattr(self.page, "window_class", Window)
            self._windows[endian] = kind(self, offset=0, size=self.size, name=name, endian=endian)
        return self._windows[endian]

    def verify(self) -> None:
        """Look its addresses up again; for memory of a kernel driver's (`Dma.adopt`) there is nothing to do.

        Raises:
            DmaMovedError: they are not those of its allocation.
            ClosedError: the buffer is closed.
        """
        self._require_open()
        self.page.verify(self.offset_in_page, self.size)

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError("the buffer is closed, or belongs to the process that this one was forked from")

    def _slice(self, offset: int, size: int) -> DmaBuffer:
        if size == 0:
            raise ValueError("an empty slice of a DMA buffer would have no address")
        part = type(self)(self, offset, size, self._owner, self.page, self.offset_in_page + offset)
        whole = self if self.whole is None else self.whole
        part.whole = whole
        with self._owner.lock:
            self._require_open()
            if whole._parts is None:
                whole._parts = weakref.WeakSet()
            whole._parts.add(part)
        return part

    def close(self) -> None:
        """Free it. Later uses of it, or of a part of it, raise ClosedError. A second close does nothing.

        The memory goes to no one else before the last memoryview and array on it is gone, so these neither crash nor
        change anything of others. But the device must not access it any more: closing the last buffer of a device ends
        bus mastering.
        """
        if not self.closed:
            self._owner.close_buffer(self)

    def close_views(self) -> None:
        """Close it, its parts and its registers, but free no memory: for its owner, which does that."""
        for part in self._parts or ():
            part.close_views()
        for window in self._windows.values():
            window.close()
        super().close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: its place, and its first bytes in hexadecimal."""
        from pyuio.process.html import table

        title = repr(self).strip("<>")
        if self.closed:
            return table(title, [])
        shown = min(self.size, _SHOWN)
        first = bytes(memoryview(self)[:shown])
        rows = [
            (f"{start:#06x}", first[start : start + 16].hex(" "), _characters(first[start : start + 16]))
            for start in range(0, shown, 16)
        ]
        return table(title, rows, note=f"and {self.size - shown} more bytes" * (shown < self.size))

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"at {self.address:#x}"
        return f"<DmaBuffer of {self.size} bytes {state}>"
