# SPDX-License-Identifier: MIT
"""The memory of a guest, by bus address, for a card in another process: files that this process maps, too."""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Iterable
from typing import NamedTuple

from pyuio.model.host import MasterAbortError


class Piece(NamedTuple):
    """A piece of a guest's memory.

    Attributes:
        address: of its first byte on the bus.
        size: in bytes.
        memory: the mapped file that it is in.
        offset: of its first byte in that.
    """

    address: int
    size: int
    memory: mmap.mmap
    offset: int


class GuestMemory:
    """The memory that cards reach: no IOMMU is between."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], mmap.mmap] = {}
        self._pieces: list[Piece] = []

    def set(self, pieces: Iterable[tuple[int, int, int, int]]) -> None:
        """Forget the pieces that there were, and take these.

        Args:
            pieces: address and size of each, the descriptor of a file, which this closes, and the offset there.
        """
        self._pieces = []
        for piece in pieces:
            self.add(*piece)

    def add(self, address: int, size: int, descriptor: int, offset: int) -> None:
        """Take one piece; see `set`."""
        try:
            status = os.fstat(descriptor)
            key = status.st_dev, status.st_ino
            if key not in self._files:
                self._files[key] = mmap.mmap(descriptor, status.st_size)
        finally:
            os.close(descriptor)
        bisect.insort(self._pieces, Piece(address, size, self._files[key], offset), key=lambda piece: piece.address)

    def remove(self, address: int, size: int) -> None:
        """Forget the pieces that lie inside."""
        self._pieces = [one for one in self._pieces if not address <= one.address < address + size]

    def _parts(self, address: int, length: int) -> Iterable[tuple[Piece, int, int]]:
        """Yield the pieces that an access touches, with where it begins and ends in their files."""
        while length > 0:
            at = bisect.bisect_right(self._pieces, address, key=lambda piece: piece.address) - 1
            piece = self._pieces[at] if at >= 0 else None
            if piece is None or address >= piece.address + piece.size:
                raise MasterAbortError(f"the guest has no memory at {address:#x}")
            here = min(length, piece.address + piece.size - address)
            start = piece.offset + address - piece.address
            yield piece, start, start + here
            address, length = address + here, length - here

    def read(self, address: int, length: int) -> bytes:
        """Return bytes of the memory. MasterAbortError: there is none there."""
        return b"".join(piece.memory[start:end] for piece, start, end in list(self._parts(address, length)))

    def write(self, address: int, data: bytes) -> None:
        """Write bytes to the memory. MasterAbortError: there is none there."""
        done = 0
        for piece, start, end in list(self._parts(address, len(data))):
            piece.memory[start:end] = data[done : done + end - start]
            done += end - start
