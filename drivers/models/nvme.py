# SPDX-License-Identifier: MIT
"""An NVMe controller in Python, with one namespace, for `pyuio_drivers.nvme`.

It follows the NVM Express Base Specification 1.4; "section" is one of its sections.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

from pyuio_drivers import nvme_structures as spec
from pyuio_drivers.nvme_registers import QUEUE_PAIRS, ControllerConfiguration, NvmeRegisters, ShutdownStatus
from pyuio_drivers.nvme_rings import CQE_SIZE_EXPONENT, DW3_PHASE_TAG, DW3_STATUS_SHIFT, SQE_SIZE_EXPONENT

from pyuio.model import BarSpace, Card, TransferError

_MOST_ENTRIES = 2048  # of a queue
_PAGE = 4096  # bytes; the largest that CAP.MPSMAX allows are 16 times as large
_SQE, _CQE = 1 << SQE_SIZE_EXPONENT, 1 << CQE_SIZE_EXPONENT  # bytes
_READY_TIME = 2e-3  # seconds that CSTS.RDY takes to follow CC.EN
_SHUTDOWN_TIME = 5e-3  # seconds

_GET_FEATURES, _ASYNCHRONOUS_EVENT = 0x0A, 0x0C  # sections 5.9 and 5.2
_EVENTS = 4  # Asynchronous Event Request commands that may be outstanding

# Status, with the status code type in bits 10 to 8: section 4.6.1.2.
_INVALID_OPCODE, _INVALID_FIELD, _DATA_TRANSFER_ERROR = 0x001, 0x002, 0x004
_ABORT_REQUESTED, _SQ_DELETED, _INVALID_NAMESPACE, _PRP_OFFSET = 0x007, 0x008, 0x00B, 0x013
_LBA_OUT_OF_RANGE = 0x080
_CQ_INVALID, _INVALID_QUEUE_ID, _INVALID_QUEUE_SIZE, _TOO_MANY_EVENTS = 0x100, 0x101, 0x102, 0x105
_INVALID_VECTOR, _INVALID_LOG_PAGE, _INVALID_QUEUE_DELETION = 0x108, 0x109, 0x10C
_WRITE_FAULT, _UNRECOVERED_READ_ERROR = 0x280, 0x281
_DO_NOT_RETRY = 1 << 14
_TRANSIENT = (_DATA_TRANSFER_ERROR, _ABORT_REQUESTED, _SQ_DELETED)


class _Command(NamedTuple):
    """A submission queue entry, sections 4.2 and 4.3; `cdw` has the dwords 10 to 15."""

    opcode: int
    cid: int
    nsid: int
    prp1: int
    prp2: int
    cdw: tuple[int, ...]

    @classmethod
    def parse(cls, data: bytes) -> _Command:
        opcode, _, cid, nsid, prp1, prp2, *cdw = struct.unpack("<BBHI16xQQ6I", data)
        return cls(opcode, cid, nsid, prp1, prp2, tuple(cdw))

    @property
    def block(self) -> int:
        return self.cdw[0] | self.cdw[1] << 32


class _StatusError(Exception):
    """The command ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _CompletionQueue:
    def __init__(self, number: int, address: int, entries: int, vector: int, interrupts: bool) -> None:
        self.number, self.address, self.entries = number, address, entries
        self.vector, self.interrupts = vector, interrupts
        self.head = self.tail = 0
        self.phase = DW3_PHASE_TAG
        self.waiting: deque[bytes] = deque()  # entries without phase for which there was no room


class _SubmissionQueue:
    def __init__(self, number: int, address: int, entries: int, completion: _CompletionQueue) -> None:
        self.number, self.address, self.entries = number, address, entries
        self.completion = completion
        self.head = self.tail = 0
        self.held: dict[int, _Command] = {}  # commands that are not completed for now, by their identifiers


class NvmeCard(Card):
    """The controller.

    Attributes:
        blocks, block_size: of its namespace, which has the number 1.
        pages_per_command: how many of the smallest pages (CAP.MPSMIN) a command transfers at most, a power of two from
            2 on. MDTS cannot say 1, as its 0 stands for no limit: section 5.15.2.2.
        queues: how many pairs of I/O queues it has.
        latency: seconds from a doorbell to the completions.
        emulated: whether it says that it is software (`pyuio_drivers.nvme_structures.Controller.emulated`).
        medium: what is stored. It outlives a reset.
        bad: blocks that can be neither read nor written.
        held: opcodes of I/O commands that it never completes, unless they are aborted.
    """

    vendor, device, class_code, revision = 0x1B36, 0x0010, spec.CLASS_CODE, 2
    subsystem = (0x1AF4, 0x1100)
    bars: ClassVar = {0: BarSpace(0x4000, width=64)}
    registers: ClassVar = {0: NvmeRegisters}
    msix_vectors = QUEUE_PAIRS
    # MQES, CQR, TO of 2 s, CSS with the NVM command set, MPSMAX; version 1.4.
    reset_values: ClassVar = {
        "cap": (_MOST_ENTRIES - 1) | 1 << 16 | 4 << 24 | 1 << 37 | 4 << 52,
        "vs": 1 << 16 | 4 << 8,
    }
    blocks: ClassVar[int] = 4096
    block_size: ClassVar[int] = 512
    pages_per_command: ClassVar[int] = 16
    queues: ClassVar[int] = QUEUE_PAIRS - 1
    latency: ClassVar[float] = 5e-6
    emulated: ClassVar[bool] = False

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Check the attributes. TypeError, ValueError: they do not make a card."""
        super().__init_subclass__(**keywords)
        pages = cls.pages_per_command
        if pages < 2 or pages & (pages - 1):
            raise ValueError(f"{cls.__name__}.pages_per_command is a power of two from 2 on, not {pages}")

    def __init__(self) -> None:
        self.medium = bytearray(self.blocks * self.block_size)
        self.bad: set[int] = set()
        self.held: set[int] = set()
        self._counts = dict.fromkeys(("read", "written", "reads", "writes"), 0)
        super().__init__()

    def reset(self) -> None:
        """Lose power; the medium stays."""
        super().reset()
        self._mask = 0  # INTMS
        self._enabled = False
        self._page = _PAGE
        self._session = 0  # counts resets of the controller
        self._forget_queues()

    def _forget_queues(self) -> None:
        self._session += 1
        self._submission: dict[int, _SubmissionQueue] = {}
        self._completion: dict[int, _CompletionQueue] = {}
        self._events: deque[_Command] = deque()
        self._update_line()

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call later, unless the controller is reset meanwhile."""
        session = self._session
        self.after(seconds, lambda: call() if session == self._session else None)

    def _fail(self) -> None:
        """Stop with a fatal error, section 9.5."""
        self.regs.csts.cfs = True

    # ---- Registers ----

    def on_write_cc(self, value: int) -> None:
        """Enable or reset the controller, or shut it down: section 3.1.5."""
        cc, csts = ControllerConfiguration.of(value), self.regs.csts
        if cc.en and not self._enabled:
            self._enabled = True
            self._later(_READY_TIME, self._start)
        elif not cc.en and self._enabled:
            self._enabled = False
            self._forget_queues()
            csts.write(int(csts.rdy))  # neither CFS nor SHST
            self._later(_READY_TIME, lambda: csts.write(0))
        if cc.shn and csts.shst == ShutdownStatus.NORMAL_OPERATION:
            csts.shst = ShutdownStatus.OCCURRING
            self._later(_SHUTDOWN_TIME, lambda: setattr(csts, "shst", ShutdownStatus.COMPLETE))

    def _start(self) -> None:
        cc, aqa = self.regs.cc, self.regs.aqa
        addresses = self.regs.asq.read(), self.regs.acq.read()
        self._page = _PAGE << cc.mps
        sizes = aqa.asqs + 1, aqa.acqs + 1
        wrong = cc.mps > 4 or cc.css or any(address % self._page for address in addresses) or min(sizes) < 2
        if wrong or (cc.iosqes, cc.iocqes) != (SQE_SIZE_EXPONENT, CQE_SIZE_EXPONENT):
            self._fail()
            return
        self._completion[0] = _CompletionQueue(0, addresses[1], sizes[1], 0, True)
        self._submission[0] = _SubmissionQueue(0, addresses[0], sizes[0], self._completion[0])
        self.regs.csts.rdy = True

    def on_write_intms(self, value: int) -> None:
        """Mask interrupts, section 3.1.3."""
        self._change_mask(self._mask | value)

    def on_write_intmc(self, value: int) -> None:
        """Unmask interrupts, section 3.1.4."""
        self._change_mask(self._mask & ~value)

    def _change_mask(self, mask: int) -> None:
        if self.function.messages:
            self.complain("INTMS and INTMC are for the line and MSI, and MSI-X is enabled (section 3.1.3)")
        self._mask = mask
        self._update_line()

    def on_read_intms(self) -> int:
        """Return which vectors are masked."""
        return self._mask

    on_read_intmc = on_read_intms

    def on_write_doorbells_sqtdbl(self, number: int, tail: int) -> None:
        """Take new commands, section 3.1.24."""
        queue = self._submission.get(number)
        if queue is None:
            self.complain(f"the tail doorbell of submission queue {number}, which does not exist, is written")
        if tail >= queue.entries:
            self.complain(f"tail {tail} of submission queue {number}, which has {queue.entries} entries")
        queue.tail = tail
        self._later(self.latency, lambda: self._execute(queue))

    def on_write_doorbells_cqhdbl(self, number: int, head: int) -> None:
        """Learn which completions the driver has seen, section 3.1.25."""
        queue = self._completion.get(number)
        if queue is None:
            self.complain(f"the head doorbell of completion queue {number}, which does not exist, is written")
        if (head - queue.head) % queue.entries > (queue.tail - queue.head) % queue.entries or head >= queue.entries:
            self.complain(f"head {head} of completion queue {number}: it holds entries {queue.head} to {queue.tail}")
        queue.head = head
        if queue.waiting and self._store(queue):
            self._interrupt(queue)
        self._update_line()

    # ---- Queues ----

    def _execute(self, queue: _SubmissionQueue) -> None:
        """Fetch and execute the commands of a queue, section 4.1."""
        execute = self._execute_io if queue.number else self._execute_admin
        posted: dict[int, _CompletionQueue] = {}
        while queue.head != queue.tail and self._submission.get(queue.number) is queue and not self.regs.csts.cfs:
            try:
                command = _Command.parse(self.memory.read(queue.address + queue.head * _SQE, _SQE))
            except TransferError:
                self._fail()
                break
            queue.head = (queue.head + 1) % queue.entries
            try:
                result, status = execute(queue, command), 0
            except _StatusError as error:
                result, status = 0, error.status
            except TransferError:
                result, status = 0, _DATA_TRANSFER_ERROR
            if result is not None and self._post(queue, command.cid, status, result):
                posted[queue.completion.number] = queue.completion
        for completion in posted.values():
            self._interrupt(completion)

    def _post(self, queue: _SubmissionQueue, cid: int, status: int, result: int = 0) -> bool:
        """Complete a command, section 4.6; return whether there was room for the entry."""
        if status and status not in _TRANSIENT:
            status |= _DO_NOT_RETRY
        entry = struct.pack("<IIHHI", result, 0, queue.head, queue.number, cid | status << DW3_STATUS_SHIFT)
        queue.completion.waiting.append(entry)
        return self._store(queue.completion)

    def _store(self, queue: _CompletionQueue) -> bool:
        """Write completions to memory, as far as there is room; return whether any was written."""
        written = False
        while queue.waiting and (queue.tail + 1) % queue.entries != queue.head:
            dw3 = int.from_bytes(queue.waiting[0][12:], "little") | queue.phase
            entry = queue.waiting.popleft()[:12] + dw3.to_bytes(4, "little")
            try:
                self.memory.write(queue.address + queue.tail * _CQE, entry)
            except TransferError:
                self._fail()
                return written
            written = True
            queue.tail = (queue.tail + 1) % queue.entries
            if queue.tail == 0:
                queue.phase ^= DW3_PHASE_TAG
        return written

    def _interrupt(self, queue: _CompletionQueue) -> None:
        if queue.interrupts and self.function.messages:
            self.raise_interrupt(queue.vector)
        self._update_line()

    def _update_line(self) -> None:
        """The line is asserted as long as a completion is not seen, and its vector not masked: section 7.5.1."""
        if self.function.messages:
            return
        waiting = {one.vector for one in self._completion.values() if one.interrupts and one.head != one.tail}
        asserted = any(not self._mask >> vector & 1 for vector in waiting)
        if asserted and not self.raised:
            self.raise_interrupt()
        elif not asserted and self.raised:
            self.lower_interrupt()

    # ---- Data ----

    def _pieces(self, command: _Command, size: int) -> Iterator[tuple[int, int]]:
        """Yield address and size of each piece of a command's data: physical region pages, section 4.3."""
        page = self._page
        first = min(size, page - command.prp1 % page)
        yield command.prp1, first
        size -= first
        if not size:
            return
        for address in [command.prp2] if size <= page else self._prp_list(command.prp2, -(-size // page)):
            if address % page:
                raise _StatusError(_PRP_OFFSET)
            yield address, min(size, page)
            size -= page

    def _prp_list(self, address: int, count: int) -> Iterator[int]:
        while count:
            room = (self._page - address % self._page) // 8
            entries = struct.unpack(f"<{min(room, count)}Q", self.memory.read(address, 8 * min(room, count)))
            if count > room:  # the last entry leads to the next list
                yield from entries[:-1]
                count -= room - 1
                address = entries[-1]
            else:
                yield from entries
                count = 0

    def _give(self, command: _Command, data: bytes | memoryview) -> int:
        """Write data to the memory of the driver."""
        at = 0
        for address, size in self._pieces(command, len(data)):
            self.memory.write(address, data[at : at + size])
            at += size
        return 0

    # ---- I/O commands ----

    def _execute_io(self, queue: _SubmissionQueue, command: _Command) -> int | None:
        """Execute one; return dword 0 of its completion, or None if it is not completed for now."""
        if command.opcode in self.held:
            queue.held[command.cid] = command
            return None
        if command.opcode not in (spec.FLUSH, spec.READ, spec.WRITE):
            raise _StatusError(_INVALID_OPCODE)
        if command.nsid != 1 and not (command.opcode == spec.FLUSH and command.nsid == spec.ALL_NAMESPACES):
            raise _StatusError(_INVALID_NAMESPACE)
        if command.opcode == spec.FLUSH:
            return 0
        count = (command.cdw[2] & 0xFFFF) + 1
        if count * self.block_size > self.pages_per_command * (_PAGE << self.regs.cap.mpsmin):
            raise _StatusError(_INVALID_FIELD)
        if command.block + count > self.blocks:
            raise _StatusError(_LBA_OUT_OF_RANGE)
        bad = not self.bad.isdisjoint(range(command.block, command.block + count))
        start = command.block * self.block_size
        view = memoryview(self.medium)[start : start + count * self.block_size]
        if command.opcode == spec.READ:
            if bad:
                raise _StatusError(_UNRECOVERED_READ_ERROR)
            self._counts["reads"] += 1
            self._counts["read"] += len(view)
            return self._give(command, view)
        if bad:
            raise _StatusError(_WRITE_FAULT)
        at = 0
        for address, size in self._pieces(command, len(view)):
            view[at : at + size] = self.memory.read(address, size)
            at += size
        self._counts["writes"] += 1
        self._counts["written"] += len(view)
        return 0

    # ---- Admin commands ----

    def _execute_admin(self, queue: _SubmissionQueue, command: _Command) -> int | None:
        methods: dict[int, Callable[[_Command], int | None]] = {
            spec.DELETE_IO_SUBMISSION_QUEUE: self._delete_submission,
            spec.CREATE_IO_SUBMISSION_QUEUE: self._create_submission,
            spec.GET_LOG_PAGE: self._log_page,
            spec.DELETE_IO_COMPLETION_QUEUE: self._delete_completion,
            spec.CREATE_IO_COMPLETION_QUEUE: self._create_completion,
            spec.IDENTIFY: self._identify,
            spec.ABORT: self._abort,
            spec.SET_FEATURES: self._features,
            _GET_FEATURES: self._features,
            _ASYNCHRONOUS_EVENT: self._event_request,
        }
        if command.opcode not in methods:
            raise _StatusError(_INVALID_OPCODE)
        return methods[command.opcode](command)

    def _new_queue(self, command: _Command, existing: object) -> tuple[int, int]:
        """Return number and entries of a queue to be created, or raise what is wrong."""
        number, entries = command.cdw[0] & 0xFFFF, (command.cdw[0] >> 16) + 1
        if not 1 <= number <= self.queues or existing is not None:
            raise _StatusError(_INVALID_QUEUE_ID)
        if not 2 <= entries <= _MOST_ENTRIES:
            raise _StatusError(_INVALID_QUEUE_SIZE)
        if not command.cdw[1] & spec.PHYSICALLY_CONTIGUOUS:
            raise _StatusError(_INVALID_FIELD)
        if command.prp1 % self._page:
            raise _StatusError(_PRP_OFFSET)
        return number, entries

    def _create_completion(self, command: _Command) -> int:
        number, entries = self._new_queue(command, self._completion.get(command.cdw[0] & 0xFFFF))
        vector = command.cdw[1] >> 16
        if vector and (vector >= self.msix_vectors or not self.function.messages):
            raise _StatusError(_INVALID_VECTOR)
        interrupts = bool(command.cdw[1] & spec.INTERRUPTS_ENABLED)
        self._completion[number] = _CompletionQueue(number, command.prp1, entries, vector, interrupts)
        return 0

    def _create_submission(self, command: _Command) -> int:
        number, entries = self._new_queue(command, self._submission.get(command.cdw[0] & 0xFFFF))
        completion = self._completion.get(command.cdw[1] >> 16)
        if completion is None or not completion.number:
            raise _StatusError(_CQ_INVALID)
        self._submission[number] = _SubmissionQueue(number, command.prp1, entries, completion)
        return 0

    def _delete_submission(self, command: _Command) -> int:
        number = command.cdw[0] & 0xFFFF
        if not number or number not in self._submission:
            raise _StatusError(_INVALID_QUEUE_ID)
        queue = self._submission.pop(number)
        for cid in queue.held:
            self._post(queue, cid, _SQ_DELETED)
        return 0

    def _delete_completion(self, command: _Command) -> int:
        number = command.cdw[0] & 0xFFFF
        if not number or number not in self._completion:
            raise _StatusError(_INVALID_QUEUE_ID)
        if any(one.completion.number == number for one in self._submission.values()):
            raise _StatusError(_INVALID_QUEUE_DELETION)
        del self._completion[number]
        self._update_line()
        return 0

    def _features(self, command: _Command) -> int:
        if command.cdw[0] & 0xFF != spec.FEATURE_NUMBER_OF_QUEUES:
            raise _StatusError(_INVALID_FIELD)
        return (self.queues - 1) << 16 | (self.queues - 1)

    def _abort(self, command: _Command) -> int:
        """Abort a command that is held, section 5.1; 1 stands for "not aborted"."""
        queue, cid = self._submission.get(command.cdw[0] & 0xFFFF), command.cdw[0] >> 16
        if queue is None or queue.held.pop(cid, None) is None:
            return 1
        if self._post(queue, cid, _ABORT_REQUESTED):
            self._interrupt(queue.completion)
        return 0

    def _event_request(self, command: _Command) -> None:
        """Keep the command until there is an event, section 5.2."""
        if len(self._events) >= _EVENTS:
            raise _StatusError(_TOO_MANY_EVENTS)
        self._events.append(command)

    def raise_event(self, result: int) -> bool:
        """Complete an Asynchronous Event Request with this dword 0, section 5.2.1; return whether there is one."""
        if not self._events:
            return False
        queue = self._submission[0]
        if self._post(queue, self._events.popleft().cid, 0, result):
            self._interrupt(queue.completion)
        return True

    def _log_page(self, command: _Command) -> int:
        if command.cdw[0] & 0xFF != spec.LOG_SMART:
            raise _StatusError(_INVALID_LOG_PAGE)
        page = bytearray(512)
        struct.pack_into("<BHBBB", page, 0, 0, 273 + 35, 100, 10, 1)
        counts = self._counts
        units = [-(-counts[name] // 512_000) for name in ("read", "written")]
        for at, value in zip(range(32, 96, 16), [*units, counts["reads"], counts["writes"]], strict=True):
            page[at : at + 16] = value.to_bytes(16, "little")
        dwords = (command.cdw[0] >> 16 & 0xFFFF | (command.cdw[1] & 0xFFFF) << 16) + 1
        return self._give(command, bytes(page).ljust(4 * dwords, b"\0")[: 4 * dwords])

    def _identify(self, command: _Command) -> int:
        cns = command.cdw[0] & 0xFF
        if cns == spec.CNS_CONTROLLER:
            return self._give(command, self._controller_data())
        if cns == spec.CNS_ACTIVE_NAMESPACES:
            return self._give(command, struct.pack("<I", 1 if command.nsid < 1 else 0).ljust(4096, b"\0"))
        if cns not in (spec.CNS_NAMESPACE, spec.CNS_NAMESPACE_DESCRIPTORS):
            raise _StatusError(_INVALID_FIELD)
        if command.nsid != 1:
            raise _StatusError(_INVALID_NAMESPACE)
        if cns == spec.CNS_NAMESPACE_DESCRIPTORS:  # of its type UUID, section 5.15.2.4
            return self._give(command, bytes([3, 16, 0, 0, *range(16)]).ljust(4096, b"\0"))
        data = bytearray(4096)
        struct.pack_into("<QQQ", data, 0, self.blocks, self.blocks, self.blocks)
        struct.pack_into("<HB", data, 128, 0, self.block_size.bit_length() - 1)
        return self._give(command, bytes(data))

    def _controller_data(self) -> bytes:
        data = bytearray(4096)
        vendor, subsystem = self.vendor, self.subsystem[0]
        texts = b"1".ljust(20), b"pyuio model of NVMe".ljust(40), b"1.0".ljust(8)
        struct.pack_into("<HH20s40s8s", data, 0, vendor, subsystem, *texts)
        data[77] = self.pages_per_command.bit_length() - 1  # MDTS
        struct.pack_into("<HI", data, 78, 1, self.reset_values["vs"])
        struct.pack_into("<H", data, 256, 1 << 8 if self.emulated else 0)  # OACS
        data[258], data[259] = 3, _EVENTS - 1  # ACL, AERL
        data[512], data[513] = SQE_SIZE_EXPONENT * 0x11, CQE_SIZE_EXPONENT * 0x11
        struct.pack_into("<I", data, 516, 1)  # NN
        data[525] = 1  # VWC
        return bytes(data)
