# SPDX-License-Identifier: MIT
"""Memory for DMA: the part of `pyuio.dma` that Python cannot do. The C is in ``_memory.c``."""

import mmap
from typing import SupportsIndex, overload

from typing_extensions import Buffer, Self

class Span:
    """`size` bytes that start `offset` bytes into a writable buffer, exported as a writable buffer of bytes.

    A copy is one ``memmove``, which promises no width of its accesses. For registers, and for descriptors that a device
    may read meanwhile, use a `pyuio._native._access.Window` on the span. Subclasses define ``_slice(offset, size)``.

    Raises:
        BufferError: the buffer is read-only.
        ValueError: the span is not inside the buffer, or `size` is 0.
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
        """Close it: later uses raise `pyuio.errors.ClosedError`. The memory is released when `exports` comes to 0."""

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

def pin_by_pipe(memory: Buffer, pipe: int, /) -> None:
    """Put the first byte of `memory` into a pipe by reference (vmsplice), which pins its page.

    The kernel brings the page in, all of it if it is a hugepage. It neither moves nor frees the page before the pipe.

    Raises:
        OSError: the kernel's answer; EFAULT when there is no page to be had.
    """

def set_dontfork(memory: Buffer, dontfork: bool, /) -> None:
    """Leave a mapping out of forked children (True), or no longer (False), by madvise. OSError: the kernel's answer."""

def fill_hole(memory: Buffer, /) -> None:
    """In a forked child, map zeros where `set_dontfork` left a hole, so that no view of the memory crashes.

    Raises:
        OSError: EEXIST when something else was mapped there meanwhile.
    """

def map_file_over(memory: Buffer, file: int, offset: int, /) -> None:
    """Map a file, shared, in place of a mapping, whose object then has no descriptor of that file.

    Args:
        memory: the mapping, or whole pages of it; all that is in it is lost.
        file: a descriptor.
        offset: where in the file the new mapping starts, in bytes, a multiple of the page size.

    Raises:
        OSError: the kernel's answer.
    """

def map_zeros_over(memory: mmap.mmap, /) -> None:
    """Map zeros in place of a mapping, whatever still uses its addresses. OSError: the kernel's answer."""

def punch_hole(file: int, offset: int, size: int, /) -> None:
    """Free the pages of a part of a file in memory, fallocate(2). OSError: the kernel's answer."""

def dma_wmb() -> None:
    """Order stores to memory that a device reads: it sees those before this call before those after it (dma_wmb)."""

def dma_rmb() -> None:
    """Order loads of memory that a device writes: those before this call come before those after it (dma_rmb)."""
