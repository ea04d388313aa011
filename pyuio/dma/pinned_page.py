# SPDX-License-Identifier: MIT
"""A pinned page: memory that stays where it is, and its bus address. The kernel's page is huge or not.

What pins it: vmsplice puts its first byte into a pipe by reference. So the pipe holds the page, and the kernel neither
migrates, swaps nor frees a page to which something else has a reference (Documentation/mm/page_migration.rst). This
needs no privilege and no setting.

How it outlives a process that is killed. A process that ends loses first its memory, then its descriptors
(kernel/exit.c, do_exit). If the first step freed the page, the kernel could give it to someone else while the device
still writes to it: only the second step, the release of ``/dev/uioN``, ends bus mastering
(drivers/uio/uio_pci_generic.c). The pipe holds the page across the first step. Across the second step the order of
releases matters, which is not that of the descriptors. The kernel puts the release of each file on a list and works the
list off from its end (kernel/task_work.c promises no order at all). But the releases that such a release causes go on a
new list, which comes after the first. So the process has no descriptor of the pipe. The pipe's only reference is a
message in a socket (SCM_RIGHTS): the socket's release is on the first list, and the pipe's is on the second. By then
``/dev/uioN`` is closed, whatever the order.

(The registered buffers of an io_uring hold pages, too. But a ring releases them in a kernel thread, at any time; a
message may not carry it; and many containers forbid it.)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyuio._native._memory import fill_hole, pin_by_pipe, pointer, set_dontfork
from pyuio.dma.free_ranges import FreeRanges
from pyuio.errors import DmaMovedError, KernelSupportError
from pyuio.kernel.hugepages import MAP_HUGETLB, HugepageSize, size_flag
from pyuio.kernel.pagemap import frame_numbers

if TYPE_CHECKING:
    import socket

# A pipe may have so many pages without a privilege (/proc/sys/fs/pipe-max-size).
_PAGES_OF_A_PIPE = 256


def pin(memory: mmap.mmap, page: int) -> socket.socket:
    """Pin the pages of `memory` until the socket that this returns closes, or the process ends.

    Args:
        memory: whole pages; the kernel brings each in.
        page: the size of each, in bytes.

    Raises:
        KernelSupportError: this process may not do that.
        OSError: the kernel's answer; EFAULT when there is no page to be had.
    """
    import socket

    keeper, sender = socket.socketpair()
    with sender, memoryview(memory) as view:
        try:
            for start in range(0, len(view), _PAGES_OF_A_PIPE * page):
                # File objects close their descriptors when nothing refers to them any more, wherever Ctrl-C comes. An
                # end of the pipe that stayed open would pin the page until the process ends.
                reading, writing = map(io.FileIO, os.pipe(), "rw")
                with reading, writing:
                    offsets = range(start, min(len(view), start + _PAGES_OF_A_PIPE * page), page)
                    if len(offsets) > 1:
                        fcntl.fcntl(writing.fileno(), fcntl.F_SETPIPE_SZ, len(offsets) * mmap.PAGESIZE)
                    for offset in offsets:
                        with view[offset : offset + 1] as first:
                            pin_by_pipe(first, writing.fileno())
                    socket.send_fds(sender, [b"\0"], [reading.fileno()])
        except OSError as error:
            keeper.close()
            if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):  # the answers of a sandbox
                how = "pinning memory by vmsplice and SCM_RIGHTS"
                reason = f"{how}: {error.strerror}; a sandbox (seccomp) forbids it"
                raise KernelSupportError(error.errno, reason) from error
            raise
    return keeper


def require_in_place(memory: mmap.mmap, start: int, offset: int, pieces: list[tuple[int, int]], page_size: int) -> None:
    """Look physical addresses up again. DmaMovedError: they have changed.

    Args:
        memory: the mapping.
        start: its address in this process.
        offset: of the part that is looked up.
        pieces: the addresses at which it should be, and the size of each.
        page_size: of the pages of the mapping, in bytes.
    """
    page = mmap.PAGESIZE
    for address, size in pieces:
        for at in range(offset // page_size * page_size, offset + size, page_size):
            memory[at]  # the kernel may have dropped the page from the page table without moving it
        first = address // page
        numbers = frame_numbers(start + offset, size)
        expected = range(first, first + len(numbers))
        if numbers != list(expected):
            number, right = next(pair for pair in zip(numbers, expected, strict=True) if pair[0] != pair[1])
            now = "is not present" if number is None else f"is at {number * page:#x}"
            raise DmaMovedError(errno.EFAULT, f"the page that was at {right * page:#x} {now}")
        offset += size


class Pinned:
    """A mapping that a socket pins, and its end.

    Attributes:
        memory: the mapping.
    """

    memory: mmap.mmap
    _pin: socket.socket | None = None

    def forget(self) -> None:
        """In a forked child: map zeros where the memory is missing, so that views of it do not crash.

        The child keeps the page pinned, because it still has ``/dev/uioN`` open, too. While it has, the parent's end
        does not end bus mastering. So the child closes ``/dev/uioN`` first and calls `unpin` afterwards.
        """
        with contextlib.suppress(OSError):  # something else is mapped there already; then this mapping stays for good
            fill_hole(self.memory)

    def unpin(self) -> None:
        """Pin it no longer. A page that is kept only so that the kernel does not offer it again need not be pinned."""
        if self._pin is not None:
            self._pin.close()

    let_go = unpin

    def close(self) -> None:
        """Unpin and unmap it. Memory that views still export stays until they are gone, as ordinary shared memory."""
        self.unpin()
        try:
            self.memory.close()
        except BufferError:
            set_dontfork(self.memory, False)  # forget() will not fill the hole any more


class PinnedPage(Pinned):
    """One page, present and pinned. Forked children have neither a copy nor a mapping of it.

    Attributes:
        memory: its mapping.
        address: its bus address, which is the physical one.
        size: in bytes.
        free: the parts that belong to no buffer.
        count: how many pages it is: one.

    Args:
        huge: the size of hugepage; None for an ordinary page.
        memory: a shared mapping of such a page; None for a new one.

    Raises:
        OSError: no page is free (errno ENOMEM or EFAULT).
        PermissionDeniedError: this user may not know physical addresses.
    """

    shared = True
    lasting = True
    count = 1

    def __init__(self, huge: HugepageSize | None, memory: mmap.mmap | None = None) -> None:
        self.huge = huge
        self.size = mmap.PAGESIZE if huge is None else huge.size
        # Shared: a write to a private page after a fork makes a copy, which can become the parent's.
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        if huge is not None:
            flags |= MAP_HUGETLB | size_flag(huge.size)
        self.memory = mmap.mmap(-1, self.size, flags=flags) if memory is None else memory
        # vmsplice makes a missing page (a cgroup's limit, for example) an error here, and no SIGBUS later.
        try:
            set_dontfork(self.memory, True)
            self._pin = pin(self.memory, self.size)
            self._start = pointer(self.memory)
            self.memory[0] = 0  # puts the page into the page table, which pagemap shows
            numbers = frame_numbers(self._start, self.size)
            first = numbers[0]
            if first is None or numbers != list(range(first, first + len(numbers))):
                reason = f"a page of {self.size} bytes is not in one piece in /proc/self/pagemap"
                raise DmaMovedError(errno.EFAULT, reason)
        except BaseException:
            self.unpin()
            self.memory.close()
            raise
        self.address = first * mmap.PAGESIZE
        self.free = FreeRanges(self.address, self.size)

    def pieces(self, offset: int, size: int) -> list[tuple[int, int]]:
        """Return the bus address and the size of a part, in a list."""
        return [(self.address + offset, size)]

    def verify(self, offset: int, size: int) -> None:
        """Look the bus addresses of a part up again. DmaMovedError: they have changed."""
        require_in_place(self.memory, self._start, offset, self.pieces(offset, size), self.size)


def pinned_pages(huge: HugepageSize) -> Iterator[PinnedPage]:
    """Yield new hugepages of this kind as long as there are any, each made when the caller asks for it."""
    while True:
        try:
            page = PinnedPage(huge)
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.EFAULT):
                return
            raise
        yield page
