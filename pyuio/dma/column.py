# SPDX-License-Identifier: MIT
"""A field of all entries of a descriptor ring, as integers; the ring's bytes are little-endian on every processor."""

from __future__ import annotations

import operator
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, SupportsIndex, TypeAlias, Union, cast, overload

if TYPE_CHECKING:
    from typing_extensions import Buffer


class SwappedColumn(Sequence[int]):
    """A memoryview of unsigned integers whose bytes are in the other order than the processor's.

    Args:
        items: the integers as the processor reads them, of 16, 32 or 64 bits.
    """

    __slots__ = ("_items", "_size")

    def __init__(self, items: memoryview[int]) -> None:
        self._items = items
        self._size = items.itemsize

    def __len__(self) -> int:
        """How many integers there are."""
        return len(self._items)

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...

    @overload
    def __getitem__(self, index: slice, /) -> SwappedColumn: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> int | SwappedColumn:
        """Return one integer, by one load; or those of a slice, which share the memory."""
        if isinstance(index, slice):
            return SwappedColumn(self._items[index])
        return self._turned(self._items[index])

    @overload
    def __setitem__(self, index: SupportsIndex, value: int, /) -> None: ...

    @overload
    def __setitem__(self, index: slice, value: Buffer, /) -> None: ...

    def __setitem__(self, index: SupportsIndex | slice, value: int | Buffer, /) -> None:
        """Set one integer, by one store; or those of a slice, from an array of the same type and length.

        Raises:
            ValueError: the integer does not fit; or the array is of another type or length.
        """
        if isinstance(index, slice):
            with memoryview(cast("Buffer", value)) as given:
                turned = array(given.format, given.tobytes())
            turned.byteswap()
            self._items[index] = turned
            return
        number = operator.index(cast("int", value))
        if not 0 <= number < 1 << 8 * self._size:
            raise ValueError(f"invalid value for {8 * self._size} bits: {number}")
        self._items[index] = self._turned(number)

    def tolist(self) -> list[int]:
        """Return the integers as a list."""
        turned = array(self._items.format, self._items.tobytes())
        turned.byteswap()
        return turned.tolist()

    def _turned(self, value: int) -> int:
        return int.from_bytes(value.to_bytes(self._size, "little"), "big")


# What `DescriptorRing.column` returns.
Column: TypeAlias = Union["memoryview[int]", SwappedColumn]
