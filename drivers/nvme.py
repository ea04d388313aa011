# SPDX-License-Identifier: MIT
"""A driver for NVMe disks: ``with Nvme.open() as disk: data = disk.read(block, count)``.

It follows the NVM Express Base Specification, revision 1.4; "section" below is one of its. What goes between driver and
controller is in `pyuio_drivers.nvme_structures`, the queues are in `pyuio_drivers.nvme_queue`, the controller's errors
by name in `pyuio_drivers.nvme_errors`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pyuio_drivers import nvme_structures as spec
from pyuio_drivers.nvme_errors import (
    CommandError,
    ControllerFatalError,
    NamespaceNotFoundError,
    NotWritableError,
    NvmeError,
)
from pyuio_drivers.nvme_queue import NvmeQueue
from pyuio_drivers.nvme_rings import ADMIN_ENTRIES, AdminQueue
from pyuio_drivers.nvme_structures import Capabilities, Controller, Namespace, Smart

from pyuio import Device, DeviceRemovedError, DeviceTimeoutError, Driver

if TYPE_CHECKING:
    from typing_extensions import Buffer

_QUEUES = 16  # how many are asked for
_LARGEST_COMMAND = 2 << 20  # bytes: the addresses of its pages fill one page (section 4.3), its data a hugepage
_OWN_DEPTH = 8  # of the queue behind read and write
_OWN_TRANSFER = 128 << 10  # bytes of one of its commands
_SHUTDOWN = 5.0  # seconds that a controller gets at least, as many do not say what they need


class Nvme(Driver):
    """An NVMe disk, that is one namespace of a controller, on an open device.

    A disk is not to be used by several threads at once.

    Args:
        device: an open device of the class NVMe.
        namespace: its number; None for the first that there is.
        writable: whether it may be written to.
        by_interrupt: whether queues sleep until the controller's interrupt, instead of asking all the time.
        timeout: seconds for each command, above 0. One that takes longer is aborted.

    Attributes:
        capabilities: of the controller.
        controller: what it says of itself.
        namespace: what it says of the one that is used.

    Raises:
        NamespaceNotFoundError: there is no such namespace.
        ControllerFatalError: the controller failed when it was enabled.
        DeviceTimeoutError: it did not become ready in the time that it claims to need.
        DeviceRemovedError: it does not answer at all.
        NvmeError: it can do nothing that this driver could use.
        ValueError: the device is of another kind, or the timeout is not above 0.
    """

    class_codes = (spec.CLASS_CODE,)

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
        self.registers = device.bar(0)
        self._queues: dict[int, NvmeQueue] = {}
        version = self.registers.read32(spec.VS)
        if version in (0, spec.ALL_ONES):
            reason = f"its registers read as {version:#x}: it was removed, lost power, or its memory decoding is off"
            raise DeviceRemovedError(errno.ENODEV, f"{device.name}: opening the controller: {reason}")
        self.capabilities = Capabilities.of(self.registers.read64(spec.CAP), version)
        if not self.capabilities.nvm_command_set:
            raise NvmeError(f"{device.name}: the controller has no commands to read and write blocks (CAP.CSS)")
        # Before there is memory, and with it bus mastering: a driver that was killed may have left transfers.
        self._disable()
        self._page = device.dma.alloc(self.capabilities.page_size, align=self.capabilities.page_size)
        self._admin = AdminQueue(self)
        self._enable()
        self.controller = self.identify_controller()
        self.namespace = self._chosen_namespace(namespace)
        transfer = min(_OWN_TRANSFER, self.controller.largest_transfer or _OWN_TRANSFER)
        self._own = self.queue(_OWN_DEPTH, max(1, transfer // self.namespace.block_size))

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
            TypeError: it is not a writable buffer.
        Other errors are those of `read`; the buffer's content is undefined then.
        """
        with memoryview(buffer) as view, view.cast("B") as octets:
            if view.readonly:
                raise TypeError("the buffer cannot be written to")
            at = 0
            for start, many, count in self._commands(block, len(octets)):
                for data in self._own.read_many(range(start, start + many * count, count), count):
                    octets[at : at + len(data)] = data
                    at += len(data)
        return at

    def write(self, block: int, data: Buffer) -> int:
        """Write whole blocks from `block` on; return how many bytes that were.

        It may still be in the disk's cache: `flush`.

        Raises:
            NotWritableError: the disk was opened for reading only.
            ValueError: the size of the data is not that of a whole number of blocks, at least one; nothing was written.
        Other errors are those of `read`; some of the blocks may have been written then.
        """
        self.require_writable()
        with memoryview(data) as view, view.cast("B") as octets:
            for start, many, count in self._commands(block, len(octets)):
                at, size = (start - block) * self.namespace.block_size, count * self.namespace.block_size
                pieces = ((start + i * count, octets[at + i * size : at + (i + 1) * size]) for i in range(many))
                self._own.write_many(pieces, count)
            return len(octets)

    def flush(self) -> None:
        """Have what was written, in whatever queue, reach the medium (section 6.8). Errors are those of `read`."""
        self._own.flush()

    def read_many(self, blocks: Iterable[int], count: int = 1, *, depth: int = 32) -> Iterator[memoryview]:
        """Read `count` blocks at each of many places, with up to `depth` reads under way; `NvmeQueue.read_many`."""
        with self.queue(depth, count) as queue:
            yield from queue.read_many(blocks, count)

    def queue(self, depth: int = 32, blocks_per_command: int | None = None, *, batch: int | None = None) -> NvmeQueue:
        """Return a queue for many commands at once, to be closed after use.

        Args:
            depth: how many commands it has under way at most, at least 1; multiples of `batch` are used in full.
            blocks_per_command: the most blocks of one command, at least 1, at most what the controller (MDTS) and a
                hugepage allow; None for 4 KiB.
            batch: how many commands the controller is told of at once, 1 to `depth`; None for half the depth, or for
                all of it if the controller is emulated (`Controller.emulated`).

        Raises:
            ValueError: `depth`, `blocks_per_command` or `batch` is out of range.
            NvmeError: the controller has no more queues, or refuses.
            DmaMemoryError: there is no memory for it.
        """
        size = self.namespace.block_size
        blocks = max(1, 4096 // size) if blocks_per_command is None else blocks_per_command
        largest = min(self.controller.largest_transfer or _LARGEST_COMMAND, _LARGEST_COMMAND) // size
        deepest = self.capabilities.queue_entries // 4
        if not 1 <= depth <= deepest:
            raise ValueError(f"the depth of a queue of this controller is 1 to {deepest}, not {depth}")
        if not 1 <= blocks <= largest:
            raise ValueError(f"a command of this controller has 1 to {largest} blocks, not {blocks}")
        if batch is None:
            batch = depth if self.controller.emulated else max(1, depth // 2)
        if not 1 <= batch <= depth:
            raise ValueError(f"a batch of this queue has 1 to {depth} commands, not {batch}")
        number = next((n for n in range(1, self._queue_limit + 1) if n not in self._queues), None)
        if number is None:
            raise NvmeError(f"{self.device.name}: all {self._queue_limit} queues of the controller are open; close one")
        queue = NvmeQueue(self, number, depth, blocks, batch, by_interrupt=self.by_interrupt)
        try:
            self._create(queue)
        except BaseException:
            queue.free()
            raise
        self._queues[number] = queue
        return queue

    def require_writable(self) -> None:
        """Raise NotWritableError if the disk was opened for reading only."""
        if not self.writable:
            raise NotWritableError(f"{self.device.name} was opened for reading only; open it with writable=True")

    def _commands(self, block: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield first block, number of commands and blocks of each, for a whole number of blocks of `size` bytes."""
        blocks, rest = divmod(size, self.namespace.block_size)
        if rest or not blocks:
            raise ValueError(f"{size} bytes are not a whole number of blocks of {self.namespace.block_size} bytes")
        most = self._own.blocks_per_command
        if blocks >= most:
            yield block, blocks // most, most
        if blocks % most:
            yield block + blocks // most * most, 1, blocks % most

    # -- what the controller tells --

    def identify_controller(self) -> Controller:
        """Ask the controller about itself (section 5.15.2.2). Errors are those of `read`."""
        return Controller.parse(self._identify(spec.IDENTIFY_CONTROLLER, 0), self.capabilities.page_size)

    def identify_namespace(self, number: int) -> Namespace:
        """Ask about a namespace (section 5.15.2.1); one that is not there has no blocks.

        Raises:
            CommandError: there can be none with this number (Invalid Namespace or Format).
        Other errors are those of `read`.
        """
        return Namespace.parse(number, self._identify(spec.IDENTIFY_NAMESPACE, number))

    def namespaces(self) -> list[int]:
        """Return the numbers of the first 1024 active namespaces (section 5.15.2.3). Errors are those of `read`."""
        data = memoryview(self._identify(spec.IDENTIFY_ACTIVE_NAMESPACES, 0)).cast("I")
        return [number for number in data if number]

    def smart(self) -> Smart:
        """Return the SMART / Health Information log (section 5.14.1.2). Errors are those of `read`."""
        dwords = 512 // 4
        self._admin.execute(
            spec.GET_LOG_PAGE,
            namespace_id=spec.ALL_NAMESPACES,
            prp1=self._page.address,
            cdw10_11=spec.LOG_SMART | (dwords - 1) << 16,
        )
        return Smart.parse(bytes(self._page[:512]))

    def _identify(self, what: int, namespace: int) -> bytes:
        self._page.zero()
        self._admin.execute(spec.IDENTIFY, namespace_id=namespace, prp1=self._page.address, cdw10_11=what)
        return bytes(self._page[:4096])

    def _chosen_namespace(self, number: int | None) -> Namespace:
        active = self.namespaces()
        if not active or number not in (None, *active):
            which = "a namespace" if number is None else f"namespace {number}"
            has = ", ".join(map(str, active)) or "none"
            raise NamespaceNotFoundError(f"{self.device.name} does not have {which}; it has: {has}")
        namespace = self.identify_namespace(active[0] if number is None else number)
        if namespace.metadata_size:
            raise NvmeError(
                f"{self.device.name}: namespace {namespace.number} has {namespace.metadata_size} bytes of metadata "
                "with each block, which this driver cannot handle; format it without (nvme format)"
            )
        return namespace

    # -- queues --

    def _create(self, queue: NvmeQueue) -> None:
        """Tell the controller of a queue: sections 5.3 and 5.4."""
        flags = spec.QUEUE_PHYSICALLY_CONTIGUOUS
        self._admin.execute(
            spec.CREATE_COMPLETION_QUEUE,
            prp1=queue.completion.buffer.address,
            cdw10_11=queue.number
            | len(queue.completion) - 1 << 16
            | (flags | (spec.QUEUE_INTERRUPTS_ENABLED if queue.by_interrupt else 0)) << 32,
        )
        try:
            self._admin.execute(
                spec.CREATE_SUBMISSION_QUEUE,
                prp1=queue.submission.buffer.address,
                cdw10_11=queue.number | len(queue.submission) - 1 << 16 | (flags | queue.number << 16) << 32,
            )
        except CommandError:
            self._admin.execute(spec.DELETE_COMPLETION_QUEUE, cdw10_11=queue.number)
            raise

    def forget(self, queue: NvmeQueue) -> None:
        """Have the controller forget a queue (sections 5.5 and 5.6), and free it: what `NvmeQueue.close` does."""
        queue.end()
        if not self.device.closed and self._queues.pop(queue.number, None) is queue:
            try:
                self._admin.execute(spec.DELETE_SUBMISSION_QUEUE, cdw10_11=queue.number)
                self._admin.execute(spec.DELETE_COMPLETION_QUEUE, cdw10_11=queue.number)
            except (ControllerFatalError, DeviceRemovedError):
                return  # it may still use the memory, which stays until the disk is closed
            except (CommandError, DeviceTimeoutError):
                self.reset()
        queue.free()

    def abort(self, queue: int, command_id: int) -> bool:
        """Ask the controller to abort a command; return whether it says that it did (section 5.1)."""
        return not self._admin.execute(spec.ABORT, cdw10_11=queue | command_id << 16) & 1

    # -- the controller --

    def _read_status(self, doing: str) -> int:
        """Return CSTS. DeviceRemovedError: nothing answers."""
        status = self.registers.read32(spec.CSTS)
        if status == spec.ALL_ONES:
            reason = "its registers read as all ones: it was removed, lost power, or its memory decoding is off"
            raise DeviceRemovedError(errno.ENODEV, f"{doing}: {reason}")
        return status

    def require_working(self, doing: str) -> None:
        """Check that the controller is ready.

        Raises:
            ControllerFatalError: it stopped with a fatal error, or was disabled.
            DeviceRemovedError: it does not answer, or was removed or unbound.
        """
        if self.device.removed:
            raise DeviceRemovedError(errno.ENODEV, f"{doing}: the disk was removed or unbound")
        status = self._read_status(doing)
        if status & spec.CSTS_CFS:
            raise ControllerFatalError(f"{doing}: the controller has a fatal error (CSTS.CFS); see reset()")
        if not status & spec.CSTS_RDY:
            raise ControllerFatalError(f"{doing}: the controller is not ready (CSTS.RDY is 0); see reset()")

    def _wait_status(self, mask: int, value: int, timeout: float, doing: str) -> None:
        """Wait until bits of CSTS have a value; a fatal error ends it, unless the controller is just being stopped."""
        doing = f"{self.device.name}: {doing}"
        deadline = time.monotonic() + timeout
        while True:
            in_time = time.monotonic() < deadline
            status = self._read_status(doing)
            if status & mask == value:
                return
            if status & spec.CSTS_CFS and value:
                raise ControllerFatalError(f"{doing}: the controller failed (CSTS.CFS)")
            if not in_time:
                reason = f"CSTS is {status:#x} after {timeout:g} s"
                raise DeviceTimeoutError(errno.ETIMEDOUT, f"{doing}: {reason}")
            time.sleep(0.001)

    def _disable(self) -> None:
        """Reset the controller: section 7.3.2. It forgets all queues, and transfers nothing any more."""
        configuration = self.registers.read32(spec.CC)
        if configuration & spec.CC_EN and not self.registers.read32(spec.CSTS) & (spec.CSTS_RDY | spec.CSTS_CFS):
            # Somebody was enabling it: it must not be disabled before it is ready (section 3.1.5, EN).
            with suppress(DeviceTimeoutError, ControllerFatalError):
                self._wait_status(
                    spec.CSTS_RDY, spec.CSTS_RDY, self.capabilities.ready_timeout, "waiting until it is ready"
                )
        self.registers.write32(spec.CC, configuration & ~(spec.CC_EN | spec.CC_SHN))
        self._wait_status(spec.CSTS_RDY, 0, self.capabilities.ready_timeout, "disabling the controller")

    def _enable(self) -> None:
        """Set the controller up: section 7.6.1."""
        self.registers.write32(spec.INTMS, spec.ALL_ONES)
        self.registers.write32(spec.AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1))
        self.registers.write64(spec.ASQ, self._admin.submission.buffer.address)
        self.registers.write64(spec.ACQ, self._admin.completion.buffer.address)
        page_exponent = self.capabilities.page_size.bit_length() - 1
        self.registers.write32(spec.CC, spec.CC_IOCQES | spec.CC_IOSQES | (page_exponent - 12) << 7 | spec.CC_EN)
        self._wait_status(spec.CSTS_RDY, spec.CSTS_RDY, self.capabilities.ready_timeout, "enabling the controller")
        if self.by_interrupt:
            self.registers.write32(spec.INTMC, 1)  # all queues share vector 0, the pin's (section 7.5)
        granted = self._admin.execute(
            spec.SET_FEATURES, cdw10_11=spec.FEATURE_NUMBER_OF_QUEUES | ((_QUEUES - 1) << 16 | (_QUEUES - 1)) << 32
        )
        self._queue_limit = min(_QUEUES, (granted & 0xFFFF) + 1, (granted >> 16) + 1)

    def reset(self) -> None:
        """Reset the controller and set it up again with the same queues; commands that were under way are lost.

        Raises:
            ControllerFatalError, DeviceTimeoutError, DeviceRemovedError: as when it is opened.
            ClosedError: the disk is closed, or belongs to the process that this one was forked from.
        """
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        self._disable()
        self._admin.restart()
        for queue in self._queues.values():
            queue.restart()
        self._enable()
        for queue in self._queues.values():
            self._create(queue)

    def quiet(self) -> None:
        """Shut the controller down, so that nothing is left in a cache, and disable it: section 7.6.2."""
        with suppress(DeviceRemovedError):
            try:
                status = self._read_status(f"{self.device.name}: shutting down")
                if status & spec.CSTS_RDY and not status & spec.CSTS_CFS:
                    with suppress(CommandError, DeviceTimeoutError, ControllerFatalError):
                        for number in list(self._queues):
                            self._admin.execute(spec.DELETE_SUBMISSION_QUEUE, cdw10_11=number)
                            self._admin.execute(spec.DELETE_COMPLETION_QUEUE, cdw10_11=number)
                            del self._queues[number]
                    self.registers.write32(spec.CC, self.registers.read32(spec.CC) & ~spec.CC_SHN | spec.CC_SHN_NORMAL)
                    patience = max(_SHUTDOWN, min(60.0, self.controller.shutdown_latency))
                    self._wait_status(spec.CSTS_SHST, spec.CSTS_SHST_COMPLETE, patience, "shutting down")
            finally:
                self._disable()
