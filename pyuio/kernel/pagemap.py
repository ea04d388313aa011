# SPDX-License-Identifier: MIT
"""Where this process's pages are in physical memory (Documentation/admin-guide/mm/pagemap.rst)."""

from __future__ import annotations

import array
import errno
import mmap
import os

from pyuio.errors import PermissionDeniedError

_PRESENT = 1 << 63
_FRAME_NUMBER = (1 << 55) - 1

_HIDDEN = (
    "reading physical addresses from /proc/self/pagemap: the kernel hides them from this user; DMA from user space "
    "needs the capability CAP_SYS_ADMIN: run as root, or as a service that has it (pyuio setup --print shows a unit)"
)


def frame_numbers(start: int, size: int) -> list[int | None]:
    """Return the physical page numbers of part of this process's memory; None for a page that is not present.

    Args:
        start: address in this process.
        size: in bytes, at least 1.

    Raises:
        PermissionDeniedError: the kernel hides the numbers from this user.
    """
    first, last = start // mmap.PAGESIZE, (start + size - 1) // mmap.PAGESIZE
    entries = array.array("Q")
    try:
        file = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:
        raise PermissionDeniedError(errno.EACCES, _HIDDEN) from error
    try:
        entries.frombytes(os.pread(file, (last - first + 1) * 8, first * 8))
    finally:
        os.close(file)
    numbers = [entry & _FRAME_NUMBER if entry & _PRESENT else None for entry in entries]
    if 0 in numbers:  # since Linux 4.0 the kernel shows 0 instead of the number
        raise PermissionDeniedError(errno.EPERM, _HIDDEN)
    return numbers
