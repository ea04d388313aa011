# SPDX-License-Identifier: MIT
"""The kernel's hugepages: which sizes exist, how many are free, and how to reserve more.

Source: Documentation/admin-guide/mm/hugetlbpage.rst.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import re
import threading
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import KernelFileError
from pyuio.kernel.sysfs import read_number, write_text
from pyuio.process.late import release_after_fork

# include/uapi/asm-generic/mman-common.h and hugetlb_encode.h; Python has no names for these.
MAP_HUGETLB = 0x40000
_HUGETLB_SHIFT = 26

_LEAST = 1 << 20  # bytes
_DIRECTORY = Path("/sys/kernel/mm/hugepages")
_NAME = r"hugepages-([1-9][0-9]{0,11})kB"
# The lock is recursive because a signal handler that closes a device may enter it again. It is held across a fork so
# that the child finds it free.
_changing = threading.RLock()
_release = functools.partial(release_after_fork, _changing)
os.register_at_fork(before=_changing.acquire, after_in_parent=_release, after_in_child=_release)


class HugepageSize(NamedTuple):
    """Hugepages of one size. `total` and `free` ask the kernel each time.

    Attributes:
        size: in bytes, a power of two.
    """

    size: int

    @property
    def _directory(self) -> Path:
        return _DIRECTORY / f"hugepages-{self.size >> 10}kB"

    @property
    def total(self) -> int:
        """How many there are, used or free."""
        return read_number(self._directory / "nr_hugepages")

    @property
    def free(self) -> int:
        """How many are free and not promised to anyone."""
        free, reserved = (read_number(self._directory / name) for name in ("free_hugepages", "resv_hugepages"))
        return free - reserved

    @property
    def set_aside(self) -> int:
        """The number that writing nr_hugepages sets: all except surplus ones, which go when their user frees them."""
        while True:
            surplus = read_number(self._directory / "surplus_hugepages")
            total = self.total
            if surplus == read_number(self._directory / "surplus_hugepages"):  # else the number changed in between
                return total - surplus

    @property
    def may_change(self) -> bool:
        """Whether this process may change how many hugepages the kernel sets aside."""
        return os.access(self._directory / "nr_hugepages", os.W_OK)

    def command(self, more: int = 1) -> str:
        """Return the command for a root shell that sets `more` hugepages aside in addition to the present ones."""
        return f"echo {self.set_aside + more} > {self._directory}/nr_hugepages"

    def change(self, more: int) -> bool:
        """Have the kernel set more hugepages aside, or fewer.

        The kernel frees hugepages that are in use when their user frees them. If another process changes the number
        between the read and the write, its change is lost: the kernel has no way to ask for one more.

        Args:
            more: how many to add; to remove if negative.

        Returns:
            Whether the kernel could do it and this user may.
        """
        with _changing, contextlib.suppress(OSError):
            wanted = max(0, self.set_aside + more)
            write_text(self._directory / "nr_hugepages", str(wanted))
            return self.set_aside >= wanted
        return False

    def change_overcommit(self, more: int) -> bool:
        """Let mappings have more surplus hugepages, or fewer.

        The kernel finds a surplus hugepage when somebody maps it and none is free, and takes it back when nobody uses
        it. The number limits how many there may be; what is in use stays. As with `change`, another process's change at
        the same moment may be lost.

        Args:
            more: how many to add to the limit; to subtract if negative.

        Returns:
            Whether this user may.
        """
        file = self._directory / "nr_overcommit_hugepages"
        with _changing, contextlib.suppress(OSError):
            write_text(file, str(max(0, read_number(file) + more)))
            return True
        return False

    def __str__(self) -> str:
        return f"{self.size >> 10} kB"


def size_flag(size: int) -> int:
    """Return the flag of mmap and memfd_create for hugepages of so many bytes."""
    return (size.bit_length() - 1) << _HUGETLB_SHIFT


def parse_size(name: str) -> HugepageSize:
    """Return the size in the name of a directory, ``hugepages-2048kB``. KernelFileError: the name has another form."""
    match = re.fullmatch(_NAME, name)
    if match is None:
        raise KernelFileError(f"{_DIRECTORY} should have directories such as hugepages-2048kB, not {name[:80]!r}")
    return HugepageSize(int(match[1]) << 10)


def hugepages() -> list[HugepageSize]:
    """Return the sizes of hugepages that this kernel has, smallest first; [] if it has none.

    Those of 64 kB, which arm64 and RISC-V have beside larger ones, are left out: contiguous memory comes in larger
    pieces.
    """
    try:
        names = [entry.name for entry in _DIRECTORY.iterdir()]
    except OSError:
        return []
    return sorted(size for size in map(parse_size, names) if size.size >= _LEAST)


def why_none(size: int) -> str:
    """Return why this process cannot get a hugepage of at least `size` bytes, and what to do."""
    sizes = hugepages()
    huge = next((huge for huge in sizes if huge.size >= size), None)
    early = "on the kernel's command line"
    if not sizes:
        return f"this kernel has no hugepages (CONFIG_HUGETLBFS), and a page has {mmap.PAGESIZE} bytes"
    if huge is None:
        larger = f"if the processor has larger ones, reserve them by hugepagesz=1G hugepages=1 {early}"
        return f"the largest hugepage of this kernel has {sizes[-1]}; {larger}"
    left = f"{huge.free} of {huge.total} hugepages of {huge} are free"
    if huge.may_change:
        return f"{left}, and the kernel found no memory for another; free some, or reserve hugepages=N {early}"
    return f"{left}, and this process could not reserve more; as root: {huge.command()}"
