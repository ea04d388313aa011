# SPDX-License-Identifier: MIT
"""Commands for the blocks of an NVMe disk: how they are prepared, handed over, and completed.

What the user calls is in `pyuio_drivers.nvme_queue`. "Section" is one of the NVM Express Base Specification, revision
1.4.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pyuio_drivers.nvme_errors import CommandError, CommandTimeoutError, NvmeError
from pyuio_drivers.nvme_rings import PAUSE, QueuePair
from pyuio_drivers.nvme_structures import (
    ANSWER_COMMAND_ID,
    ANSWER_PHASE,
    ANSWER_STATUS_SHIFT,
    COMMAND_NAMES,
)

from pyuio import DeviceTimeoutError, PyuioError, dma_rmb

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme

# Room for many completions, so that the controller need seldom be told which were seen: section 4.1.
COMPLETIONS = 1024
SPINS = 5000  # looks without a pause, a few milliseconds


class Batch(NamedTuple):
    """Commands that are handed over together."""

    order: list[int]  # their slots
    end: int  # the place after the last
    slots: frozenset[int]
    views: list[memoryview]  # on their data
    successes: dict[int, frozenset[int]]  # for each phase, the answers when all succeed


class CommandQueue(QueuePair):
    """A queue pair for many commands of one kind at a time.

    Commands go in batches, and a doorbell is rung once for each. Half the depth is best where the controller works by
    itself; the doorbell of an emulated one waits until the emulator is done with what it is doing, so that one gets
    the whole depth at once. A command's place in the submission ring is its slot, which also has memory for data. All
    places are filled in beforehand, but for the block: one 64-bit store is what a further command of the same kind
    costs. There are slots for one batch more than may be under way, so that the controller has work while the program
    looks at the data of the batch before.
    """

    def __init__(
        self, disk: Nvme, number: int, depth: int, blocks_per_command: int, batch: int, *, by_interrupt: bool
    ) -> None:
        self.depth = depth
        self.blocks_per_command = blocks_per_command
        self.by_interrupt = by_interrupt
        self._width = batch
        self._ways = depth // self._width  # batches under way at most
        self._count = self._width * (self._ways + 1)
        self._waiting: deque[Batch] = deque()  # under way, oldest first
        self._early: set[int] = set()  # completed, but not all of their batch
        self._failures: dict[int, int] = {}
        self._generation = 0
        self._busy = self._closed = False
        self._completions = max(COMPLETIONS, 1 << (2 * self._count - 1).bit_length())
        self._completions = min(self._completions, 1 << (disk.capabilities.queue_entries.bit_length() - 1))
        super().__init__(disk, number, self._count, self._completions)
        self._report_after = 1 if by_interrupt else self._completions // 4
        self._allocate()
        self._blocks = self.submission.column("cdw10_11")
        self._answers = self.completion.column("answer")

    def _allocate(self) -> None:
        """Get the slots' memory, and for each the list of its pages after the first (section 4.3)."""
        page, dma = self.disk.capabilities.page_size, self.disk.device.dma
        pages = -(-self.blocks_per_command * self.disk.namespace.block_size // page)
        self._data = dma.pool(self._count, pages * page, align=page)
        buffers = [self._data.take() for _ in range(self._count)]
        self._buffers = [memoryview(buffer) for buffer in buffers]
        self._addresses = [buffer.address for buffer in buffers]
        size = 1 << max(6, (8 * (pages - 1) - 1).bit_length())  # a power of two crosses no page
        self._lists = dma.pool(self._count, size, align=size)
        lists = [self._lists.take() for _ in range(self._count)]
        self._list_addresses = [each.address for each in lists]
        for address, each in zip(self._addresses, lists, strict=True):
            addresses = array("Q", range(address + page, address + pages * page, page))
            if addresses:
                each[: 8 * len(addresses)] = addresses

    def restart(self) -> None:
        """Start with empty rings; what was under way is lost."""
        super().restart()
        self._prepared = (-1, 0)
        self._unreported = 0
        self._generation += 1
        self._broken = False
        self._waiting.clear()
        self._early.clear()
        self._failures.clear()

    def end(self) -> None:
        """Let nobody use it any more."""
        self._closed = True
        self._generation += 1

    def free(self) -> None:
        """Free the memory, when the controller does not use it any more; again is harmless."""
        self.end()
        super().free()
        self._data.close()
        self._lists.close()

    # -- handing over --

    def _prepare(self, opcode: int, count: int) -> None:
        """Fill in all places for commands of one kind, but for the block: section 4.2, and 6.8, 6.9 or 6.15."""
        size = count * self.disk.namespace.block_size
        page = self.disk.capabilities.page_size
        nothing = [0] * self._count
        # Section 4.3: the second page itself, or the list of all but the first.
        second = nothing
        if size > 2 * page:
            second = self._list_addresses
        elif size > page:
            second = [address + page for address in self._addresses]
        columns: dict[str, tuple[str, Iterable[int]]] = {
            "opcode": ("B", [opcode] * self._count),
            "command_id": ("H", range(self._count)),
            "namespace_id": ("I", [self.disk.namespace.number] * self._count),
            "prp1": ("Q", self._addresses if count else nothing),
            "prp2": ("Q", second),
            "cdw12": ("I", [max(0, count - 1)] * self._count),  # from 0: section 6.9
        }
        for name, (format, values) in columns.items():
            self.submission.column(name)[:] = array(format, values)
        self._views = [buffer[:size] for buffer in self._buffers]
        self._batches: dict[tuple[int, int], Batch] = {}
        self._prepared = (opcode, count)

    def _batch(self, start: int, number: int) -> Batch:
        batch = self._batches.get((start, number))
        if batch is None:
            order = [slot % self._count for slot in range(start, start + number)]  # it may go round the end
            successes = {phase: frozenset(slot | phase for slot in order) for phase in (0, ANSWER_PHASE)}
            views = [self._views[slot] for slot in order]
            end = (start + number) % self._count
            batch = self._batches[start, number] = Batch(order, end, frozenset(order), views, successes)
        return batch

    def _place(self, blocks: array[int]) -> Batch:
        """Put a command for each block into the ring, where the controller does not look yet."""
        start = self._tail
        batch = self._batch(start, len(blocks))
        if start < batch.end:
            self._blocks[start : batch.end] = blocks
        else:
            before = self._count - start
            self._blocks[start:] = blocks[:before]
            self._blocks[: batch.end] = blocks[before:]
        return batch

    def _hand_over(self, batch: Batch) -> None:
        """Tell the controller of the commands that were placed."""
        self._tail = batch.end
        self._waiting.append(batch)
        self._ring_doorbell(self._submission_doorbell, batch.end)

    # -- completion --

    def _name(self, slot: int) -> str:
        opcode, count = self._prepared
        what = f" {count} blocks at block {self._blocks[slot]}" if count else ""
        return f"{self.disk.device.name}: {COMMAND_NAMES[opcode]}{what} of namespace {self.disk.namespace.number}"

    def _complete_oldest(self, following: Batch | None = None) -> tuple[list[memoryview], CommandError | None]:
        """Wait for the oldest batch; return the views of its commands up to the first that failed, and its error.

        As soon as so many commands are completed, `following`, which has no more, is handed over: before anything else,
        for the controller to have work.
        """
        batch = self._waiting[0]
        slots, early, answers, deadline = batch.slots, self._early, self._answers, 0.0
        while True:
            # The controller fills the ring in order: when the last one waited for is there, all are.
            head, phase = self._head, self._phase
            wanted = len(slots - early) if early else len(slots)
            if not wanted:
                break
            end = head + wanted
            last = end - 1 if end <= self._completions else self._completions - 1
            if self.by_interrupt:
                self._sleep()
                arrived = answers[last] & ANSWER_PHASE == phase
            else:
                for _ in repeat(None, SPINS):
                    if arrived := answers[last] & ANSWER_PHASE == phase:
                        break
            if arrived:
                if following and last == end - 1:
                    self._hand_over(following)
                    following = None
                words = self._take(last + 1 - head)
                if self.by_interrupt:
                    # The next one may come while the program is busy: `_sleep` then finds it, and does not sleep.
                    self.disk.device.interrupt.unmask()
                if not early and set(words) == batch.successes[phase]:
                    self._waiting.popleft()
                    return batch.views, None
                self._note(words)
            elif not self._take_arrived():
                deadline = deadline or time.monotonic() + self.disk.timeout
                self._check_up(slots, deadline)
        if following:
            self._hand_over(following)
        early -= slots
        self._waiting.popleft()
        if self._failures:
            for index, slot in enumerate(batch.order):
                if slot in self._failures:
                    block = self._blocks[slot] if self._prepared[1] else None
                    return batch.views[:index], CommandError(self._name(slot), self._failures[slot], block)
        return batch.views, None

    def _sleep(self) -> None:
        """Sleep until the interrupt, or a second: what has arrived is looked for in any case.

        The line stays up as long as there are completions that were not reported, so that none is missed.
        """
        try:  # noqa: SIM105 - nothing more than needed between an interrupt and the next command
            self.disk.device.interrupt.read(min(1.0, self.disk.timeout))
        except DeviceTimeoutError:
            pass

    def _check_up(self, slots: frozenset[int], deadline: float) -> None:
        """Look what is wrong, when there was no completion for long."""
        slot = min(slots - self._early)
        try:
            self.disk.require_working(self._name(slot))
        except PyuioError:
            self._broken = True
            raise
        if time.monotonic() >= deadline:
            self._give_up(slot)
        if not self.by_interrupt:
            time.sleep(PAUSE)

    def _take_arrived(self) -> bool:
        """Take the completions that are there; return whether there were any."""
        most = sum(len(batch.order) for batch in self._waiting) - len(self._early)
        words = self._answers[self._head : self._head + most].tolist()
        arrived = next((index for index, word in enumerate(words) if word & ANSWER_PHASE != self._phase), len(words))
        if arrived:
            self._note(self._take(arrived))
        return bool(arrived)

    def _take(self, number: int) -> list[int]:
        """Take completions that are there, and return the answers: section 4.6."""
        dma_rmb()
        start, end = self._head, self._head + number
        words = self._answers[start:end].tolist()
        self._head = end
        self._unreported += number
        if end == self._completions or self._unreported >= self._report_after:
            self._report()
        return words

    def _note(self, words: list[int]) -> None:
        """Remember which commands are completed, and which of them failed."""
        for word in words:
            self._early.add(word & ANSWER_COMMAND_ID)
            if word >> ANSWER_STATUS_SHIFT:
                self._failures[word & ANSWER_COMMAND_ID] = word >> ANSWER_STATUS_SHIFT

    def _report(self) -> None:
        """Tell the controller which completions were seen; it may fill their entries again."""
        if self._head == self._completions:
            self._head = 0
            self._phase ^= ANSWER_PHASE
        self._unreported = 0
        self._ring_doorbell(self._completion_doorbell, self._head)

    def _give_up(self, slot: int) -> NoReturn:
        """Abort what is under way (section 5.1), reset the controller if that does not help, and raise."""
        name, timeout = self._name(slot), self.disk.timeout
        late = f"{name}: not completed within {timeout:g} s"
        under_way = {each for batch in self._waiting for each in batch.slots}
        try:
            for each in sorted(under_way - self._early):
                self.disk.abort(self.number, each)
            deadline = time.monotonic() + timeout
            while not under_way <= self._early and time.monotonic() < deadline:
                if not self._take_arrived():
                    time.sleep(PAUSE)
        except (NvmeError, DeviceTimeoutError) as error:
            late += f"; aborting it failed ({error})"
        if under_way <= self._early:
            status = self._failures.get(slot)
            became = f"ended with: {CommandError(name, status).status_name}" if status else "completed meanwhile"
            raise CommandTimeoutError(f"{late}; an abort was sent, and it {became}")
        self._broken = True
        self.disk.reset()
        raise CommandTimeoutError(f"{late}, nor aborted; the controller was reset, and the disk can be used on")
