# SPDX-License-Identifier: MIT
"""The receive queue of the Intel 82574L: many frames at once, without copying them.

A frame is a view of the memory to which the card wrote it. The next call gives that memory back to the card. Its
descriptors are prepared once, so giving back is one copy of some bytes, and one write of a register for many frames.
"Section" is one of the data sheet 317694.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import getitem
from typing import TYPE_CHECKING, Any, NamedTuple

from pyuio_drivers.e1000e import descriptors
from pyuio_drivers.e1000e.basic import BUFFER_SIZE

from pyuio import dma_rmb, dma_wmb

if TYPE_CHECKING:
    from pyuio import DescriptorRing, DmaBuffer

_MOST_KINDS = 4096  # of second halves of descriptors to remember


class Received(NamedTuple):
    """A frame, and what the card found out about it.

    Attributes:
        frame: without its CRC, and without the VLAN tag that the card stripped.
        vlan: that tag (priority, DEI and identifier, 16 bits); None for a frame without.
        ip_good: whether the IPv4 header's checksum is right; None if the card did not check it.
        transport_good: the same of the TCP or UDP checksum.
    """

    frame: memoryview
    vlan: int | None
    ip_good: bool | None
    transport_good: bool | None


class ReceiveCounts:
    """What `E1000e.receive` did not return.

    Attributes:
        bad_checksums: frames with a wrong IP, TCP or UDP checksum.
        damaged: frames that the card found damaged.
    """

    def __init__(self) -> None:
        self.bad_checksums = self.damaged = 0


class _Slices(dict[int, "slice | None"]):
    """What part of its buffer a frame is, by the second half of its descriptor; None if the frame is not ordinary.

    An ordinary frame is whole in one buffer, and nothing is wrong with it.
    """

    _WRONG = descriptors.FRAME_ERRORS | descriptors.TRANSPORT_ERROR | descriptors.IP_ERROR

    def __missing__(self, status: int) -> slice | None:
        if len(self) >= _MOST_KINDS:
            self.clear()
        ordinary = status & descriptors.EOP_RECEIVED and not status & self._WRONG
        found = self[status] = slice(0, status >> descriptors.LENGTH_SHIFT & 0xFFFF) if ordinary else None
        return found


class ReceiveQueue:
    """A ring of descriptors, and a buffer for each.

    Args:
        ring: with `descriptors.RECEIVE_FIELDS`.
        memory: 2048 bytes for each descriptor.
        write_tail: writes the tail register, RDT.

    Attributes:
        counts: what was not returned.
    """

    def __init__(self, ring: DescriptorRing, memory: DmaBuffer, write_tail: Callable[[int], object]) -> None:
        self._status = ring.column("status")
        self._descriptors = memoryview(ring.buffer)
        self._entries = entries = len(ring)
        addresses = range(memory.address, memory.address + memory.size, BUFFER_SIZE)
        self._prepared = memoryview(b"".join(struct.pack("<QQ", address, 0) for address in addresses))
        whole = memoryview(memory)
        self._views = [whole[start : start + BUFFER_SIZE] for start in range(0, memory.size, BUFFER_SIZE)]
        self._write_tail = write_tail
        self._slices = _Slices()
        # The tail is written when so many descriptors are to be given back.
        self._owed_at_most = entries // 8
        self.counts = ReceiveCounts()
        self._long: list[bytes] = []  # the first pieces of a frame that is longer than a buffer
        self.restart()

    def restart(self) -> None:
        """Forget all frames: the card is reset, and `BasicE1000e.start` gives it all descriptors but one."""
        self._next = 0  # the descriptor that the card fills next
        self._lent = 0  # how many before that the caller may still look at
        self._owed = 0  # how many before those are prepared, and not given to the card yet
        self._long.clear()

    def has_frames(self) -> bool:
        """Return whether the card has filled a descriptor that was not taken yet."""
        return bool(self._status[self._next] & descriptors.DONE)

    def take(self, most: int) -> list[memoryview]:
        """Do what `E1000e.receive` says, without waiting."""
        if self._lent:
            self._give_back()
        first = self._next
        if not self._status[first] & descriptors.DONE:
            return []
        if most == 1 and not self._long:
            part = self._slices[self._status[first]]
            if part is not None:
                dma_rmb()
                self._next, self._lent = (first + 1) % self._entries, 1
                return [self._views[first][part]]
        statuses = self._take(most)
        views = self._views[first : first + len(statuses)]
        slices: list[Any] = [*map(self._slices.__getitem__, statuses)]
        if None in slices or self._long:
            return [received.frame for received in self._describe(views, statuses) if self._is_good(received)]
        frames: list[Any] = [*map(getitem, views, slices)]
        return frames

    def take_described(self, most: int) -> list[Received]:
        """Do what `E1000e.receive_described` says, without waiting."""
        if self._lent:
            self._give_back()
        first, statuses = self._next, self._take(most)
        return self._describe(self._views[first : first + len(statuses)], statuses)

    def _take(self, most: int) -> list[int]:
        """Take over descriptors that the card has filled, up to the end of the ring; return their second halves."""
        start = self._next
        end = start + self._filled(min(start + most, self._entries))
        if end == start:
            return []
        dma_rmb()
        statuses: list[int] = self._status[start:end].tolist()
        self._next = end % self._entries
        self._lent = end - start
        return statuses

    def _filled(self, end: int) -> int:
        """Return how many descriptors up to `end` the card has filled. It fills them in order."""
        status, start = self._status, self._next
        if start == end or not status[start] & descriptors.DONE:
            return 0
        if status[end - 1] & descriptors.DONE:
            return end - start
        filled, empty = start, end - 1  # indices of one that is filled, and one that is not
        while empty - filled > 1:
            middle = (filled + empty) // 2
            if status[middle] & descriptors.DONE:
                filled = middle
            else:
                empty = middle
        return empty - start

    def _give_back(self) -> None:
        """Prepare the descriptors of the frames that the last call returned, and give many to the card at a time."""
        end = self._next or self._entries
        first, last = (end - self._lent) * descriptors.SIZE, end * descriptors.SIZE
        self._descriptors[first:last] = self._prepared[first:last]
        self._owed += self._lent
        self._lent = 0
        if self._owed >= self._owed_at_most:
            self._owed = 0
            dma_wmb()
            self._write_tail(end - 1)

    def _describe(self, views: list[memoryview], statuses: list[int]) -> list[Received]:
        """Return the frames in these buffers, with what the card found out about each."""
        found = []
        for view, status in zip(views, statuses, strict=True):
            frame = view[: status >> descriptors.LENGTH_SHIFT & 0xFFFF]
            if not status & descriptors.EOP_RECEIVED:
                self._long.append(bytes(frame))
                continue
            if self._long:
                frame = memoryview(b"".join([*self._long, frame]))
                self._long.clear()
            if status & descriptors.FRAME_ERRORS:
                self.counts.damaged += 1
                continue
            found.append(_described(frame, status))
        return found

    def _is_good(self, received: Received) -> bool:
        wrong = received.ip_good is False or received.transport_good is False
        self.counts.bad_checksums += wrong
        return not wrong


def _described(frame: memoryview, status: int) -> Received:
    return Received(
        frame,
        status >> descriptors.VLAN_SHIFT if status & descriptors.TAG_STRIPPED else None,
        not status & descriptors.IP_ERROR if status & descriptors.IP_CHECKED else None,
        not status & descriptors.TRANSPORT_ERROR if status & descriptors.TRANSPORT_CHECKED else None,
    )
