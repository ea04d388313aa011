# SPDX-License-Identifier: MIT
"""The I/O queues of an NVMe disk: reads and writes with many commands outstanding.

"Section" is one of the NVM Express Base Specification 1.4. SQ is a submission queue with entries (SQE), CQ a completion
queue with entries (CQE). `pyuio_drivers.nvme_batch` prepares the SQEs; this file submits them and reaps the CQEs.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, repeat
from typing import TYPE_CHECKING, NoReturn

from pyuio_drivers.nvme_admin import PAUSE
from pyuio_drivers.nvme_batch import Batch, PreparedCommands, block_array
from pyuio_drivers.nvme_errors import (
    CommandError,
    CommandTimeoutError,
    ControllerFatalError,
    ControllerResetError,
    NvmeError,
)
from pyuio_drivers.nvme_registers import doorbell_offsets
from pyuio_drivers.nvme_rings import (
    DW3_CID,
    DW3_PHASE_TAG,
    DW3_STATUS_AND_PHASE,
    DW3_STATUS_SHIFT,
    IO_SQE_FIELDS,
    allocate_rings,
)
from pyuio_drivers.nvme_structures import COMMAND_NAMES, FLUSH, READ, WRITE

from pyuio import ClosedError, DeviceBusyError, DeviceTimeoutError, PyuioError, dma_rmb

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme
    from typing_extensions import Buffer, Self

    from pyuio.interrupt import Interrupt

# A large CQ, so that the CQ head doorbell need seldom be rung: section 4.1.
CQ_ENTRIES = 1024
SPINS = 5000  # looks at a CQE without a pause, which take a few milliseconds


class NvmeQueue:
    """An I/O queue pair for many commands at once, made by `Nvme.queue`.

    A context manager. One thread may use the queue at a time, for one `read_many` or `write_many` at a time.

    The queue submits commands in batches, each with one write of the SQ tail doorbell. A batch of half the depth is
    best for a real controller, which works on one half while the program handles the other. An emulated controller gets
    the whole depth at once, because there a doorbell waits until the emulator has finished what it is doing.

    Attributes:
        disk: the disk.
        number: the queue identifier of both queues.
        depth: how many commands are outstanding at most.
        blocks_per_command: the most blocks of one command.
        interrupt: what the queue sleeps for; None if it polls the CQ.
        vector: the interrupt's number for the controller.
        submission, completion: the rings.
    """

    def __init__(
        self,
        disk: Nvme,
        number: int,
        depth: int,
        blocks_per_command: int,
        batch: int,
        *,
        interrupt: Interrupt | None = None,
        vector: int = 0,
    ) -> None:
        self.disk = disk
        self.number = number
        self.depth = depth
        self.blocks_per_command = blocks_per_command
        self.interrupt = interrupt
        self.vector = vector
        # A message, MSI or MSI-X, comes once, so the queue looks at the CQ before it sleeps.
        self._by_message = interrupt is not None and interrupt.kind != "INTx"
        self._batch_size = batch
        self._most_batches = depth // batch  # outstanding at most
        # One batch more than may be outstanding, so that the controller works while the program looks at the data of
        # the batch before.
        sq_entries = batch * (self._most_batches + 1)
        cq_entries = max(CQ_ENTRIES, 1 << (2 * sq_entries - 1).bit_length())
        self._cq_entries = min(cq_entries, 1 << (disk.capabilities.queue_entries.bit_length() - 1))
        self.submission, self.completion = allocate_rings(disk, sq_entries, self._cq_entries, IO_SQE_FIELDS)
        self._commands = PreparedCommands(disk, self.submission, blocks_per_command)
        self._cqe_dw3 = self.completion.column("dw3")
        self._write32 = disk.bar.write32
        self._clock = disk.device.clock
        self._sqtdbl, self._cqhdbl = doorbell_offsets(number, disk.capabilities.doorbell_stride)
        # CQEs for each write of the doorbell.
        self._cqhdbl_interval = 1 if interrupt else max(1, self._cq_entries // 4)
        self._outstanding: deque[Batch] = deque()  # oldest first
        self._completed: set[int] = set()  # CIDs that were completed before the rest of their batch
        self._failures: dict[int, int] = {}  # the status of each CID that failed
        self._generation = 0  # changes when outstanding commands are lost
        self._busy = self._closed = False
        self.restart()

    def restart(self) -> None:
        """Empty both queues, which the controller is to create; outstanding commands are lost."""
        self.submission.buffer.zero()
        self.completion.buffer.zero()
        self._commands.invalidate()
        self._sq_tail = self._cq_head = 0
        self._phase_tag = DW3_PHASE_TAG  # of the CQEs of the controller's first pass through the queue, section 4.6
        self._cqes_since_cqhdbl = 0
        self._generation += 1
        self._broken = True  # until they are created
        self._outstanding.clear()
        self._completed.clear()
        self._failures.clear()

    def mark_created(self) -> None:
        """Allow the use of the queues, which the controller has created."""
        self._broken = False

    # -- reading and writing --

    def read_many(self, blocks: Iterable[int], count: int = 1) -> Iterator[memoryview]:
        """Read at many places, with up to `depth` commands outstanding, and yield the data of each, in order.

        The queue takes up to twice `depth` more of `blocks` than it has yielded.

        Args:
            blocks: the first block of each read.
            count: blocks of each read, 1 to `blocks_per_command`.

        Yields:
            A view of the queue's own memory. Asking for the next view overwrites it, so copy what you want to keep.

        Raises:
            CommandError: a read failed. The reads before it were yielded, the reads after it are discarded.
            CommandTimeoutError: a read took longer than the disk's `timeout`. When the loop is left early or another
                error comes, that holds for the reads that are outstanding, too.
            ControllerFatalError: the controller failed, or is disabled.
            ControllerResetError: the controller was reset meanwhile.
            DeviceRemovedError: the controller is gone.
            DeviceBusyError: an earlier `read_many` is not finished.
            ValueError: `count` or a block is out of range.
            ClosedError: the queue is closed.
        """
        self._check(count)
        return self._read_many(iter(blocks), count)

    def _read_many(self, blocks: Iterator[int], count: int) -> Iterator[memoryview]:
        with self._in_use(READ, count) as generation:
            if self.depth == 1 and not self.interrupt:
                yield from self._read_one_by_one(blocks, generation)
            while chunk := block_array(islice(blocks, self._batch_size)):
                if self._generation != generation:  # what the caller did since the last look, also in `blocks`
                    raise self._lost()
                batch = self._commands.fill(self._sq_tail, chunk)
                if len(self._outstanding) < self._most_batches:
                    self._submit(batch)
                    continue
                views, error = self._complete_oldest(batch)
                yield from views
                if error:
                    raise error
            if self._generation != generation:
                raise self._lost()
            while self._outstanding:
                views, error = self._complete_oldest()
                yield from views
                self._require_success(error, generation)

    def write_many(self, items: Iterable[tuple[int, Buffer]], count: int = 1) -> int:
        """Write at many places, with up to `depth` commands outstanding, in no particular order.

        Args:
            items: the first block of each write, and its data of `count` blocks.
            count: blocks of each write, 1 to `blocks_per_command`.

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
        with self._in_use(WRITE, count) as generation:
            while chunk := [*islice(items, self._batch_size)]:
                if self._generation != generation:  # what the caller did in `items`
                    raise self._lost()
                # The program copies the data while the batches before are outstanding.
                views = self._commands.batch(self._sq_tail, len(chunk)).views
                for view, (block, data) in zip(views, chunk, strict=True):
                    _copy_blocks(view, data, block, count)
                batch = self._commands.fill(self._sq_tail, block_array(block for block, _ in chunk))
                if len(self._outstanding) < self._most_batches:
                    self._submit(batch)
                    continue
                views, error = self._complete_oldest(batch)
                if error:
                    raise error
                done += len(views)
            if self._generation != generation:
                raise self._lost()
            while self._outstanding:
                views, error = self._complete_oldest()
                self._require_success(error, generation)
                done += len(views)
        return done

    def flush(self) -> None:
        """Have the controller write its cache to the medium (section 6.8). Errors are those of `read_many`."""
        with self._in_use(FLUSH, 0) as generation:
            self._submit(self._commands.fill(self._sq_tail, block_array([0])))
            _, error = self._complete_oldest()
            self._require_success(error, generation)

    # -- submission and completion --

    def _submit(self, batch: Batch) -> None:
        """Write the SQ tail doorbell (section 3.1.24): the controller now executes the commands of the batch."""
        self._sq_tail = batch.sq_tail
        self._outstanding.append(batch)
        self._write32(self._sqtdbl, batch.sq_tail)

    def _complete_oldest(self, following: Batch | None = None) -> tuple[list[memoryview], CommandError | None]:
        """Wait for the oldest batch; return the views of its commands up to the first that failed, and its error.

        `following` is a batch that has no more commands than the oldest. The queue submits it as soon as it sees enough
        completions, before it does anything else, so that the controller has work.
        """
        batch, completed, deadline = self._outstanding[0], self._completed, 0.0
        while missing := len(batch.cid_set - completed) if completed else len(batch.cid_set):
            # The controller fills the CQ in order: when the last of the missing CQEs is there, all of them are. If they
            # wrap around the end of the CQ, the wait is for those before the end first.
            end = min(self._cq_head + missing, self._cq_entries)
            wraps = self._cq_head + missing > self._cq_entries
            if self._wait_for_cqe(end - 1):
                if following and not wraps:
                    self._submit(following)
                    following = None
                successes = batch.successes[self._phase_tag]
                cqes = self._reap(end - self._cq_head)
                if self.interrupt:
                    # The next interrupt may come while the program is busy: `_wait_for_interrupt` then finds it.
                    self.interrupt.unmask()
                if not completed and set(cqes) == successes:
                    self._outstanding.popleft()
                    return batch.views, None
                self._record(cqes)
            elif not self._reap_available():
                deadline = deadline or self._clock.monotonic() + self.disk.timeout
                self._check_progress(batch, deadline)
        if following:
            self._submit(following)
        completed -= batch.cid_set
        self._outstanding.popleft()
        failed = next((cid for cid in batch.cids if cid in self._failures), None) if self._failures else None
        if failed is None:
            return batch.views, None
        error = CommandError(self._commands.describe(failed), self._failures[failed], self._commands.block(failed))
        return batch.views[: batch.cids.index(failed)], error

    def _wait_for_cqe(self, index: int) -> bool:
        """Poll a CQE for a few milliseconds, or sleep until an interrupt; return whether the CQE is there."""
        dw3, phase_tag = self._cqe_dw3, self._phase_tag
        if self.interrupt:
            if not (self._by_message and dw3[index] & DW3_PHASE_TAG == phase_tag):
                self._wait_for_interrupt(self.interrupt)
            return dw3[index] & DW3_PHASE_TAG == phase_tag
        for _ in repeat(None, SPINS):
            if arrived := dw3[index] & DW3_PHASE_TAG == phase_tag:
                break
        return arrived

    def _wait_for_interrupt(self, interrupt: Interrupt) -> None:
        """Sleep until the interrupt, for a second at most; the caller looks for CQEs in any case.

        The controller keeps an interrupt line raised until the CQ head doorbell says that all CQEs were read, so that
        none is missed (section 7.5.1). It sends a message for CQEs that come after the look at the CQ.
        """
        try:  # noqa: SIM105 - suppress() takes longer, and the controller has no work meanwhile
            interrupt.read(min(1.0, self.disk.timeout))
        except DeviceTimeoutError:
            pass

    def _reap(self, number: int) -> list[int]:
        """Consume that many CQEs, which are there, and return dword 3 of each (section 4.6)."""
        dma_rmb()
        start, end = self._cq_head, self._cq_head + number
        cqes = self._cqe_dw3[start:end].tolist()
        self._cq_head = end
        self._cqes_since_cqhdbl += number
        if end == self._cq_entries or self._cqes_since_cqhdbl >= self._cqhdbl_interval:
            self._ring_cqhdbl()
        return cqes

    def _ring_cqhdbl(self) -> None:
        """Write the CQ head doorbell (section 3.1.25): the controller may reuse the CQEs that were reaped."""
        if self._cq_head == self._cq_entries:
            self._cq_head = 0
            self._phase_tag ^= DW3_PHASE_TAG
        self._cqes_since_cqhdbl = 0
        self._write32(self._cqhdbl, self._cq_head)

    def _reap_available(self) -> bool:
        """Reap and record the CQEs that are there; return whether there were any."""
        most = sum(len(batch.cids) for batch in self._outstanding) - len(self._completed)
        cqes = self._cqe_dw3[self._cq_head : self._cq_head + most].tolist()
        number = next((index for index, dw3 in enumerate(cqes) if dw3 & DW3_PHASE_TAG != self._phase_tag), len(cqes))
        if number:
            self._record(self._reap(number))
        return bool(number)

    def _record(self, cqes: list[int]) -> None:
        """Remember which commands are completed, and which of them failed."""
        for dw3 in cqes:
            self._completed.add(dw3 & DW3_CID)
            if dw3 >> DW3_STATUS_SHIFT:
                self._failures[dw3 & DW3_CID] = dw3 >> DW3_STATUS_SHIFT

    def _read_one_by_one(self, blocks: Iterator[int], generation: int) -> Iterator[memoryview]:
        """Read with a depth of 1 by polling: as little as possible between a completion and the next SQ tail doorbell.

        This does what `_submit`, `_wait_for_cqe` and `_reap` do, for a batch of one command in a queue of two. When the
        blocks are used up, the last read is left outstanding, for the caller to complete.
        """
        slba, views, dw3 = self._commands.slba, self._commands.views, self._cqe_dw3
        write32, sqtdbl, cqhdbl_mask = self._write32, self._sqtdbl, self._cqhdbl_interval - 1
        sq_tail, cq_head, phase_tag, outstanding = self._sq_tail, self._cq_head, self._phase_tag, False
        try:
            for block in blocks:
                if self._generation != generation:
                    raise self._lost()
                try:
                    slba[sq_tail] = block
                except ValueError:
                    raise ValueError(f"a block is 0 to 2^64 - 1, not {block}") from None
                if outstanding:
                    for _ in repeat(None, SPINS):
                        if dw3[cq_head] & DW3_PHASE_TAG == phase_tag:
                            break
                    if dw3[cq_head] & DW3_STATUS_AND_PHASE != phase_tag:  # the read failed, or takes long
                        self._cq_head, self._phase_tag, outstanding = cq_head, phase_tag, False
                        # `_reap` rings the CQ head doorbell where this loop does.
                        self._cqes_since_cqhdbl = cq_head & cqhdbl_mask
                        self._outstanding.append(self._commands.batch(sq_tail ^ 1, 1))
                        try:
                            _, error = self._complete_oldest()
                        finally:  # also after a time-out, which reaps the CQE of an aborted command
                            cq_head, phase_tag = self._cq_head, self._phase_tag
                        if error:
                            raise error
                        sq_tail ^= 1
                        outstanding = True
                        write32(sqtdbl, sq_tail)
                    else:
                        sq_tail ^= 1
                        outstanding = True
                        write32(sqtdbl, sq_tail)
                        # From here on the controller has work.
                        dma_rmb()
                        cq_head += 1
                        if not cq_head & cqhdbl_mask:
                            self._cq_head = cq_head
                            self._ring_cqhdbl()
                            cq_head, phase_tag = self._cq_head, self._phase_tag
                    yield views[sq_tail]
                else:
                    sq_tail ^= 1
                    outstanding = True
                    write32(sqtdbl, sq_tail)
        finally:
            if self._generation == generation:
                self._sq_tail, self._cq_head, self._phase_tag = sq_tail, cq_head, phase_tag
                if outstanding:
                    self._outstanding.append(self._commands.batch(sq_tail ^ 1, 1))

    # -- who may use the queue, and what goes wrong --

    def _check(self, count: int) -> None:
        if self._closed:
            raise ClosedError(f"{self.disk.device.name}: queue {self.number} is closed")
        if not 1 <= count <= self.blocks_per_command:
            raise ValueError(f"a command of this queue has 1 to {self.blocks_per_command} blocks, not {count}")

    @contextmanager
    def _in_use(self, opcode: int, count: int) -> Iterator[int]:
        """Refuse other users, prepare the SQEs for one kind of command, and leave no command outstanding.

        Yields the generation, which changes when outstanding commands are lost.
        """
        doing = f"{self.disk.device.name}: {COMMAND_NAMES[opcode]}"
        if self._closed or self.disk.device.closed:
            raise ClosedError(f"{doing}: queue {self.number} is closed")
        if self._broken:
            self.disk.require_working(doing)
            raise ControllerFatalError(f"{doing}: queue {self.number} was lost when the controller failed; see reset()")
        if self._busy:
            reason = f"an earlier read_many of queue {self.number} is not finished; close() it"
            raise DeviceBusyError(errno.EBUSY, f"{doing}: {reason}")
        self._busy = True
        try:
            self._commands.prepare(opcode, count)
            yield self._generation
        finally:
            self._busy = False
            try:
                if not (self._broken or self._closed or self.disk.device.closed):
                    while self._outstanding:
                        self._complete_oldest()
            finally:
                if self._outstanding:  # nobody waits for them any more
                    self._broken = True
                self._completed.clear()
                self._failures.clear()
                if self.interrupt:
                    self.disk.unless_gone(self.interrupt.mask)

    def _require_success(self, error: CommandError | None, generation: int) -> None:
        if error:
            raise error
        if self._generation != generation:
            raise self._lost()

    def _lost(self) -> PyuioError:
        name = f"{self.disk.device.name}: queue {self.number}"
        return ClosedError(f"{name} is closed") if self._closed else ControllerResetError(f"{name} was reset meanwhile")

    def _check_progress(self, batch: Batch, deadline: float) -> None:
        """Find out why there was no CQE for long: the controller failed, or the deadline is over, or neither."""
        cid = min(batch.cid_set - self._completed)
        try:
            self.disk.require_working(self._commands.describe(cid))
        except PyuioError:
            self._broken = True
            raise
        if self._clock.monotonic() >= deadline:
            self._abort_outstanding(cid)
        if not self.interrupt:
            self._clock.sleep(PAUSE)

    def _abort_outstanding(self, cid: int) -> NoReturn:
        """Abort all outstanding commands (section 5.1), reset the controller if that does not help, and raise.

        The error is about the command `cid`.
        """
        doing, timeout = self._commands.describe(cid), self.disk.timeout
        late = f"{doing}: not completed within {timeout:g} s"
        outstanding = {each for batch in self._outstanding for each in batch.cids}
        try:
            for each in sorted(outstanding - self._completed):
                self.disk.abort(self.number, each)
            deadline = self._clock.monotonic() + timeout
            while not outstanding <= self._completed and self._clock.monotonic() < deadline:
                if not self._reap_available():
                    self._clock.sleep(PAUSE)
        except (NvmeError, DeviceTimeoutError) as error:
            late += f"; aborting it failed ({error})"
        if outstanding <= self._completed:
            status = self._failures.get(cid)
            ended = f"ended with: {CommandError(doing, status).status_name}" if status else "completed meanwhile"
            # Whoever handles the error finds a queue without commands, which can be used again.
            self._outstanding.clear()
            self._completed.clear()
            raise CommandTimeoutError(f"{late}; an abort was sent, and it {ended}")
        self._broken = True
        self.disk.reset()
        raise CommandTimeoutError(f"{late}, nor aborted; the controller was reset, and the disk remains usable")

    # -- the end --

    def close(self) -> None:
        """Have the controller delete the queue, and free its memory; a second call does nothing."""
        if not self._closed:
            self.disk.forget(self)

    def mark_closed(self) -> None:
        """Refuse all further use; a `read_many` that is not finished raises ClosedError."""
        self._closed = True
        self._generation += 1

    def free(self) -> None:
        """Free the memory, which the controller must not use any more; a second call does nothing."""
        self.mark_closed()
        self.submission.buffer.close()
        self.completion.buffer.close()
        self._commands.close()

    def __enter__(self) -> Self:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _copy_blocks(view: memoryview, data: Buffer, block: int, count: int) -> None:
    """Copy the data of one write into the memory of its command."""
    with memoryview(data) as given, given.cast("B") as octets:
        if len(octets) != len(view):
            reason = f"{len(octets)} bytes are not {count} blocks, {len(view)} bytes"
            raise ValueError(f"block {block}: {reason}")
        view[:] = octets
