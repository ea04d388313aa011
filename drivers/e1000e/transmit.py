# SPDX-License-Identifier: MIT
"""The transmit queue of the Intel 82574L: many frames with one write of a register.

The frames of a batch lie one behind the other in memory, so they are copied by one call. If they are equally long,
their descriptors are copied, too, from such as were computed before; else two calls fill them in. Only the last
descriptor of a batch reports its status (RS). "Section" is one of the data sheet 317694.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from pyuio_drivers.e1000e import descriptors
from pyuio_drivers.e1000e.basic import BUFFER_SIZE, SHORTEST, SHORTEST_TO_PAD

from pyuio import dma_wmb

if TYPE_CHECKING:
    from pyuio_drivers.e1000e.offload import InsertChecksums
    from typing_extensions import Buffer

    from pyuio import DescriptorRing, DmaBuffer

_MANY = 16  # frames for which it pays to compute the descriptors of as many as the ring holds
_MOST_SPACED = 512  # runs of descriptors to remember, of 4 KiB at most


class TransmitQueue:
    """A ring of descriptors, and memory for as many frames.

    Args:
        ring: with `descriptors.TRANSMIT_FIELDS`.
        memory: for the frames: 2048 bytes for each descriptor.
        write_tail: writes the tail register, TDT.
        wait: waits until a condition holds, which it is given: that the card has fetched frames.
    """

    def __init__(
        self,
        ring: DescriptorRing,
        memory: DmaBuffer,
        write_tail: Callable[[int], object],
        wait: Callable[[Callable[[], bool], float], None],
    ) -> None:
        self._addresses, self._commands = ring.column("address"), ring.column("command")
        self._entries = len(ring)
        self.most_at_once = self._entries // 2
        self._memory, self._address = memoryview(memory), memory.address
        self._write_tail, self._wait = write_tail, wait
        self._descriptors = memoryview(ring.buffer)
        self._spaced: dict[tuple[int, int, int], memoryview] = {}
        self.restart()

    def restart(self) -> None:
        """Forget all frames: the card is reset, and its head and tail are 0."""
        self._tail = 0  # the descriptor to fill in next
        self._free = self._entries - 1  # a full ring would look like an empty one: section 7.2.4
        self._batches: deque[tuple[int, int]] = deque()  # last descriptor and number of each, oldest first
        self._context: InsertChecksums | None = None  # that the card remembers

    def send(
        self,
        frames: Sequence[Buffer],
        longest: int,
        timeout: float,
        checksums: InsertChecksums | None,
        vlan: int | None,
    ) -> None:
        """Do what `E1000e.send` says."""
        command = descriptors.EOP | descriptors.IFCS
        if checksums is not None:
            command |= checksums.command
        if vlan is not None:
            command |= descriptors.VLE | vlan << descriptors.VLAN_SHIFT
        if len(frames) == 1 and checksums is None:
            data = b"".join(frames)
            if SHORTEST_TO_PAD <= len(data) <= min(longest, BUFFER_SIZE):
                self._put_one(data, command, timeout)
                return
        for start in range(0, len(frames), self.most_at_once):
            batch = frames if len(frames) <= self.most_at_once else frames[start : start + self.most_at_once]
            data, sizes = b"".join(batch), [*map(len, batch)]  # type: ignore[arg-type]
            if not _are_right(sizes, len(data), longest):
                data, sizes = _checked(batch, longest)
            if longest > BUFFER_SIZE and max(sizes) > BUFFER_SIZE:
                self._put_long(data, sizes, command, timeout, checksums)
                continue
            self._reserve(len(sizes), timeout, checksums)
            # A batch that would wrap around the end of the ring is two.
            room = self._entries - self._tail
            if len(sizes) > room:
                size = sum(sizes[:room])
                self._put(data[:size], sizes[:room], command)
                data, sizes = data[size:], sizes[room:]
            self._put(data, sizes, command)

    def _put(self, data: bytes, sizes: list[int], command: int) -> None:
        """Pass frames to the card; `data` has all of them, and there are free descriptors before the ring's end."""
        number, tail = len(sizes), self._tail
        start = tail * BUFFER_SIZE  # the descriptors' memory is enough for all
        self._memory[start : start + len(data)] = data
        size = sizes[0]
        if number >= _MANY and sizes.count(size) == number:
            prepared = self._equally_spaced(tail, size, command)
            begin = tail * descriptors.SIZE
            self._descriptors[begin : begin + number * descriptors.SIZE] = prepared[: number * descriptors.SIZE]
        else:
            self._addresses[tail : tail + number] = array("Q", accumulate(sizes[:-1], initial=self._address + start))
            self._commands[tail : tail + number] = array("Q", map(command.__or__, sizes))
        self._commands[tail + number - 1] = command | descriptors.RS | sizes[-1]
        self._pass_on(number)

    def _put_one(self, data: bytes, command: int, timeout: float) -> None:
        """Do what `_put` does with a single frame, in a third of its time: an answer is sent so."""
        tail = self._tail
        self._reserve(1, timeout)
        start = tail * BUFFER_SIZE
        self._memory[start : start + len(data)] = data
        self._addresses[tail] = self._address + start
        self._commands[tail] = command | descriptors.RS | len(data)
        self._pass_on(1)

    def _equally_spaced(self, tail: int, size: int, command: int) -> memoryview:
        """Return the descriptors of frames of one size, from a descriptor on; they are computed once."""
        found = self._spaced.get((tail, size, command))
        if found is None:
            if len(self._spaced) >= _MOST_SPACED:
                self._spaced.clear()
            address, number = self._address + tail * BUFFER_SIZE, min(self.most_at_once, self._entries - tail)
            addresses = range(address, address + number * size, size)
            rows = b"".join(struct.pack("<QQ", one, command | size) for one in addresses)
            found = self._spaced[tail, size, command] = memoryview(rows)
        return found

    def _put_long(
        self, data: bytes, sizes: list[int], command: int, timeout: float, checksums: InsertChecksums | None
    ) -> None:
        """Pass frames to the card, some of which need several descriptors; wait for up to half of the ring at once."""
        needed = [-(-size // BUFFER_SIZE) for size in sizes]
        start = reserved = 0
        for index, size in enumerate(sizes):
            if not reserved:
                reserved = max(total for total in accumulate(needed[index:]) if total <= self.most_at_once)
                self._reserve(reserved, timeout, checksums)
            self._put_pieces(data[start : start + size], command)
            start += size
            reserved -= needed[index]

    def _put_pieces(self, frame: bytes, command: int) -> None:
        """Pass one frame to the card, in as many free descriptors as it needs; only the last has EOP."""
        pieces = [frame[start : start + BUFFER_SIZE] for start in range(0, len(frame), BUFFER_SIZE)]
        for number, piece in enumerate(pieces):
            index = (self._tail + number) % self._entries
            start = index * BUFFER_SIZE
            self._memory[start : start + len(piece)] = piece
            self._addresses[index] = self._address + start
            self._commands[index] = command & ~descriptors.EOP | len(piece)
        self._commands[index] |= descriptors.EOP | descriptors.RS
        self._pass_on(len(pieces))

    def _reserve(self, number: int, timeout: float, checksums: InsertChecksums | None = None) -> None:
        """Wait until there is room for `number` descriptors, and tell the card of checksums that it does not know."""
        if checksums is not None and checksums != self._context:
            context = checksums.context  # it may raise, so it comes before the wait
            self._reserve(number + 1, timeout)  # one wait for all, as `timeout` is for all
            self._put_context(checksums, context)
        elif self._free < number and not self._has_room(number):
            self._wait(partial(self._has_room, number), timeout)

    def _has_room(self, number: int) -> bool:
        """Take back descriptors of frames that the card has fetched; return whether `number` are free."""
        while self._free < number:
            last, done = self._batches[0]
            if not self._commands[last] & descriptors.TRANSMIT_DONE:
                return False
            self._batches.popleft()
            self._free += done
        return True

    def _put_context(self, checksums: InsertChecksums, context: tuple[int, int]) -> None:
        """Tell the card where the checksums of the following frames are: section 7.2.10.2."""
        self._addresses[self._tail], self._commands[self._tail] = context
        self._commands[self._tail] |= descriptors.RS
        self._pass_on(1)
        self._context = checksums

    def _pass_on(self, number: int) -> None:
        """Give the card the descriptors that are filled in: section 7.2.4."""
        self._batches.append(((self._tail + number - 1) % self._entries, number))
        self._free -= number
        self._tail = (self._tail + number) % self._entries
        dma_wmb()
        self._write_tail(self._tail)

    def flush(self, timeout: float) -> None:
        """Do what `E1000e.flush` says."""
        self._reserve(self._entries - 1, timeout)


def _are_right(sizes: list[int], size_of_all: int, longest: int) -> bool:
    """Return whether all frames can go to the card as they are, and their sizes are in bytes."""
    size = sizes[0]
    if sizes.count(size) == len(sizes):
        return SHORTEST_TO_PAD <= size <= longest and size * len(sizes) == size_of_all
    return sum(sizes) == size_of_all and min(sizes) >= SHORTEST_TO_PAD and max(sizes) <= longest


def _checked(frames: Sequence[Buffer], longest: int) -> tuple[bytes, list[int]]:
    """Return the frames as bytes, one behind the other, and their sizes; ValueError: one is too short or too long."""
    octets = [bytes(frame) for frame in frames]
    for frame in octets:
        if not SHORTEST <= len(frame) <= longest:
            raise ValueError(f"a frame has {SHORTEST} to {longest} bytes, not {len(frame)}; nothing was sent of it")
    padded = [frame.ljust(SHORTEST_TO_PAD, b"\0") for frame in octets]
    return b"".join(padded), [*map(len, padded)]
