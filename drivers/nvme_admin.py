# SPDX-License-Identifier: MIT
"""The admin queue of an NVMe controller, which takes one command at a time.

It is the simplest queue pair: write a submission queue entry (SQE), ring the tail doorbell, wait for the completion
queue entry (CQE), ring the head doorbell. "Section" is one of the NVM Express Base Specification 1.4.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from pyuio_drivers.nvme_errors import CommandError, CommandTimeoutError
from pyuio_drivers.nvme_registers import doorbell_offsets
from pyuio_drivers.nvme_rings import ADMIN_SQE_FIELDS, DW3_CID, DW3_PHASE_TAG, DW3_STATUS_SHIFT, allocate_rings
from pyuio_drivers.nvme_structures import ADMIN_NAMES

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme

ADMIN_ENTRIES = 32
PAUSE = 0.0005  # seconds between looks at a completion queue that has been empty for long


class AdminQueue:
    """Queue pair 0, through which the driver identifies the controller and creates other queues (section 4.1).

    Attributes:
        submission, completion: the rings.
    """

    def __init__(self, disk: Nvme) -> None:
        self.disk = disk
        self._clock = disk.device.clock
        self.submission, self.completion = allocate_rings(disk, ADMIN_ENTRIES, ADMIN_ENTRIES, ADMIN_SQE_FIELDS)
        self._sqtdbl, self._cqhdbl = doorbell_offsets(0, disk.capabilities.doorbell_stride)
        self._command_id = 0
        self.restart()

    def restart(self) -> None:
        """Empty both rings, as the controller does when it is enabled."""
        self.submission.buffer.zero()
        self.completion.buffer.zero()
        self._sq_tail = self._cq_head = 0
        self._phase_tag = DW3_PHASE_TAG  # of the CQEs of the controller's first pass through the queue, section 4.6

    def execute(self, opcode: int, **fields: int) -> int:
        """Have the controller execute one admin command, and return dword 0 of the CQE.

        Args:
            opcode: the command.
            fields: other fields of the SQE, from `ADMIN_SQE_FIELDS`; those not given are 0.

        Raises:
            CommandError: the controller completed the command with an error.
            CommandTimeoutError: the controller did not complete it within the disk's `timeout`.
            ControllerFatalError: the controller failed, or is disabled.
            DeviceRemovedError: the controller is gone.
        """
        doing = f"{self.disk.device.name}: {ADMIN_NAMES.get(opcode, f'admin command {opcode:#04x}')}"
        self._command_id = (self._command_id + 1) % 0xFFFF  # FFFFh is reserved, section 4.2
        sqe = dict.fromkeys(ADMIN_SQE_FIELDS, 0) | fields | {"opc": opcode, "cid": self._command_id}
        self.submission.publish(self._sq_tail, **sqe)
        self._sq_tail = (self._sq_tail + 1) % ADMIN_ENTRIES
        self.disk.bar.write32(self._sqtdbl, self._sq_tail)
        deadline = self._clock.monotonic() + self.disk.timeout
        while True:
            dw0, dw3 = self._next_cqe(doing, deadline)
            if dw3 & DW3_CID != self._command_id:
                continue  # of an earlier command, which took longer than its timeout
            if status := dw3 >> DW3_STATUS_SHIFT:
                raise CommandError(doing, status)
            return dw0

    def _next_cqe(self, doing: str, deadline: float) -> tuple[int, int]:
        """Wait for a CQE, and return its dwords 0 and 3."""
        while True:
            in_time = self._clock.monotonic() < deadline
            for _ in repeat(None, 100):
                dw3 = self.completion.owner(self._cq_head)
                if dw3 & DW3_PHASE_TAG == self._phase_tag:
                    dw0 = self.completion.read(self._cq_head, "dw0")
                    self._cq_head = (self._cq_head + 1) % ADMIN_ENTRIES
                    if self._cq_head == 0:
                        self._phase_tag ^= DW3_PHASE_TAG
                    self.disk.bar.write32(self._cqhdbl, self._cq_head)
                    return dw0, dw3
            self.disk.require_working(doing)
            if not in_time:
                raise CommandTimeoutError(f"{doing}: not completed within {self.disk.timeout:g} s; see reset()")
            self._clock.sleep(PAUSE)
