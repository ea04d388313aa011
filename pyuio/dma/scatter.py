# SPDX-License-Identifier: MIT
"""A buffer for DMA in several segments, for sizes that no range of bus addresses holds. `Dma.scatter` makes it."""

from __future__ import annotations

from typing import NamedTuple

from pyuio.dma.buffer import DmaBuffer


class Segment(NamedTuple):
    """Bytes that follow one another on the bus.

    Attributes:
        address: the bus address of the first.
        size: in bytes.
    """

    address: int
    size: int


class ScatterBuffer(DmaBuffer):
    """A `DmaBuffer` that is contiguous for the program and has several ranges of bus addresses: its segments.

    A slice of it is a `ScatterBuffer`, too, with the segments of that part.
    """

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order of the bytes; there may be one. ClosedError: the buffer is closed."""
        self._require_open()
        return tuple(Segment(*piece) for piece in self.page.pieces(self.offset_in_page, self.size))

    @property
    def address(self) -> int:
        """The bus address of its first byte.

        Raises:
            ValueError: it has several segments, each with an address of its own.
            ClosedError: the buffer is closed.
        """
        segments = self.segments
        if len(segments) > 1:
            raise ValueError(f"the buffer has {len(segments)} segments, each with an address of its own: see segments")
        return segments[0].address

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"in {len(self.segments)} segments"
        return f"<ScatterBuffer of {self.size} bytes {state}>"
