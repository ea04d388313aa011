# SPDX-License-Identifier: MIT
"""Batches of NVMe commands, whose submission queue entries (SQEs) are prepared long before they are submitted.

All SQEs of a queue are filled in once, but for the block, so that a further command of the same kind costs one 64-bit
store. For a whole batch that is one assignment to a slice of a column of the ring. "Section" is one of the NVM Express
Base Specification 1.4.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pyuio_drivers.nvme_rings import DW3_PHASE_TAG
from pyuio_drivers.nvme_structures import COMMAND_NAMES

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme

    from pyuio import DescriptorRing


class Batch(NamedTuple):
    """Commands that are submitted together, by one write of the submission queue tail doorbell.

    A command's identifier (CID) is the index of its SQE in the submission queue.
    """

    cids: list[int]  # in the order of submission
    cid_set: frozenset[int]
    sq_tail: int  # after the last one
    views: list[memoryview]  # on their data
    successes: dict[int, frozenset[int]]  # for each phase tag, dword 3 of the CQEs when all commands succeed


class PreparedCommands:
    """The SQEs of one submission queue, and memory for the data of each.

    Attributes:
        opcode, count: what the SQEs are prepared for, and with how many blocks.
        slba: the starting LBA of each SQE, as a column of the ring.
        views: on the data of each SQE.
    """

    def __init__(self, disk: Nvme, submission: DescriptorRing, blocks_per_command: int) -> None:
        self.disk = disk
        self._submission = submission
        self._entries = len(submission)
        self.slba = submission.column("slba")
        self._allocate(blocks_per_command)
        self.invalidate()

    def _allocate(self, blocks_per_command: int) -> None:
        """Allocate the data of each command, and a PRP list of the pages of the data after the first (section 4.3)."""
        page, dma = self.disk.capabilities.page_size, self.disk.device.dma
        pages = -(-blocks_per_command * self.disk.namespace.block_size // page)
        self._data = dma.pool(self._entries, pages * page, align=page)
        data = [self._data.take() for _ in range(self._entries)]
        self._buffers = [memoryview(buffer) for buffer in data]
        self._addresses = [buffer.address for buffer in data]
        size = 1 << max(6, (8 * (pages - 1) - 1).bit_length())  # a list of a power of two bytes crosses no page
        self._prp_lists = dma.pool(self._entries, size, align=size)
        prp_lists = [self._prp_lists.take() for _ in range(self._entries)]
        self._prp_list_addresses = [prp_list.address for prp_list in prp_lists]
        for address, prp_list in zip(self._addresses, prp_lists, strict=True):
            if pages > 1:
                prp_list[: 8 * (pages - 1)] = struct.pack(
                    f"<{pages - 1}Q", *range(address + page, address + pages * page, page)
                )

    def close(self) -> None:
        """Free the data and the PRP lists; a second call does nothing."""
        self._data.close()
        self._prp_lists.close()

    def invalidate(self) -> None:
        """Have the next `prepare` fill in all SQEs, because the submission queue was zeroed."""
        self.opcode, self.count = -1, 0

    def prepare(self, opcode: int, count: int) -> None:
        """Fill in all SQEs for one kind of command on `count` blocks (section 4.2, and 6.8, 6.9 or 6.15).

        `fill` writes the block. A flush has a count of 0.
        """
        if (opcode, count) == (self.opcode, self.count):
            return
        size = count * self.disk.namespace.block_size
        page = self.disk.capabilities.page_size
        nothing = [0] * self._entries
        # Section 4.3: PRP entry 2 is the second page itself, or the list of all pages but the first.
        prp2 = nothing
        if size > 2 * page:
            prp2 = self._prp_list_addresses
        elif size > page:
            prp2 = [address + page for address in self._addresses]
        columns: dict[str, tuple[str, Iterable[int]]] = {
            "opc": ("B", [opcode] * self._entries),
            "cid": ("H", range(self._entries)),
            "nsid": ("I", [self.disk.namespace.number] * self._entries),
            "prp1": ("Q", self._addresses if count else nothing),
            "prp2": ("Q", prp2),
            "cdw12": ("I", [max(0, count - 1)] * self._entries),  # NLB counts from 0: section 6.9
        }
        for name, (format, values) in columns.items():
            self._submission.column(name)[:] = array(format, values)
        self.views = [buffer[:size] for buffer in self._buffers]
        self._batches: dict[tuple[int, int], Batch] = {}
        self.opcode, self.count = opcode, count

    def batch(self, sq_tail: int, number: int) -> Batch:
        """Return the batch of the `number` SQEs from `sq_tail` on. It may wrap around the end of the queue."""
        batch = self._batches.get((sq_tail, number))
        if batch is None:
            cids = [cid % self._entries for cid in range(sq_tail, sq_tail + number)]
            batch = self._batches[sq_tail, number] = Batch(
                cids,
                frozenset(cids),
                (sq_tail + number) % self._entries,
                [self.views[cid] for cid in cids],
                {phase_tag: frozenset(cid | phase_tag for cid in cids) for phase_tag in (0, DW3_PHASE_TAG)},
            )
        return batch

    def fill(self, sq_tail: int, blocks: array[int]) -> Batch:
        """Write the block of each SQE from `sq_tail` on, where the controller does not look yet; return the batch."""
        batch = self.batch(sq_tail, len(blocks))
        if sq_tail < batch.sq_tail:
            self.slba[sq_tail : batch.sq_tail] = blocks
        else:
            to_end = self._entries - sq_tail
            self.slba[sq_tail:] = blocks[:to_end]
            self.slba[: batch.sq_tail] = blocks[to_end:]
        return batch

    def describe(self, cid: int) -> str:
        """Return what a command does, for messages."""
        what = f" {self.count} blocks at block {self.slba[cid]}" if self.count else ""
        namespace = self.disk.namespace.number
        return f"{self.disk.device.name}: {COMMAND_NAMES[self.opcode]}{what} of namespace {namespace}"

    def block(self, cid: int) -> int | None:
        """Return the first block of a command; None for a flush."""
        return self.slba[cid] if self.count else None


def block_array(blocks: Iterable[int]) -> array[int]:
    """Return block numbers as 64-bit integers, which `PreparedCommands.fill` takes. ValueError: one does not fit."""
    try:
        return array("Q", blocks)
    except OverflowError as error:
        raise ValueError(f"a block is 0 to 2^64 - 1: {error}") from None
