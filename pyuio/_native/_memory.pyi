# SPDX-License-Identifier: MIT
"""Memory for DMA: what `pyuio.dma` cannot do in Python. The C is in ``_memory.c``."""

from typing import SupportsIndex, overload

from typing_extensions import Buffer, Self

class Span:
    """`size` bytes that start `offset` bytes into a writable buffer, exported as a writable buffer of bytes.

    Copies are one ``memmove``, with no promise on the width of accesses; for registers and descriptors that a device
    looks at meanwhile use a `pyuio._native._access.Window` on it. Subclasses define ``_slice(offset, size)``.

    Raises:
        BufferError: the buffer is read-only.
        ValueError: it is not inside the buffer, or `size` is 0.
    """

    def __init__(self, buffer: Buffer, offset: int, size: int, /) -> None: ...
    @property
    def size(self) -> int:
        """In bytes, also after `close`."""

    @property
    def exports(self) -> int:
        """How many memoryviews, arrays, windows and spans of it there are."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def close(self) -> None:
        """Later uses raise `pyuio.errors.ClosedError`. The memory is let go when `exports` comes to 0."""

    def zero(self) -> None:
        """Fill it with zeros."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    @overload
    def __setitem__(self, key: SupportsIndex, value: int) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: Buffer) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def pointer(memory: Buffer, /) -> int:
    """Return the address of `memory` in this process."""

def hold(memory: Buffer, pipe: int, /) -> None:
    """Put the first byte of `memory` into a pipe by reference (vmsplice), so that its page stays where it is.

    The page, all of it if it is a hugepage, is brought in, and neither moves nor is freed until the pipe is.

    Raises:
        OSError: the kernel's answer; EFAULT when no page is to be had.
    """

def leave_out(memory: Buffer, out: bool, /) -> None:
    """Leave a mapping out of the children of a fork, or no longer (madvise). OSError: the kernel's answer."""

def fill_in(memory: Buffer, /) -> None:
    """In a forked child, map zeros where `leave_out` left a hole, so that no view of it crashes.

    Raises:
        OSError: EEXIST when something else was mapped there meanwhile.
    """

def dma_wmb() -> None:
    """Order stores to memory that a device reads: those before it are seen before those after it (Linux's dma_wmb)."""

def dma_rmb() -> None:
    """Order loads of memory that a device writes: those before it happen before those after it (Linux's dma_rmb)."""
