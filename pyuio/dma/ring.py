# SPDX-License-Identifier: MIT
"""Descriptor rings: entries of equal size that the program and a device pass to each other through memory."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping
from typing import Literal

from pyuio._native._memory import Span, dma_rmb, dma_wmb
from pyuio.dma.buffer import DmaBuffer
from pyuio.dma.column import Column, SwappedColumn

_FORMATS: dict[int, Literal["B", "H", "I", "Q"]] = {8: "B", 16: "H", 32: "I", 64: "Q"}


class DescriptorRing:
    """A `DmaBuffer` as a row of descriptors with named fields, each field one load or store of its width.

    One field, the owner, says to which side an entry belongs (a valid bit, a phase, a done flag). `publish` stores it
    last, after a `dma_wmb`; `owner` reads it first, before a `dma_rmb`. So neither side sees an entry that is half
    filled in. The write of a doorbell in a BAR, which tells the device to look, comes after these stores:
    `Region.write32` orders it.

    An index is taken modulo the number of entries, so a running count can serve as one.

    Args:
        buffer: holds a whole number of entries.
        entry_size: of one entry, in bytes.
        fields: for each name, the offset in the entry in bytes and the width in bits: 8, 16, 32 or 64. Little-endian.
        owner: the name of the field that is stored last and read first.

    Raises:
        TypeError: a wrong type.
        ValueError: a field is misaligned, overlaps another or does not fit; the owner is not a field; the buffer does
            not hold a whole number of entries.
    """

    def __init__(
        self, buffer: DmaBuffer, *, entry_size: int, fields: Mapping[str, tuple[int, int]], owner: str
    ) -> None:
        if not isinstance(buffer, Span):
            raise TypeError(f"a ring is in a DmaBuffer, not in a {type(buffer).__name__}")
        entry_size = operator.index(entry_size)
        if entry_size < 1 or buffer.size % entry_size:
            raise ValueError(f"{buffer.size} bytes are not a whole number of entries of {entry_size}")
        if owner not in fields:
            raise ValueError(f"the owner {owner!r} is not one of the fields: {', '.join(fields)}")
        fields = {name: (operator.index(offset), operator.index(bits)) for name, (offset, bits) in fields.items()}
        _check(fields, entry_size, buffer.address)
        self.buffer = buffer
        self.entry_size = entry_size
        self._count = buffer.size // entry_size
        self._owner = owner
        self._fields = dict(fields)
        registers = buffer.registers
        self._readers: dict[str, tuple[int, Callable[[int], int]]] = {}
        self._writers: dict[str, tuple[int, Callable[[int, int], None]]] = {}
        for name, (offset, bits) in fields.items():
            self._readers[name] = offset, getattr(registers, f"read{bits}")
            self._writers[name] = offset, getattr(registers, f"write{bits}")

    def __len__(self) -> int:
        """How many entries there are."""
        return self._count

    def address(self, index: int) -> int:
        """Return the bus address of an entry, in bytes. TypeError: the index is not an integer."""
        return self.buffer.address + operator.index(index) % self._count * self.entry_size

    def read(self, index: int, name: str) -> int:
        """Return one field of an entry: one load. KeyError: there is no such field."""
        offset, read = self._readers[name]
        return read(index % self._count * self.entry_size + offset)

    def write(self, index: int, /, **values: int) -> None:
        """Store these fields of an entry, one store each, in this order.

        Args:
            index: of the entry; any integer, taken modulo their number.
            values: for the name of each field, 0 to 2^width - 1.

        Raises:
            KeyError: there is no such field.
            ValueError: a value does not fit its field; the fields before it are stored.
            ClosedError: the buffer is closed.
        """
        start = index % self._count * self.entry_size
        for name, value in values.items():
            offset, write = self._writers[name]
            write(start + offset, value)

    def column(self, name: str) -> Column:
        """Return one field of all entries as a sequence of unsigned integers, for a fast driver.

        ``column[i]`` is one load and ``column[i] = value`` one store of the field's width, as with `read` and `write`,
        in a fifth of the time. A slice accesses many entries in one call: ``column[a:b] = array("Q", values)``,
        ``column[a:b].tolist()``. A slice promises no width of its accesses, so it is for entries that the device
        neither reads nor writes meanwhile. The index is not taken modulo the number of entries, and the caller does the
        ordering (`dma_wmb`, `dma_rmb`). When the buffer is closed, the column stays valid but means nothing.

        On a little-endian processor it is a memoryview. On a big-endian one, it is an object that does the same and
        converts: it has a length, items, slices and ``tolist``, and its items take as long as `read`.

        Raises:
            KeyError: there is no such field.
            ClosedError: the buffer is closed.
        """
        offset, bits = self._fields[name]
        octets = memoryview(self.buffer)[offset:].cast("B")
        items: memoryview[int] = octets.cast(_FORMATS[bits])
        items = items[:: self.entry_size * 8 // bits]
        return items if sys.byteorder == "little" or bits == 8 else SwappedColumn(items)

    def publish(self, index: int, /, **values: int) -> None:
        """Store these fields and then, after a `dma_wmb`, the owner, which must be one of them: pass the entry on.

        The errors are those of `write`; after any of them, the entry is not passed on.
        """
        owner = operator.index(values.pop(self._owner))
        self.write(index, **values)
        dma_wmb()
        self.write(index, **{self._owner: owner})

    def owner(self, index: int) -> int:
        """Return the owner field of an entry; loads of the entry's other fields come after this load (`dma_rmb`)."""
        value = self.read(index, self._owner)
        dma_rmb()
        return value


def _check(fields: Mapping[str, tuple[int, int]], entry_size: int, address: int) -> None:
    end, before = 0, ""
    for name, (offset, bits) in sorted(fields.items(), key=lambda item: item[1]):
        if bits not in (8, 16, 32, 64):
            raise ValueError(f"field {name!r} is 8, 16, 32 or 64 bits wide, not {bits}")
        size = bits // 8
        if (address | entry_size | offset) % size:
            raise ValueError(f"field {name!r} of {bits} bits at offset {offset} is misaligned in some entry")
        if offset < end:
            raise ValueError(f"field {name!r} at offset {offset} overlaps {before!r}")
        end, before = offset + size, name
    if end > entry_size:
        raise ValueError(f"field {before!r} ends at {end}, beyond the entry's {entry_size} bytes")
