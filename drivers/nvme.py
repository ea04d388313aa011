# SPDX-License-Identifier: MIT
"""A driver for NVMe disks: ``with Nvme.open() as disk: data = disk.read(block, count)``.

It follows the NVM Express Base Specification 1.4; "section" is one of its sections. Read this file first: it resets the
controller, sets up the admin queue, identifies the controller and a namespace, creates I/O queues, and reads blocks.
Then read `pyuio_drivers.nvme_admin`, a queue pair at its simplest, and `pyuio_drivers.nvme_queue`, the fast one.

`pyuio_drivers.nvme_registers` has the registers, `pyuio_drivers.nvme_rings` the queue entries,
`pyuio_drivers.nvme_structures` the opcodes and the data structures, `pyuio_drivers.nvme_batch` the commands that are
prepared in advance, `pyuio_drivers.nvme_errors` the errors.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from pyuio_drivers import nvme_structures as spec
from pyuio_drivers.nvme_admin import AdminQueue
from pyuio_drivers.nvme_errors import (
    CommandError,
    ControllerFatalError,
    NamespaceNotFoundError,
    NotWritableError,
    NvmeError,
)
from pyuio_drivers.nvme_queue import NvmeQueue
from pyuio_drivers.nvme_registers import (
    ALL_ONES,
    QUEUE_PAIRS,
    ControllerStatus,
    NvmeRegisters,
    ShutdownNotification,
    ShutdownStatus,
)
from pyuio_drivers.nvme_rings import CQE_SIZE_EXPONENT, SQE_SIZE_EXPONENT
from pyuio_drivers.nvme_structures import Capabilities, Controller, Namespace, Smart

from pyuio import Device, DeviceRemovedError, DeviceTimeoutError, Driver

if TYPE_CHECKING:
    from typing_extensions import Buffer

_IO_QUEUES = QUEUE_PAIRS - 1  # how many I/O queue pairs the driver asks for
_LARGEST_COMMAND = 2 << 20  # bytes: a PRP list of one page describes them (section 4.3), and a hugepage holds them
_DEPTH = 32  # of a queue for which none is given, if the controller takes so many commands
_READ_WRITE_DEPTH = 8  # of the queue behind read and write, likewise
_READ_WRITE_TRANSFER = 128 << 10  # bytes of one of its commands
_SHUTDOWN_TIMEOUT = 5.0  # seconds that every controller gets, because many do not say how long they need


class Nvme(Driver):
    """An NVMe disk: one namespace of a controller, on an open device.

    One thread may use a disk at a time.

    Args:
        device: an open device of the class NVMe.
        namespace: the number of the namespace; None for the first active one.
        writable: whether writing is allowed.
        by_interrupt: whether queues sleep until the controller's interrupt, instead of polling. Through VFIO each queue
            has a message of its own (MSI-X); elsewhere all share the interrupt line.
        timeout: seconds for each command, above 0. The driver aborts a command that takes longer.

    Attributes:
        registers: BAR 0 by name.
        bar: BAR 0.
        capabilities: the controller's CAP and VS registers.
        controller: the controller's Identify data.
        namespace: the namespace's Identify data.

    Raises:
        NamespaceNotFoundError: the controller has no such namespace.
        ControllerFatalError: the controller failed when it was enabled.
        DeviceTimeoutError: the controller did not become ready within the time that it specifies (CAP.TO).
        DeviceRemovedError: the controller does not answer at all.
        NvmeError: the controller or the namespace lacks what this driver needs.
        UnsupportedDeviceError: the device is of another kind.
        ValueError: the timeout is not above 0.
    """

    class_codes = (spec.CLASS_CODE,)
    register_maps: ClassVar = {0: NvmeRegisters}

    def __init__(
        self,
        device: Device,
        *,
        namespace: int | None = None,
        writable: bool = False,
        by_interrupt: bool = False,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(device)
        if not timeout > 0:
            raise ValueError(f"a timeout is above 0 seconds, not {timeout}")
        self.writable = writable
        self.by_interrupt = by_interrupt
        self.timeout = timeout
        self.bar = device.bar(0)
        self.registers = NvmeRegisters(self.bar)
        self._queues: dict[int, NvmeQueue] = {}
        version = self.registers.vs.read()
        if version in (0, ALL_ONES):
            reason = f"its registers read as {version:#x}: it was removed, lost power, or its memory decoding is off"
            raise DeviceRemovedError(errno.ENODEV, f"{device.name}: opening the controller: {reason}")
        self.capabilities = Capabilities.of(self.registers.cap.read(), version)
        if not self.capabilities.nvm_command_set:
            raise NvmeError(f"{device.name}: the controller has no commands to read and write blocks (CAP.CSS)")
        pairs = (self.bar.size - 0x1000) // (2 * self.capabilities.doorbell_stride)
        if pairs < 2:
            stride = self.capabilities.doorbell_stride
            raise NvmeError(f"{device.name}: BAR 0 has no room for doorbells {stride} bytes apart (CAP.DSTRD)")
        self._queue_limit = min(_IO_QUEUES, pairs - 1)
        # A driver that was killed may have left transfers, so the controller is reset before there is memory for
        # transfers, which turns bus mastering on.
        self._disable()
        self._vectors = device.vectors(min(device.most_vectors, QUEUE_PAIRS)) if self._has_messages else ()
        self._page = device.dma.alloc(self.capabilities.page_size, align=self.capabilities.page_size)
        self._admin = AdminQueue(self)
        self._enable()
        self.controller = self.identify_controller()
        self.namespace = self._identify_active_namespace(namespace)
        transfer = min(_READ_WRITE_TRANSFER, self.controller.largest_transfer or _READ_WRITE_TRANSFER)
        depth = min(_READ_WRITE_DEPTH, self._deepest)
        self._read_write_queue = self.queue(depth, max(1, transfer // self.namespace.block_size))

    @property
    def _has_messages(self) -> bool:
        return self.by_interrupt and self.device.most_vectors > 1

    @property
    def _deepest(self) -> int:
        """The largest depth of a queue: the completion queue holds four times as many entries, if it has four."""
        return max(1, self.capabilities.queue_entries // 4)

    # -- reset and enable --

    def _disable(self) -> None:
        """Reset the controller (section 7.3.2): it deletes all queues and stops all transfers."""
        if self.registers.cc.en:
            csts = self.registers.csts.snapshot()
            if not csts.rdy and not csts.cfs:
                # Somebody is enabling the controller. CC.EN must stay set until CSTS.RDY is (section 3.1.5, EN).
                with suppress(DeviceTimeoutError, ControllerFatalError):
                    self._wait_ready("waiting until it is ready")
        with self.registers.cc.change() as cc:
            cc.en = False
            cc.shn = ShutdownNotification.NONE
        self._wait_csts(lambda csts: not csts.rdy, self.capabilities.ready_timeout, "disabling the controller")

    def _enable(self) -> None:
        """Initialize the controller (section 7.6.1)."""
        if not self._vectors:  # these registers are for the line and MSI only (section 3.1.3)
            self.registers.intms.write(ALL_ONES)
        with self.registers.aqa.change(0) as aqa:
            aqa.asqs = len(self._admin.submission) - 1
            aqa.acqs = len(self._admin.completion) - 1
        self.registers.asq.write(self._admin.submission.buffer.address)
        self.registers.acq.write(self._admin.completion.buffer.address)
        with self.registers.cc.change(0) as cc:
            cc.mps = self.capabilities.page_size.bit_length() - 1 - 12  # pages of 2^(12 + MPS) bytes
            cc.iosqes = SQE_SIZE_EXPONENT
            cc.iocqes = CQE_SIZE_EXPONENT
            cc.en = True
        self._wait_ready("enabling the controller")
        if self.by_interrupt and not self._vectors:
            self.registers.intmc.write(1)  # all queues share vector 0, the interrupt pin (section 7.5)
        wanted = _IO_QUEUES - 1  # of each kind, from 0
        allocated = self._admin.execute(
            spec.SET_FEATURES, cdw10=spec.FEATURE_NUMBER_OF_QUEUES, cdw11=wanted << 16 | wanted
        )
        self._queue_limit = min(self._queue_limit, (allocated & 0xFFFF) + 1, (allocated >> 16) + 1)
        if self._vectors:  # vector 0 is the admin queue's
            self._queue_limit = min(self._queue_limit, len(self._vectors) - 1)

    def reset(self) -> None:
        """Reset the controller and create the same queues again; outstanding commands are lost.

        Raises:
            ControllerFatalError, DeviceTimeoutError, DeviceRemovedError: as when the disk is opened.
            ClosedError: the disk is closed, or belongs to the process that forked this one.
        """
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        self._disable()
        self._admin.restart()
        for queue in self._queues.values():
            queue.restart()
        self._enable()
        for queue in self._queues.values():
            self._create_queue(queue)

    def quiet(self) -> None:
        """Shut the controller down (section 7.6.2), so that it writes its cache to the medium, and disable it."""
        with suppress(DeviceRemovedError):
            try:
                csts = self._read_csts(f"{self.device.name}: shutting down")
                if csts.rdy and not csts.cfs:
                    with suppress(CommandError, DeviceTimeoutError, ControllerFatalError):
                        for number in list(self._queues):
                            self._delete_queue(number)
                            del self._queues[number]
                    self.registers.cc.shn = ShutdownNotification.NORMAL
                    timeout = max(_SHUTDOWN_TIMEOUT, min(60.0, self.controller.shutdown_latency))
                    self._wait_shutdown(timeout)
            finally:
                self._disable()

    # -- status --

    def _read_csts(self, doing: str) -> ControllerStatus:
        """Return a snapshot of CSTS. DeviceRemovedError: the controller does not answer."""
        csts = self.registers.csts.snapshot()
        self._require_present(csts, doing)
        return csts

    def _require_present(self, csts: ControllerStatus, doing: str) -> None:
        if csts.read() == ALL_ONES:
            reason = "its registers read as all ones: it was removed, lost power, or its memory decoding is off"
            raise DeviceRemovedError(errno.ENODEV, f"{doing}: {reason}")

    def require_working(self, doing: str) -> None:
        """Check that the controller is ready. `doing` begins the message of an error.

        Raises:
            ControllerFatalError: the controller stopped with a fatal error, or was disabled.
            DeviceRemovedError: the controller does not answer, or was removed or unbound.
        """
        if self.device.removed:
            raise DeviceRemovedError(errno.ENODEV, f"{doing}: the disk was removed or unbound")
        csts = self._read_csts(doing)
        if csts.cfs:
            raise ControllerFatalError(f"{doing}: the controller has a fatal error (CSTS.CFS); see reset()")
        if not csts.rdy:
            raise ControllerFatalError(f"{doing}: the controller is not ready (CSTS.RDY is 0); see reset()")

    def _wait_ready(self, doing: str) -> None:
        self._wait_csts(lambda csts: csts.rdy, self.capabilities.ready_timeout, doing, fatal=True)

    def _wait_shutdown(self, timeout: float) -> None:
        self._wait_csts(lambda csts: csts.shst == ShutdownStatus.COMPLETE, timeout, "shutting down", fatal=True)

    def _wait_csts(
        self, condition: Callable[[ControllerStatus], bool], timeout: float, doing: str, *, fatal: bool = False
    ) -> None:
        """Wait until a condition on CSTS holds, for `timeout` seconds.

        Raises:
            ControllerFatalError: `fatal` is set, and CSTS.CFS is.
            DeviceTimeoutError: the condition did not come to hold in time.
            DeviceRemovedError: the controller does not answer.
        """
        doing = f"{self.device.name}: {doing}"

        def holds(csts: ControllerStatus) -> bool:
            self._require_present(csts, doing)
            if condition(csts):
                return True
            if fatal and csts.cfs:
                raise ControllerFatalError(f"{doing}: the controller failed (CSTS.CFS)")
            return False

        try:
            self.registers.csts.poll(holds, timeout)
        except DeviceTimeoutError:
            reason = f"CSTS is {self.registers.csts.read():#x} after {timeout:g} s"
            raise DeviceTimeoutError(errno.ETIMEDOUT, f"{doing}: {reason}") from None

    # -- identify --

    def identify_controller(self) -> Controller:
        """Return the controller's Identify data (section 5.15.2.2). Errors are those of `read`."""
        return Controller.parse(self._identify(spec.CNS_CONTROLLER), self.capabilities.page_size)

    def identify_namespace(self, number: int) -> Namespace:
        """Return a namespace's Identify data (section 5.15.2.1); an inactive namespace has no blocks.

        Raises:
            CommandError: the controller can have no namespace of this number (Invalid Namespace or Format).
        Other errors are those of `read`.
        """
        return Namespace.parse(number, self._identify(spec.CNS_NAMESPACE, number))

    def namespaces(self) -> list[int]:
        """Return the numbers of the first 1024 active namespaces (section 5.15.2.3). Errors are those of `read`."""
        numbers = struct.unpack("<1024I", self._identify(spec.CNS_ACTIVE_NAMESPACES))
        return [number for number in numbers if number]

    def smart(self) -> Smart:
        """Return the SMART / Health Information log (section 5.14.1.2). Errors are those of `read`."""
        dwords = 512 // 4
        self._admin.execute(
            spec.GET_LOG_PAGE,
            nsid=spec.ALL_NAMESPACES,
            prp1=self._page.address,
            cdw10=spec.LOG_SMART | (dwords - 1) << 16,
        )
        return Smart.parse(bytes(self._page[:512]))

    def _identify(self, cns: int, namespace: int = 0) -> bytes:
        """Execute Identify (section 5.15), and return the 4096 bytes of its data."""
        self._page.zero()
        self._admin.execute(spec.IDENTIFY, nsid=namespace, prp1=self._page.address, cdw10=cns)
        return bytes(self._page[:4096])

    def _identify_active_namespace(self, number: int | None) -> Namespace:
        active = self.namespaces()
        if not active or number not in (None, *active):
            which = "a namespace" if number is None else f"namespace {number}"
            has = ", ".join(map(str, active)) or "none"
            raise NamespaceNotFoundError(f"{self.device.name} does not have {which}; it has: {has}")
        number = active[0] if number is None else number
        if self.capabilities.other_command_sets:
            command_set = spec.command_set(self._identify(spec.CNS_NAMESPACE_DESCRIPTORS, number))
            if command_set != spec.NVM_COMMAND_SET:
                name = spec.COMMAND_SETS.get(command_set, f"{command_set:#x}")
                raise NvmeError(
                    f"{self.device.name}: namespace {number} has the command set {name}, and this driver reads and "
                    "writes with the NVM command set only; name another namespace, or format it as a conventional one"
                )
        namespace = self.identify_namespace(number)
        if namespace.metadata_size:
            raise NvmeError(
                f"{self.device.name}: namespace {namespace.number} has {namespace.metadata_size} bytes of metadata "
                "with each block, which this driver cannot handle; format it without (nvme format)"
            )
        return namespace

    # -- queues --

    def queue(
        self, depth: int | None = None, blocks_per_command: int | None = None, *, batch: int | None = None
    ) -> NvmeQueue:
        """Create an I/O queue for many commands at once. Close it after use.

        Args:
            depth: how many commands are outstanding at most, 1 to a quarter of the largest queue of the controller
                (MQES). Only multiples of `batch` are used in full. None for 32, or fewer if that is the limit.
            blocks_per_command: the most blocks of one command, at least 1; the controller (MDTS) and the size of a
                hugepage set the limit. None for 4 KiB.
            batch: how many commands the queue submits at once, 1 to `depth`; None for half the depth, or for the whole
                depth if the controller is emulated (`Controller.emulated`).

        Raises:
            ValueError: `depth`, `blocks_per_command` or `batch` is out of range.
            NvmeError: the controller has no more queues, or refuses.
            CommandTimeoutError: it did not create the queue within the disk's `timeout`, and was reset.
            DmaMemoryError: there is not enough memory.
        """
        size = self.namespace.block_size
        blocks = max(1, 4096 // size) if blocks_per_command is None else blocks_per_command
        largest = min(self.controller.largest_transfer or _LARGEST_COMMAND, _LARGEST_COMMAND) // size
        depth = min(_DEPTH, self._deepest) if depth is None else depth
        if not 1 <= depth <= self._deepest:
            raise ValueError(f"the depth of a queue of this controller is 1 to {self._deepest}, not {depth}")
        if not 1 <= blocks <= largest:
            raise ValueError(f"a command of this controller has 1 to {largest} blocks, not {blocks}")
        if batch is None:
            batch = depth if self.controller.emulated else max(1, depth // 2)
        if not 1 <= batch <= depth:
            raise ValueError(f"a batch of this queue has 1 to {depth} commands, not {batch}")
        number = next((n for n in range(1, self._queue_limit + 1) if n not in self._queues), None)
        if number is None:
            raise NvmeError(f"{self.device.name}: all {self._queue_limit} queues of the controller are open; close one")
        vector = number if self._vectors else 0
        interrupt = self._vectors[vector] if self._vectors else self.device.interrupt if self.by_interrupt else None
        queue = NvmeQueue(self, number, depth, blocks, batch, interrupt=interrupt, vector=vector)
        try:
            self._create_queue(queue)
        except DeviceTimeoutError:
            self.reset()  # or the controller may create the queue yet, in memory that is freed
            queue.free()
            raise
        except BaseException:
            queue.free()
            raise
        self._queues[number] = queue
        return queue

    def _create_queue(self, queue: NvmeQueue) -> None:
        """Have the controller create the completion queue (section 5.3), then the submission queue (section 5.4)."""
        interrupts = queue.vector << 16 | spec.INTERRUPTS_ENABLED if queue.interrupt else 0
        self._admin.execute(
            spec.CREATE_IO_COMPLETION_QUEUE,
            prp1=queue.completion.buffer.address,
            cdw10=len(queue.completion) - 1 << 16 | queue.number,
            cdw11=interrupts | spec.PHYSICALLY_CONTIGUOUS,
        )
        try:
            self._admin.execute(
                spec.CREATE_IO_SUBMISSION_QUEUE,
                prp1=queue.submission.buffer.address,
                cdw10=len(queue.submission) - 1 << 16 | queue.number,
                cdw11=queue.number << 16 | spec.PHYSICALLY_CONTIGUOUS,
            )
        except CommandError:
            self._admin.execute(spec.DELETE_IO_COMPLETION_QUEUE, cdw10=queue.number)
            raise
        queue.mark_created()

    def _delete_queue(self, number: int) -> None:
        """Have the controller delete the submission queue (section 5.6), then the completion queue (section 5.5)."""
        self._admin.execute(spec.DELETE_IO_SUBMISSION_QUEUE, cdw10=number)
        self._admin.execute(spec.DELETE_IO_COMPLETION_QUEUE, cdw10=number)

    def forget(self, queue: NvmeQueue) -> None:
        """Have the controller delete a queue, and free its memory; `NvmeQueue.close` calls this."""
        queue.mark_closed()
        if not self.device.closed and self._queues.pop(queue.number, None) is queue:
            try:
                self._delete_queue(queue.number)
            except (ControllerFatalError, DeviceRemovedError):
                return  # the controller may still use the memory, which stays until the disk is closed
            except (CommandError, DeviceTimeoutError):
                self.reset()
        queue.free()

    def abort(self, queue: int, command_id: int) -> bool:
        """Ask the controller to abort a command (section 5.1); return whether the controller aborted it."""
        return not self._admin.execute(spec.ABORT, cdw10=command_id << 16 | queue) & 1

    # -- blocks --

    def read(self, block: int, count: int = 1) -> bytes:
        """Return the data of `count` blocks from `block` on.

        Raises:
            CommandError: the controller refused, with its reason, or the medium failed.
            CommandTimeoutError: a command took longer than `timeout`.
            ControllerFatalError, DeviceRemovedError: the controller failed, or is gone.
            ValueError: `block` is below 0, or `count` below 1.
            ClosedError: the disk is closed.
        """
        if count < 1:
            raise ValueError(f"at least 1 block is read, not {count}")
        data = bytearray(count * self.namespace.block_size)
        self.readinto(block, data)
        return bytes(data)

    def readinto(self, block: int, buffer: Buffer) -> int:
        """Fill a writable buffer of whole blocks with the data from `block` on; return its size in bytes.

        Raises:
            ValueError: the size of the buffer is not that of a whole number of blocks, at least one.
            TypeError: the buffer is not writable.
        Other errors are those of `read`; they leave the content of the buffer undefined.
        """
        with memoryview(buffer) as view, view.cast("B") as octets:
            if view.readonly:
                raise TypeError("the buffer cannot be written to")
            position = 0
            for first, commands, count in self._split(block, len(octets)):
                for data in self._read_write_queue.read_many(range(first, first + commands * count, count), count):
                    octets[position : position + len(data)] = data
                    position += len(data)
        return position

    def write(self, block: int, data: Buffer) -> int:
        """Write whole blocks from `block` on; return how many bytes that were.

        The data may stay in the disk's cache until `flush`.

        Raises:
            NotWritableError: the disk was opened for reading only.
            ValueError: the size of the data is not that of a whole number of blocks, at least one; nothing was written.
        Other errors are those of `read`; some of the blocks may have been written then.
        """
        self.require_writable()
        with memoryview(data) as view, view.cast("B") as octets:
            for first, commands, count in self._split(block, len(octets)):
                start, size = (first - block) * self.namespace.block_size, count * self.namespace.block_size
                pieces = (
                    (first + i * count, octets[start + i * size : start + (i + 1) * size]) for i in range(commands)
                )
                self._read_write_queue.write_many(pieces, count)
            return len(octets)

    def _split(self, block: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Split `size` bytes from `block` on into commands: yield first block, number of commands, blocks of each."""
        blocks, rest = divmod(size, self.namespace.block_size)
        if rest or not blocks:
            raise ValueError(f"{size} bytes are not a whole number of blocks of {self.namespace.block_size} bytes")
        largest = self._read_write_queue.blocks_per_command
        if blocks >= largest:
            yield block, blocks // largest, largest
        if blocks % largest:
            yield block + blocks // largest * largest, 1, blocks % largest

    def flush(self) -> None:
        """Have what any queue has written reach the medium (section 6.8). Errors are those of `read`."""
        self._read_write_queue.flush()

    def read_many(self, blocks: Iterable[int], count: int = 1, *, depth: int | None = None) -> Iterator[memoryview]:
        """Read `count` blocks at each of many places, with up to `depth` reads outstanding; `NvmeQueue.read_many`.

        The depth, and its errors, are those of `queue`.
        """
        with self.queue(depth, count) as queue:
            yield from queue.read_many(blocks, count)

    def require_writable(self) -> None:
        """Raise NotWritableError if the disk was opened for reading only."""
        if not self.writable:
            raise NotWritableError(f"{self.device.name} was opened for reading only; open it with writable=True")
