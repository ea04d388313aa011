# SPDX-License-Identifier: MIT
"""The mapping under a `Region`, by periphery. The first region imports this module, and so periphery."""

from __future__ import annotations

import contextlib
import mmap
import os

from periphery import MMIO

from pyuio._native._memory import fill_hole, map_file_over, map_zeros_over, set_dontfork


class Mapping(MMIO):
    """periphery's MMIO without its finalizer, which would complain if it ran before that of the region."""

    mapping: mmap.mmap

    def let_go(self) -> None:
        """Unmap it even if something still uses it. Only a `RevocableMapping` can do that; this does nothing."""

    inherited = True
    """Whether forked children get it."""

    def inherit(self) -> None:
        """Let children that are forked from now on get it, as they get this one anyway."""

    def forget(self) -> None:
        """In a forked child: fill the hole that a mapping leaves that is not inherited. This one is."""

    def __del__(self) -> None:
        """Do nothing: the mmap object unmaps when its last user is gone."""

    def _open(self, offset: int, size: int, path: str) -> None:
        """Map `size` bytes of a file, as periphery's own method does; `offset` is a multiple of the page size."""
        self._physaddr = self._aligned_physaddr = offset
        self._size = self._aligned_size = size
        self.mapping = self._map(offset, size, path)

    def _map(self, offset: int, size: int, path: str) -> mmap.mmap:
        """Return the mapping. periphery leaves the file open when the kernel refuses, and with it a UIO node."""
        file = os.open(path, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)
        try:
            return mmap.mmap(file, size, offset=offset)
        finally:
            os.close(file)


class OpenFileMapping(Mapping):
    """A mapping of a file that is open already, and cannot be opened twice.

    Args:
        file: its descriptor, which stays the caller's.
        offset: where in the file, in bytes, a multiple of the page size.
        size: in bytes.

    Raises:
        OSError: the kernel's answer.
    """

    def __init__(self, file: int, offset: int, size: int) -> None:
        self._file = file
        super().__init__(offset, size)

    def _map(self, offset: int, size: int, _path: str) -> mmap.mmap:
        return mmap.mmap(self._file, size, offset=offset)


class RevocableMapping(Mapping):
    """A mapping of a BAR by VFIO's file of the function, which can be taken away from whatever uses it.

    The kernel gives a function back only when nothing maps its BARs. So `let_go` maps zeros in their place, at the same
    addresses: neither a view of the memory nor a native program crashes. A forked child does not get the mapping, for
    the same reason, unless it is told to. The mmap object has no descriptor of the file, which would be one more to
    close.

    Args:
        file: a descriptor of the function's file, which the caller keeps open until `let_go` or `close`.
        offset: of the BAR in the file, in bytes.
        size: of the BAR, in bytes.

    Raises:
        OSError: the kernel's answer.
    """

    def __init__(self, file: int, offset: int, size: int) -> None:
        self.file = self._device = file
        self.offset = offset
        self.inherited = False
        super().__init__(offset, size)

    def _map(self, offset: int, size: int, _path: str) -> mmap.mmap:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            map_file_over(mapping, self._device, offset)
            set_dontfork(mapping, True)
        except BaseException:
            mapping.close()
            raise
        return mapping

    def let_go(self) -> None:
        """Unmap the BAR and map zeros there. A second call, and one after `close`, does nothing."""
        mapping = self.mapping
        if mapping is not None:
            with contextlib.suppress(ValueError):  # another thread has closed it meanwhile
                map_zeros_over(mapping)

    def inherit(self) -> None:
        """Let children that are forked from now on get it."""
        if not self.inherited:
            # Map it anew: the kernel refuses to take back that children lack device memory (mm/madvise.c, MADV_DOFORK).
            map_file_over(self.mapping, self._device, self._aligned_physaddr)
            self.inherited = True

    def forget(self) -> None:
        """In a forked child: map zeros where the BAR is missing."""
        mapping = self.mapping
        if mapping is not None and not self.inherited:
            # Something else is mapped there already; or another thread of the parent was closing it.
            with contextlib.suppress(OSError, ValueError):
                fill_hole(mapping)
