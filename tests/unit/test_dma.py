# SPDX-License-Identifier: MIT
"""The parts of DMA memory that need no device and no privilege: what is free, spans of memory, descriptor rings."""

from __future__ import annotations

import gc
import io
import itertools
import mmap
import os
import sys
from array import array
from typing import Any, Literal, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio._native._access import Window
from pyuio._native._memory import Span, fill_hole, pin_by_pipe, pointer, punch_hole, set_dontfork
from pyuio.dma.buffer import DmaBuffer
from pyuio.dma.bus_addresses import BusAddresses
from pyuio.dma.column import Column, SwappedColumn
from pyuio.dma.free_ranges import FreeRanges
from pyuio.dma.iommu_memory import ProgramMemory
from pyuio.dma.pinned_hugepages import adjacent, below, joined
from pyuio.dma.ring import DescriptorRing

SIZE = 1 << 16


@given(
    st.integers(0, 1 << 20).map(lambda n: n * 4096),
    st.integers(1, SIZE),
    st.lists(
        st.tuples(st.integers(1, SIZE), st.sampled_from([1, 64, 512, 4096]), st.integers(0, 99), st.booleans()),
        max_size=60,
    ),
)
def test_free_ranges(address: int, room: int, steps: list[tuple[int, int, int, bool]]) -> None:
    """Ranges taken are inside, aligned, below the limit and apart; what is refused fits nowhere; all comes back."""
    mask = address + room - 1
    ranges = FreeRanges(address, SIZE)
    taken: list[tuple[int, int]] = []
    for size, align, which, give in steps:
        if give and taken:
            ranges.give(*taken.pop(which % len(taken)))
            continue
        offset = ranges.take(size, align, mask)
        # The bytes of every free range below the limit, worked out anew.
        ends = [0, *(a + s for a, s in sorted(taken))]
        starts = [*(a for a, _ in sorted(taken)), SIZE]
        fits = [
            first
            for start, end in zip(ends, starts, strict=True)
            if (first := -(-(address + start) // align) * align - address) + size <= min(end, room)
        ]
        assert offset == (fits[0] if fits else None)
        if offset is not None:
            taken.append((offset, size))
        assert not ranges.untouched or not taken
    for one in taken:
        ranges.give(*one)
    assert ranges.untouched


RANGES = [(0, 0xFEDFFFFF), (0xFEF00000, (1 << 39) - 1)]


@given(
    st.integers(0, (1 << 64) - 1),
    st.lists(
        st.tuples(
            st.sampled_from([4096, 3 * 4096, 2 << 20, 5 << 20, 300 << 20]),
            st.sampled_from([64, 4096, 1 << 21, 1 << 30]),
            st.sampled_from([(1 << 12) - 1, (1 << 16) - 1, (1 << 28) - 1, (1 << 32) - 1, (1 << 64) - 1]),
            st.integers(0, 99),
            st.booleans(),
        ),
        max_size=40,
    ),
)
def test_bus_addresses(start: int, steps: list[tuple[int, int, int, int, bool]]) -> None:
    """Ranges are aligned, apart, below the mask, in what the IOMMU translates, and not at 0; all comes back."""
    addresses = BusAddresses(RANGES, 4096, start)
    taken: list[tuple[int, int]] = []
    for size, align, mask, which, give in steps:
        if give and taken:
            addresses.give(*taken.pop(which % len(taken)))
            continue
        address = addresses.take(size, align, mask)
        if address is None:
            assert mask < 1 << 28 or size + sum(size for _, size in taken) > 1 << 26
            continue
        assert address % align == address % 4096 == 0
        assert address + size - 1 <= mask
        assert any(first <= address and address + size - 1 <= last for first, last in RANGES)
        assert address >= 4096
        assert all(address + size <= other or other + length <= address for other, length in taken)
        taken.append((address, size))
    again = BusAddresses(RANGES, 4096, start, taken)
    for one in taken:
        again.give(*one)
    fresh = BusAddresses(RANGES, 4096, start)
    for mask in ((1 << 28) - 1, (1 << 64) - 1):
        assert again.take(4096, 1, mask) == fresh.take(4096, 1, mask)


def test_bus_addresses_start_anywhere_in_the_lowest_quarter() -> None:
    for mask in ((1 << 28) - 1, (1 << 32) - 1, (1 << 39) - 1):
        firsts = {BusAddresses(RANGES, 4096, start << 12 | start, ()).take(4096, 1, mask) for start in range(5000)}
        assert len(firsts) > 4000
        assert all(first is not None and first <= (mask + 1) // 4 for first in firsts)
    # However unlucky the start is, a large buffer has room after a small one.
    for start in range(0, 1 << 20, 997):
        addresses = BusAddresses(RANGES, 4096, start)
        assert addresses.take(2 << 20, 4096, (1 << 28) - 1) is not None
        assert addresses.take(180 << 20, 4096, (1 << 28) - 1) is not None
    # Where there is room, large pages are aligned.
    large = BusAddresses(RANGES, 4096, 12345).take(4 << 20, 4096, (1 << 64) - 1)
    assert large is not None
    assert large % (2 << 20) == 0


HUGE = 2 << 20


@given(
    st.sets(st.integers(0, 40), max_size=30).flatmap(lambda places: st.permutations(sorted(places))),
    st.integers(1, 6),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 41),
)
def test_adjacent_hugepages(places: list[int], count: int, align: int, limit: int) -> None:
    addresses = [place * HUGE for place in places]
    found = adjacent(addresses, HUGE, count, align * HUGE, limit * HUGE - 1)
    starts = [
        place
        for place in places
        if place % align == 0 and place + count <= limit and set(range(place, place + count)) <= set(places)
    ]
    if found is None:
        assert not starts
    else:
        assert [places[index] for index in found] == list(range(min(starts), min(starts) + count))
    chosen = below(addresses, HUGE, count, limit * HUGE - 1)
    low = sorted(place for place in places if place < limit)
    assert (chosen is None) == (len(low) < count)
    if chosen is not None:
        assert [places[index] for index in chosen] == low[:count]
        runs = list(joined([addresses[index] for index in chosen], HUGE))
        assert [at for start, size in runs for at in range(start, start + size, HUGE)] == [
            addresses[index] for index in chosen
        ]
        assert all(end[0] + end[1] < start[0] for end, start in itertools.pairwise(runs))


def test_memory_of_the_program() -> None:
    memory = bytearray(10000)
    page = ProgramMemory(memory)
    assert page.offset == pointer(memory) % 4096
    assert page.size % 4096 == 0
    assert page.size >= page.offset + 10000
    assert not page.free.untouched
    with pytest.raises(BufferError):
        memory.append(1)
    page.close()
    memory.append(1)
    for wrong, error in ((b"x", BufferError), (np.zeros((4, 4))[:, 1], BufferError), (bytearray(), ValueError)):
        with pytest.raises(error):
            ProgramMemory(cast(Any, wrong))
    with pytest.raises(TypeError):
        ProgramMemory(cast(Any, 5))


def test_span() -> None:
    memory = mmap.mmap(-1, 8192)
    span = Span(memory, 100, 50)
    span[0], span[-1] = 1, 255
    assert (span[0], span[49], len(span), span.size) == (1, 255, 50, 50)
    assert (memory[100], memory[149]) == (1, 255)
    span[10:13] = b"abc"
    span[13:15] = memoryview(span)[10:12]
    assert bytes(span)[10:15] == b"abcab"
    assert memoryview(span).nbytes == 50
    assert not memoryview(span).readonly
    # Any, as numpy before 2.5 lists the types that it takes.
    assert np.frombuffer(cast(Any, span), dtype=np.uint8)[10] == ord("a")
    span.zero()
    assert bytes(memory) == bytes(8192)
    for index in (50, -51, 1 << 70):
        with pytest.raises(IndexError):
            span[index]
        with pytest.raises(IndexError):
            span[index] = 0
    for value in (-1, 256):
        with pytest.raises(ValueError, match="0 to 255"):
            span[0] = value
    with pytest.raises(ValueError, match="2 bytes do not fit a slice of 3"):
        span[0:3] = b"ab"
    with pytest.raises(ValueError, match="no step"):
        span[0:4:2] = b"ab"
    with pytest.raises(TypeError):
        del span[0]  # type: ignore[attr-defined]
    for offset, size in ((-1, 5), (0, 0), (8192, 1), (8000, 193)):
        with pytest.raises(ValueError, match="are not inside 8192 bytes"):
            Span(memory, offset, size)
    with pytest.raises(BufferError):
        Span(b"read only", 0, 1)


def test_span_holds_its_memory_until_the_last_view_is_gone() -> None:
    memory = mmap.mmap(-1, 4096)
    span = Span(memory, 0, 4096)
    inner = Span(span, 8, 8)
    view = memoryview(inner)
    assert (span.exports, inner.exports) == (1, 1)
    for one in (span, inner):
        one.close()
        one.close()
        assert one.closed
    with pytest.raises(BufferError):
        memory.close()
    view[0] = 7
    del inner, span
    gc.collect()
    assert view[0] == 7
    view.release()
    memory.close()


def test_span_closed_by_its_own_argument() -> None:
    """Python code that runs while an argument is converted may close it."""
    span = Span(mmap.mmap(-1, 4096), 0, 4096)

    class Closing:
        def __index__(self) -> int:
            span.close()
            return 0

    for use in (lambda: span[Closing()], lambda: span.__setitem__(0, cast(int, Closing()))):
        with pytest.raises(pyuio.ClosedError):
            use()
    with pytest.raises(TypeError):
        Span.__init__(span, bytearray(1), 0, 1)


def test_pinning_and_dontfork() -> None:
    memory = mmap.mmap(-1, 8192)
    assert pointer(memory) % mmap.PAGESIZE == 0
    set_dontfork(memory, True)
    with pytest.raises(FileExistsError):
        fill_hole(memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        pin_by_pipe(memory, -1)


def test_a_hole_in_a_file() -> None:
    with io.FileIO(os.memfd_create("test"), "r+") as file:
        file.write(b"x" * 8192)
        punch_hole(file.fileno(), 4096, 4096)
        assert os.pread(file.fileno(), 8192, 0) == b"x" * 4096 + bytes(4096)
        assert os.fstat(file.fileno()).st_blocks == 8
        with pytest.raises(OSError, match="Invalid argument"):
            punch_hole(file.fileno(), -1, 4096)
    with pytest.raises(OSError, match="Bad file descriptor"):
        punch_hole(-1, 0, 4096)


FIELDS = {"address": (0, 64), "length": (8, 16), "flags": (12, 32)}


class Buffer(Span):
    """A buffer whose address is made up, for what does not ask a device."""

    address = 0x1000

    @property
    def registers(self) -> Window:
        return Window(self, offset=0, size=self.size, name="memory", endian="little")


def ring_on(**others: object) -> tuple[Buffer, DescriptorRing]:
    buffer = Buffer(mmap.mmap(-1, 4096), 0, 64)
    arguments: dict[str, object] = {"entry_size": 16, "fields": FIELDS, "owner": "flags", **others}
    return buffer, DescriptorRing(cast(DmaBuffer, buffer), **arguments)  # type: ignore[arg-type]


def test_ring() -> None:
    buffer, ring = ring_on()
    assert len(ring) == 4
    assert ring.address(5) == 0x1010
    with pytest.raises(TypeError):
        ring.address(1.5)  # type: ignore[arg-type]
    ring.publish(5, address=0x1122334455667788, length=0x99AA, flags=0x80000001)
    assert bytes(buffer)[16:32].hex() == "8877665544332211aa99000001000080"
    assert (ring.owner(1), ring.read(1, "length"), ring.owner(0)) == (0x80000001, 0x99AA, 0)
    with pytest.raises(ValueError, match="0x10000"):
        ring.publish(0, length=0x10000, flags=1)
    with pytest.raises(KeyError):
        ring.publish(0, length=1)
    with pytest.raises(KeyError):
        ring.publish(0, nonsense=1, flags=1)
    assert ring.owner(0) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"entry_size": 24}, "whole number of entries"),
        ({"entry_size": 0}, "whole number of entries"),
        ({"owner": "valid"}, "not one of the fields"),
        ({"fields": {"flags": (0, 24)}}, "8, 16, 32 or 64 bits"),
        ({"fields": {"flags": (2, 32)}}, "misaligned"),
        ({"fields": {"flags": (0, 32), "more": (2, 16)}}, "overlaps 'flags'"),
        ({"fields": {"flags": (16, 32)}}, "beyond the entry's 16 bytes"),
        ({"fields": {"flags": (0, 64)}, "entry_size": 4}, "misaligned"),
    ],
)
def test_rings_that_cannot_be(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ring_on(**changed)


def test_ring_columns() -> None:
    buffer, ring = ring_on()
    lengths, addresses = ring.column("length"), ring.column("address")
    assert (len(lengths), len(addresses)) == (4, 4)
    lengths[1] = 0x1234
    addresses[2:4] = array("Q", [1 << 63, 2])
    assert [ring.read(index, "length") for index in range(4)] == [0, 0x1234, 0, 0]
    assert [ring.read(index, "address") for index in range(4)] == [0, 0, 1 << 63, 2]
    ring.write(0, address=5)
    assert addresses[:3].tolist() == [5, 0, 1 << 63]
    with pytest.raises(ValueError, match="invalid value"):
        lengths[0] = 0x10000
    with pytest.raises(KeyError):
        ring.column("nonsense")
    buffer.close()
    with pytest.raises(pyuio.ClosedError):
        ring.column("length")


@pytest.mark.parametrize("format", ["H", "I", "Q"])
def test_a_column_in_the_other_byte_order(format: Literal["H", "I", "Q"]) -> None:
    """What a ring gives on a big-endian processor, here on whatever processor this is."""
    other: Literal["little", "big"] = "big" if sys.byteorder == "little" else "little"
    memory = bytearray(range(64))
    items = memoryview(memory).cast(format)
    size = items.itemsize
    expected = [int.from_bytes(memory[at : at + size], other) for at in range(0, 64, 2 * size)]
    column: Column = SwappedColumn(items[::2])
    assert len(column) == len(expected)
    assert [column[index] for index in range(len(column))] == column.tolist() == [*column] == expected
    assert column[-2:].tolist() == expected[-2:]
    column[1] = 0x1234
    column[-1:] = array(format, [0x4321])
    expected[1], expected[-1] = 0x1234, 0x4321
    assert column.tolist() == expected
    assert memory[2 * size : 3 * size] == (0x1234).to_bytes(size, other)
    assert memory[size : 2 * size] == bytes(range(size, 2 * size))  # what lies between stays
    for wrong in (-1, 1 << 8 * size):
        with pytest.raises(ValueError, match="invalid value"):
            column[0] = wrong
    with pytest.raises(ValueError, match="different structures"):
        column[:2] = array(format, [1])
    with pytest.raises(ValueError, match="different structures"):
        column[:1] = array("b", [1])
    with pytest.raises(IndexError):
        column[len(column)]
    with pytest.raises(TypeError):
        column[0] = "1"  # type: ignore[call-overload]
    assert column.tolist() == expected


def test_free_ranges_from_what_is_taken() -> None:
    ranges = FreeRanges(0, 1000, [(300, 100), (0, 100), (400, 50)])
    assert [ranges.take(100, 1, 10**6) for _ in range(8)] == [100, 200, 450, 550, 650, 750, 850, None]
    assert FreeRanges(0, 1000, [(0, 1000)]).take(1, 1, 10**6) is None
    assert FreeRanges(0, 1000).untouched


def test_a_field_may_have_any_name() -> None:
    names = {"index": (0, 32), "self": (4, 32), "owner": (8, 32)}
    _, ring = ring_on(fields=names, owner="owner", entry_size=16)
    ring.publish(1, index=5, owner=7, self=6)
    assert [ring.read(1, name) for name in names] == [5, 6, 7]
