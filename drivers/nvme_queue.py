# SPDX-License-Identifier: MIT
"""The queues of an NVMe disk for reading and writing, with many commands under way.

"Section" is one of the NVM Express Base Specification, revision 1.4.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, repeat
from typing import TYPE_CHECKING

from pyuio_drivers.nvme_commands import SPINS, Batch, CommandQueue
from pyuio_drivers.nvme_errors import ControllerFatalError, ControllerResetError
from pyuio_drivers.nvme_structures import ANSWER_PHASE, COMMAND_NAMES, FLUSH, READ, WRITE

from pyuio import ClosedError, DeviceBusyError, PyuioError, dma_rmb

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self


class NvmeQueue(CommandQueue):
    """A queue of the disk's own for many commands at once; `Nvme.queue` makes it.

    A context manager. One thread may use it at a time, for one `read_many` or `write_many` at a time.

    Attributes:
        depth: how many commands it has under way at most.
        blocks_per_command: the most blocks of one command.
        by_interrupt: whether it sleeps until the interrupt, instead of looking at the ring all the time.
    """

    def read_many(self, blocks: Iterable[int], count: int = 1) -> Iterator[memoryview]:
        """Read at many places, with up to `depth` commands under way, and yield the data of each, in order.

        `blocks` is asked for more than what was yielded: up to twice `depth`.

        Args:
            blocks: the first block of each read.
            count: blocks of each, 1 to `blocks_per_command`.

        Yields:
            A view of the queue's own memory, overwritten after the next one was asked for: copy what is to stay.

        Raises:
            CommandError: a read failed; the data of those before it was yielded, those after it are given up.
            CommandTimeoutError: a read took longer than the disk's `timeout`.
            ControllerFatalError, ControllerResetError, DeviceRemovedError: the controller failed, or is gone.
            DeviceBusyError: an earlier `read_many` has not come to its end.
            ValueError: `count` or a block is out of range.
            ClosedError: the queue is closed.
        """
        self._check(count)
        return self._read_many(iter(blocks), count)

    def write_many(self, items: Iterable[tuple[int, Buffer]], count: int = 1) -> int:
        """Write at many places, with up to `depth` commands under way, in no particular order.

        Args:
            items: the first block of each write, and its data of `count` blocks.
            count: blocks of each, 1 to `blocks_per_command`.

        Returns:
            How many writes were done.

        Raises:
            CommandError: a write failed; others may have been done.
            NotWritableError: the disk was opened for reading only.
            ValueError: `count`, a block or the size of the data is out of range.
        Other errors are those of `read_many`.
        """
        self.disk.require_writable()
        self._check(count)
        done = 0
        items = iter(items)
        with self._use(WRITE, count) as generation:
            while chunk := [*islice(items, self._width)]:
                # While the batches before are under way.
                for view, (block, data) in zip(self._batch(self._tail, len(chunk)).views, chunk, strict=True):
                    with memoryview(data) as given, given.cast("B") as octets:
                        if len(octets) != len(view):
                            reason = f"{len(octets)} bytes are not {count} blocks, {len(view)} bytes"
                            raise ValueError(f"block {block}: {reason}")
                        view[:] = octets
                batch = self._place(_addresses(block for block, _ in chunk))
                if len(self._waiting) < self._ways:
                    self._hand_over(batch)
                else:
                    done += self._require_success(generation, batch)
            while self._waiting:
                done += self._require_success(generation)
        return done

    def flush(self) -> None:
        """Have what was written before reach the medium (section 6.8). Errors are those of `read_many`."""
        with self._use(FLUSH, 0) as generation:
            self._hand_over(self._place(array("Q", [0])))
            self._require_success(generation)

    def close(self) -> None:
        """Have the controller forget the queue, and free its memory; again is harmless."""
        if not self._closed:
            self.disk.forget(self)

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- how --

    def _check(self, count: int) -> None:
        if self._closed:
            raise ClosedError(f"{self.disk.device.name}: queue {self.number} is closed")
        if not 1 <= count <= self.blocks_per_command:
            raise ValueError(f"a command of this queue has 1 to {self.blocks_per_command} blocks, not {count}")

    @contextmanager
    def _use(self, opcode: int, count: int) -> Iterator[int]:
        """Keep others out, prepare for commands of one kind, and leave nothing under way."""
        name = f"{self.disk.device.name}: {COMMAND_NAMES[opcode]}"
        if self._closed or self.disk.device.closed:
            raise ClosedError(f"{name}: queue {self.number} is closed")
        if self._broken:
            self.disk.require_working(name)
            raise ControllerFatalError(f"{name}: queue {self.number} was lost when the controller failed; see reset()")
        if self._busy:
            reason = f"an earlier read_many of queue {self.number} has not come to its end; close() it"
            raise DeviceBusyError(errno.EBUSY, f"{name}: {reason}")
        self._busy = True
        try:
            if self._prepared != (opcode, count):
                self._prepare(opcode, count)
            yield self._generation
        finally:
            self._busy = False
            if not (self._broken or self._closed or self.disk.device.closed):
                self._broken = True  # unless all comes to an end
                while self._waiting:
                    self._complete_oldest()
                self._broken = False
                if self.by_interrupt:
                    self.disk.device.interrupt.mask()
            self._failures.clear()

    def _read_many(self, blocks: Iterator[int], count: int) -> Iterator[memoryview]:
        with self._use(READ, count) as generation:
            if self.depth == 1 and not self.by_interrupt:
                yield from self._read_singly(blocks, generation)
            while chunk := _addresses(islice(blocks, self._width)):
                batch = self._place(chunk)
                if len(self._waiting) < self._ways:
                    self._hand_over(batch)
                    continue
                views, error = self._complete_oldest(batch)
                yield from views
                if error or self._generation != generation:
                    raise error or self._was_reset()
            while self._waiting:
                views, error = self._complete_oldest()
                yield from views
                if error or self._generation != generation:
                    raise error or self._was_reset()

    def _read_singly(self, blocks: Iterator[int], generation: int) -> Iterator[memoryview]:
        """Read one by one, with as little as possible from a completion to the next doorbell.

        The last read is left under way.
        """
        answers, places, ring, doorbell = self._answers, self._blocks, self._ring_doorbell, self._submission_doorbell
        views, head, phase, reports = self._views, self._head, self._phase, self._report_after - 1
        place, under_way = self._tail, False  # of two
        try:
            for block in blocks:
                try:
                    places[place] = block
                except ValueError:
                    raise ValueError(f"a block is 0 to 2^64 - 1, not {block}") from None
                if under_way:
                    for _ in repeat(None, SPINS):
                        if answers[head] & ANSWER_PHASE == phase:
                            break
                    if answers[head] & ~1 != phase:  # it failed, or takes long
                        self._head, self._phase, under_way = head, phase, False
                        self._waiting.append(self._batch(place ^ 1, 1))
                        _, error = self._complete_oldest()
                        head, phase = self._head, self._phase
                        if error:
                            raise error
                        head -= 1
                    place ^= 1
                    under_way = True
                    ring(doorbell, place)
                    # From here on the controller has work.
                    dma_rmb()
                    head += 1
                    if not head & reports:
                        self._head = head
                        self._report()
                        head, phase = self._head, self._phase
                    yield views[place]
                    if self._generation != generation:
                        raise self._was_reset()
                else:
                    place ^= 1
                    under_way = True
                    ring(doorbell, place)
        finally:
            if self._generation == generation:
                self._head, self._phase, self._tail = head, phase, place
                if under_way:
                    self._waiting.append(self._batch(place ^ 1, 1))

    def _require_success(self, generation: int, following: Batch | None = None) -> int:
        views, error = self._complete_oldest(following)
        if error or self._generation != generation:
            raise error or self._was_reset()
        return len(views)

    def _was_reset(self) -> PyuioError:
        name = f"{self.disk.device.name}: queue {self.number}"
        return ClosedError(f"{name} is closed") if self._closed else ControllerResetError(f"{name} was reset meanwhile")


def _addresses(blocks: Iterable[int]) -> array[int]:
    try:
        return array("Q", blocks)
    except OverflowError as error:
        raise ValueError(f"a block is 0 to 2^64 - 1: {error}") from None
