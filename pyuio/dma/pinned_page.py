# SPDX-License-Identifier: MIT
"""Memory that stays where it is: one page of the kernel, huge or not, and its bus address.

How it is kept in place: its first byte is put into a pipe by reference (vmsplice), so the pipe holds the page, and the
kernel neither migrates, swaps nor frees a page on which somebody else has a reference
(Documentation/mm/page_migration.rst). That needs no privilege and no setting.

How it outlives a process that is killed: a process that ends first loses its memory, then its descriptors
(kernel/exit.c, do_exit). Freed at the first step, the page could be someone else's while the device still writes to it;
it is the second step, the release of ``/dev/uioN``, that ends bus mastering (drivers/uio/uio_pci_generic.c). The pipe
holds the page across the first step. Across the second the order matters, and is not that of the descriptors: the
kernel puts the release of each file on a list that it works off from the end (kernel/task_work.c promises no order at
all). But what such a release releases in turn goes on a new list, which comes after. So the pipe is not a descriptor of
the process. Its only reference is a message in a socket (SCM_RIGHTS): the socket's release is on the first list, the
pipe's on the second, and by then ``/dev/uioN`` is closed, whatever the order.

(An io_uring's registered buffers hold pages, too, but a ring lets go of them in a kernel thread, at any time; it may
not be sent in a message; and many containers forbid it.)
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import socket
from collections.abc import Iterator

from pyuio._native._memory import fill_in, hold, leave_out, pointer
from pyuio.dma.free_ranges import FreeRanges
from pyuio.errors import DmaMovedError, KernelSupportError
from pyuio.kernel.hugepages import HugepageSize
from pyuio.kernel.pagemap import frame_numbers

# include/uapi/asm-generic/mman-common.h and mman.h; Python has no names for them.
_MAP_HUGETLB = 0x40000
_MAP_HUGE_SHIFT = 26


def held(memory: mmap.mmap) -> socket.socket:
    """Hold the page at the start of `memory` in place until the socket that is returned is closed, or the process ends.

    Raises:
        KernelSupportError: this process may not do that.
        OSError: the kernel's answer; EFAULT when there is no page to be had.
    """
    keeper, sender = socket.socketpair()
    with sender:
        try:
            # As files, which are closed when nobody has them any more, wherever Ctrl-C comes: an end of the pipe that
            # stayed open would hold the page until the process ends.
            reading, writing = map(io.FileIO, os.pipe(), "rw")
            with reading, writing:
                hold(memory, writing.fileno())
                socket.send_fds(sender, [b"\0"], [reading.fileno()])
        except OSError as error:
            keeper.close()
            if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):  # a sandbox's answers
                how = "holding memory in place by vmsplice and SCM_RIGHTS"
                reason = f"{how}: {error.strerror}; a sandbox (seccomp) forbids it"
                raise KernelSupportError(error.errno, reason) from error
            raise
    return keeper


class Segment:
    """One page, shared with forked children by neither copy nor mapping, held in place and present.

    Attributes:
        memory: its mapping.
        address: on the bus, which is the physical one.
        size: in bytes.
        free: the parts that nobody has.

    Args:
        huge: which hugepage; None for an ordinary page.

    Raises:
        OSError: there is none free (errno ENOMEM or EFAULT).
        PermissionDeniedError: this user may not know physical addresses.
    """

    def __init__(self, huge: HugepageSize | None) -> None:
        self.huge = huge
        self.size = mmap.PAGESIZE if huge is None else huge.size
        # Shared: of a private page, a write after a fork makes a copy, which can become the parent's.
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
        if huge is not None:
            flags |= _MAP_HUGETLB | (huge.size.bit_length() - 1) << _MAP_HUGE_SHIFT
        self.memory = mmap.mmap(-1, self.size, flags=flags)
        self._keeper: socket.socket | None = None
        # From here on a page that is missing (a cgroup's limit, say) is an error, by way of vmsplice, and no SIGBUS.
        try:
            leave_out(self.memory, True)
            self._keeper = held(self.memory)
            self._start = pointer(self.memory)
            self.memory[0] = 0  # in the page table from here on, for pagemap to show
            numbers = frame_numbers(self._start, self.size)
            first = numbers[0]
            if first is None or numbers != list(range(first, first + len(numbers))):
                reason = f"a page of {self.size} bytes is not in one piece in /proc/self/pagemap"
                raise DmaMovedError(errno.EFAULT, reason)
        except BaseException:
            self.let_move()
            self.memory.close()
            raise
        self.address = first * mmap.PAGESIZE
        self.free = FreeRanges(self.address, self.size)

    def verify(self, offset: int, size: int) -> None:
        """Look up the bus addresses of a part again. DmaMovedError: they are not what they were."""
        self.memory[offset]  # the kernel may have dropped it from the page table, though the page is where it was
        page = mmap.PAGESIZE
        first = (self.address + offset) // page
        numbers = frame_numbers(self._start + offset, size)
        for index, number in enumerate(numbers):
            if number != first + index:
                now = "is not present" if number is None else f"is at {number * page:#x}"
                raise DmaMovedError(errno.EFAULT, f"the page that was at {(first + index) * page:#x} {now}")

    def forget(self) -> None:
        """In a forked child: put zeros where the memory is not, so that views of it crash nothing.

        The child goes on holding the page, since it holds ``/dev/uioN``, too, and with both of them open the parent's
        end does not end bus mastering: `let_move` comes after that is closed.
        """
        with contextlib.suppress(OSError):  # something else is there already; then the mapping stays for good
            fill_in(self.memory)

    def let_move(self) -> None:
        """Hold it no longer: for one that is kept only so that the kernel does not offer it again."""
        if self._keeper is not None:
            self._keeper.close()

    def close(self) -> None:
        """Give the page back. What others have exported of it stays until they let go, as ordinary shared memory."""
        self.let_move()
        try:
            self.memory.close()
        except BufferError:
            leave_out(self.memory, False)  # nobody will fill it in any more


def new_segments(huge: HugepageSize | None) -> Iterator[Segment]:
    """Yield new segments, each made when it is asked for, as long as there are pages of this kind; see `Segment`."""
    while True:
        try:
            segment = Segment(huge)
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.EFAULT):
                return
            raise
        yield segment
