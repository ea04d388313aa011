# SPDX-License-Identifier: MIT
"""A piece of memory for DMA, and a pool of such pieces. `pyuio.dma.Dma` makes both."""

from __future__ import annotations

import mmap
import weakref
from typing import TYPE_CHECKING

from pyuio._native._access import Window
from pyuio._native._memory import Span
from pyuio.dma.pinned_page import Segment
from pyuio.errors import ClosedError, DmaMemoryError

if TYPE_CHECKING:
    import threading
    from types import TracebackType
    from typing import Protocol

    from typing_extensions import Self

    class Owner(Protocol):
        """What a buffer needs of the `Dma` that it comes from."""

        lock: threading.RLock
        """Held while a buffer is cut or closed."""

        def give_back(self, buffer: DmaBuffer, /) -> None:
            """Close a buffer, or a part of one."""


# Buffers never share one of these, in bytes: what a device writes to one then never meets a processor's write to
# another's cache line.
CACHE_LINE = 64


class DmaBuffer(Span):
    """Memory of a `Dma`: physically contiguous, held in place, with an address for the device.

    It is a writable buffer of bytes (``memoryview(buffer)``, ``numpy.frombuffer(buffer, dtype)``, ``file.readinto``);
    ``buffer[i]`` is a byte, ``buffer[a:b] = data`` copies, and ``buffer[a:b]`` is a `DmaBuffer` on that part, with the
    address of that part. Closing a part closes that part only. Closing the whole closes its parts.

    A context manager. It stays allocated until it is closed, even when the program forgets it, because the device may
    not have. Not to be used in a forked child: there it is closed, and views of it show zeros.
    """

    def __init__(self, memory: Span | mmap.mmap, offset: int, size: int, owner: Owner, place: Segment, at: int) -> None:
        super().__init__(memory, offset, size)
        self._owner = owner
        self.place = place
        self.at = at  # offset in the place
        self._registers: Window | None = None
        self._parts: weakref.WeakSet[DmaBuffer] | None = None
        self.whole: DmaBuffer | None = None  # of a part: what it is a part of, first of all

    @property
    def address(self) -> int:
        """Of the first byte, on the bus. ClosedError: it is closed."""
        self._require_open()
        return self.place.address + self.at

    @property
    def room(self) -> tuple[int, int]:
        """The offset and the size of what it takes of its place, for its owner."""
        return self.at, -(-self.size // CACHE_LINE) * CACHE_LINE

    @property
    def registers(self) -> Window:
        """Exact-width access: ``read32(offset)``, ``write32(offset, value)`` and so on, as a BAR has, little-endian.

        For what the device looks at while the program writes it: descriptors, indices, completion flags.
        """
        self._require_open()
        if self._registers is None:
            name = f"DMA buffer at {self.address:#x}"
            self._registers = Window(self, offset=0, size=self.size, name=name, endian="little")
        return self._registers

    def verify(self) -> None:
        """Look its pages up again.

        Raises:
            DmaMovedError: they are not where they were when it was allocated.
            ClosedError: it is closed.
        """
        self._require_open()
        self.place.verify(self.at, self.size)

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedError("the buffer is closed, or belongs to the process that this one was forked from")

    def _slice(self, offset: int, size: int) -> DmaBuffer:
        if size == 0:
            raise ValueError("an empty slice of a DMA buffer would have no address")
        part = DmaBuffer(self, offset, size, self._owner, self.place, self.at + offset)
        whole = self if self.whole is None else self.whole
        part.whole = whole
        with self._owner.lock:
            self._require_open()
            if whole._parts is None:
                whole._parts = weakref.WeakSet()
            whole._parts.add(part)
        return part

    def close(self) -> None:
        """Give it back. Using it, or a part of it, raises ClosedError from then on; again is harmless.

        The memory is not given to anyone else before the last memoryview and array on it is gone, so these crash
        nothing and spoil nothing. But the device may not be at it any more: with the last buffer of a device, bus
        mastering ends.
        """
        if not self.closed:
            self._owner.give_back(self)

    def shut(self) -> None:
        """Close it and its parts, without giving the memory back: for its owner."""
        for part in self._parts or ():
            part.shut()
        if self._registers is not None:
            self._registers.close()
        super().close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"at {self.address:#x}"
        return f"<DmaBuffer of {self.size} bytes {state}>"


class DmaPool:
    """Buffers of equal size, to take and to give back in no time. `Dma.pool` makes it.

    What comes out holds what it held when it was given back; at first, zeros. Closing a buffer does not give it back.
    """

    def __init__(self, wholes: list[DmaBuffer], buffers: list[DmaBuffer]) -> None:
        self.wholes = wholes
        self._free = buffers
        self._taken: set[DmaBuffer] = set()
        self._count = len(buffers)

    def __len__(self) -> int:
        """How many are there to take."""
        return len(self._free)

    def take(self) -> DmaBuffer:
        """Return a buffer that nobody has. DmaMemoryError: there is none; ClosedError: the pool is closed."""
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
            ValueError: it was given back already, or is not one of the pool's.
            ClosedError: the pool is closed.
        """
        try:
            self._taken.remove(buffer)
        except KeyError:
            if not self.wholes:
                raise ClosedError("the pool is closed") from None
            raise ValueError(f"{buffer!r} was not taken from this pool, or was given back already") from None
        if buffer.closed and buffer.whole is not None:  # by a with statement: the same part is cut anew
            start = buffer.at - buffer.whole.at
            buffer = buffer.whole[start : start + buffer.size]
        self._free.append(buffer)

    def close(self) -> None:
        """Close all buffers, taken or not; again is harmless."""
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
