# SPDX-License-Identifier: MIT
"""The rings between an NVMe driver and its controller, and the admin queue.

"Section" is one of the NVM Express Base Specification, revision 1.4.
"""

from __future__ import annotations

import time
from itertools import repeat
from typing import TYPE_CHECKING

from pyuio_drivers.nvme_errors import CommandError, CommandTimeoutError
from pyuio_drivers.nvme_structures import (
    ADMIN_NAMES,
    ANSWER_COMMAND_ID,
    ANSWER_PHASE,
    ANSWER_STATUS_SHIFT,
    COMPLETION_ENTRY,
    COMPLETION_FIELDS,
    DOORBELLS,
    SUBMISSION_ENTRY,
    SUBMISSION_FIELDS,
)

from pyuio import DescriptorRing

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme

ADMIN_ENTRIES = 32
PAUSE = 0.0005  # seconds between looks, when there was none for long


class QueuePair:
    """A submission queue and the completion queue that answers it, section 4.1.

    Attributes:
        number: of both; 0 is the admin queue.
        submission, completion: their rings.
    """

    def __init__(self, disk: Nvme, number: int, entries: int, completions: int) -> None:
        dma, page = disk.device.dma, disk.capabilities.page_size
        self.disk = disk
        self.number = number
        commands, answers = dma.alloc(entries * SUBMISSION_ENTRY, align=page), None
        try:
            answers = dma.alloc(completions * COMPLETION_ENTRY, align=page)
        finally:
            if answers is None:
                commands.close()
        self.submission = DescriptorRing(
            commands, entry_size=SUBMISSION_ENTRY, fields=SUBMISSION_FIELDS, owner="opcode"
        )
        self.completion = DescriptorRing(answers, entry_size=COMPLETION_ENTRY, fields=COMPLETION_FIELDS, owner="answer")
        # Sections 3.1.24 and 3.1.25.
        self._submission_doorbell = DOORBELLS + 2 * number * disk.capabilities.doorbell_stride
        self._completion_doorbell = DOORBELLS + (2 * number + 1) * disk.capabilities.doorbell_stride
        self._ring_doorbell = disk.registers.write32
        self.restart()

    def restart(self) -> None:
        """Start with empty rings, as the controller does when it is enabled or the queue is created."""
        self.submission.buffer.zero()
        self.completion.buffer.zero()
        self._tail = self._head = 0
        self._phase = ANSWER_PHASE  # of the entries of the controller's first pass through the ring, section 4.6

    def free(self) -> None:
        """Free the memory, when the controller does not use it any more; again is harmless."""
        self.submission.buffer.close()
        self.completion.buffer.close()


class AdminQueue(QueuePair):
    """Queue 0, by which the controller is asked about itself and told of other queues; one command at a time."""

    def __init__(self, disk: Nvme) -> None:
        super().__init__(disk, 0, ADMIN_ENTRIES, ADMIN_ENTRIES)
        self._command_id = 0

    def execute(self, opcode: int, **fields: int) -> int:
        """Have the controller do one admin command and return dword 0 of its answer.

        Args:
            opcode: the command.
            fields: others of `SUBMISSION_FIELDS`.

        Raises:
            CommandError: the controller completed it with an error.
            CommandTimeoutError: it did not complete it within the disk's `timeout`.
            ControllerFatalError, DeviceRemovedError: the controller failed, or is gone.
        """
        doing = f"{self.disk.device.name}: {ADMIN_NAMES.get(opcode, f'admin command {opcode:#04x}')}"
        self._command_id = (self._command_id + 1) % 0xFFFF  # 0xffff is reserved, section 4.2
        values = dict.fromkeys(SUBMISSION_FIELDS, 0) | fields | {"command_id": self._command_id}
        self.submission.publish(self._tail, **values | {"opcode": opcode})
        self._tail = (self._tail + 1) % ADMIN_ENTRIES
        self._ring_doorbell(self._submission_doorbell, self._tail)
        deadline = time.monotonic() + self.disk.timeout
        while True:
            in_time = time.monotonic() < deadline
            for _ in repeat(None, 100):
                if self.completion.owner(self._head) & ANSWER_PHASE == self._phase:
                    break
            else:
                self.disk.require_working(doing)
                if not in_time:
                    raise CommandTimeoutError(f"{doing}: not completed within {self.disk.timeout:g} s; see reset()")
                time.sleep(PAUSE)
                continue
            answer, result = self.completion.read(self._head, "answer"), self.completion.read(self._head, "dw0")
            self._head = (self._head + 1) % ADMIN_ENTRIES
            if self._head == 0:
                self._phase ^= ANSWER_PHASE
            self._ring_doorbell(self._completion_doorbell, self._head)
            if answer & ANSWER_COMMAND_ID != self._command_id:
                continue  # one that came too late
            if status := answer >> ANSWER_STATUS_SHIFT:
                raise CommandError(doing, status)
            return result
