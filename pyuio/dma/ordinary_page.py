# SPDX-License-Identifier: MIT
"""A search for an ordinary page below a mask: it takes more and more of them and looks where they are.

They are pages of a file in memory, which the kernel has back when the search ends, or when the process is killed. The
one that is found stays, pinned as `pyuio.dma.pinned_page` says.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
from collections.abc import Callable

from pyuio._native._memory import pointer, punch_hole, set_dontfork
from pyuio.dma.pinned_page import PinnedPage
from pyuio.kernel.pagemap import frame_numbers

# In bytes. What is taken first, and by each later step at most; and what is taken in all, which takes seconds.
_FIRST, _STEP, _MOST = 256 << 10, 256 << 20, 1 << 30
_MADV_POPULATE_WRITE = 23  # Linux 5.14; include/uapi/asm-generic/mman-common.h


def ordinary_page(fits: Callable[[int, int], bool], spare: Callable[[], int]) -> tuple[PinnedPage | None, int]:
    """Return a pinned page, or None if there is none to be had, and how many were looked at.

    Args:
        fits: says of a physical address and a size whether memory there will do.
        spare: returns how many more bytes may be taken.
    """
    page = mmap.PAGESIZE
    looked_at = 0
    with io.FileIO(os.memfd_create("pyuio", os.MFD_CLOEXEC), "r+") as file:
        step = _FIRST
        while step := min(step, spare() // page * page, _MOST - looked_at * page):
            start = looked_at * page
            os.ftruncate(file.fileno(), start + step)
            for index in _indices(file, start, step, fits):
                found = PinnedPage(None, mmap.mmap(file.fileno(), page, offset=start + index * page))
                if fits(found.address, page):  # it did not move before it was pinned
                    _keep_only(file, start + index * page)
                    return found, looked_at + index + 1
                found.close()
            looked_at += step // page
            step = min(_STEP, 4 * step)
    return None, looked_at


def _indices(file: io.FileIO, start: int, size: int, fits: Callable[[int, int], bool]) -> list[int]:
    """Bring pages of a file in; return the numbers of those that fit, [] if there is no memory for all."""
    try:
        os.posix_fallocate(file.fileno(), start, size)  # or the lack of memory would be a SIGBUS below
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.ENOSPC):
            return []
        raise
    with mmap.mmap(file.fileno(), size, offset=start) as memory:
        set_dontfork(memory, True)
        try:
            memory.madvise(_MADV_POPULATE_WRITE)
        except OSError:  # an older kernel
            for offset in range(0, size, mmap.PAGESIZE):
                memory[offset] = 0
        numbers = frame_numbers(pointer(memory), size)
    page = mmap.PAGESIZE
    return [index for index, number in enumerate(numbers) if number is not None and fits(number * page, page)]


def _keep_only(file: io.FileIO, offset: int) -> None:
    """Give all pages of a file but one back."""
    if offset:
        punch_hole(file.fileno(), 0, offset)
    os.ftruncate(file.fileno(), offset + mmap.PAGESIZE)
