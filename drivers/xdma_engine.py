# SPDX-License-Identifier: MIT
"""The engine behind one XDMA channel: it runs descriptors, and learns when they are done.

"Section" is one of PG195. `pyuio_drivers.xdma_channel` is what a program uses.

A transfer is a generator: it starts the engine, and yields how many seconds it may wait, whenever it has to. `run`
waits in the thread, `run_async` in an asyncio task. So both do the same.
"""

from __future__ import annotations

import enum
import errno
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from pyuio_drivers.xdma_errors import ERRORS, ChannelError, ChannelTimeoutError, error_words
from pyuio_drivers.xdma_registers import (
    ADJACENT_DESCRIPTORS,
    DESCRIPTOR_FIELDS,
    DESCRIPTOR_MAGIC,
    DESCRIPTOR_SIZE,
    PAGE,
    ChannelControl,
    ChannelRegisters,
    ChannelStatus,
    DescriptorControl,
    SgdmaRegisters,
    Target,
)

from pyuio import (
    ClosedError,
    DescriptorRing,
    DeviceBusyError,
    DeviceRemovedError,
    DeviceTimeoutError,
    InterruptUnavailableError,
)

if TYPE_CHECKING:
    from pyuio import Device
    from pyuio.interrupt import Interrupt

Result = TypeVar("Result")
Steps = Generator[float, None, Result]
"""A transfer: it yields how many seconds it may wait at most, and returns its result."""

DESCRIPTORS = 2 * ADJACENT_DESCRIPTORS - 2
"""How many descriptors the engine runs at once: those that fit a page beside `_RESULTS` bytes."""
_RESULTS = PAGE - DESCRIPTORS * DESCRIPTOR_SIZE  # what the engine writes back, a cache line
_STREAM_RESULT = 32  # where in the results a stream's length is; the count of descriptors is at 0
_LOOKS = 500  # at the count in memory, between two reads of the status; they take some 30 us
_PAUSE = 50e-6  # seconds from one read of the status to the next
_LONGEST_WAIT = 1.0  # seconds for an interrupt, as one may get lost
_STOP_TIME = 0.1  # seconds in which an engine completes its current descriptor

_LOGGED = ChannelControl.value(
    ie_descriptor_stopped=True,
    ie_descriptor_completed=True,
    ie_align_mismatch=True,
    ie_magic_stopped=True,
    ie_invalid_length=True,
    ie_read_error=0x1F,
    ie_write_error=0x1F,
    ie_descr_error=0x1F,
)
_ENDS = ERRORS | ChannelStatus.mask("descriptor_stopped")  # the bits of the status that end a run


class Completion(enum.Enum):
    """How the driver learns that a transfer is done."""

    WRITE_BACK = "write-back"
    """It polls the count of completed descriptors, which the engine writes to memory, and then reads the status."""
    STATUS = "status"
    """It polls the channel's status register."""
    INTERRUPT = "interrupt"
    """It sleeps until the channel's interrupt, a message of its own (MSI-X, or MSI)."""


class Piece(NamedTuple):
    """What one descriptor transfers.

    Attributes:
        host: the address in memory, on the bus.
        card: the address on the card; 0 for a stream.
        size: in bytes.
    """

    host: int
    card: int
    size: int


class Place(NamedTuple):
    """Where a channel is.

    Attributes:
        target: Target.H2C or Target.C2H.
        number: of the channel.
        registers: those of the channel.
        sgdma: those of its descriptors.
    """

    target: Target
    number: int
    registers: ChannelRegisters
    sgdma: SgdmaRegisters


class Engine:
    """The engine of one channel, idle, with memory for its descriptors.

    Args:
        device: the open device.
        place: where the channel is.
        completion: how it learns that a transfer is done.
        interrupt: the channel's; None unless that is by interrupt.

    Attributes:
        name: "H2C 0", "C2H 1" and so on, after the device's name.
        is_stream: whether the channel is an AXI4-Stream; else it is memory mapped.

    Raises:
        DmaMemoryError, DmaUnavailableError: there is no page of memory.
    """

    def __init__(self, device: Device, place: Place, completion: Completion, interrupt: Interrupt | None) -> None:
        self.device = device
        self.target, _, self.registers, self._sgdma = place
        self.name = f"{device.name}: {place.target.name} {place.number}"
        self.is_stream = bool(self.registers.identifier.stream)
        self._completion = completion
        self._interrupt = interrupt
        self._clock = device.clock
        self._used = threading.Lock()
        self._is_stuck = False  # it did not stop, and may still use the memory of its last transfer
        page = device.dma.alloc(PAGE, align=PAGE)
        self._results = page[PAGE - _RESULTS :]
        self._ring = DescriptorRing(
            page[: PAGE - _RESULTS], entry_size=DESCRIPTOR_SIZE, fields=DESCRIPTOR_FIELDS, owner="control"
        )
        self.registers.poll_mode_write_back.write(self._results.address)
        reserved = ChannelStatus.mask("write_error") if self.target is Target.C2H else 0
        self._logged = _LOGGED & ~reserved  # the fields are at the same places in both registers
        self.registers.interrupt_enable.write(_ENDS & ~reserved if interrupt else 0)

    # -- who may use it, and waiting --

    @contextmanager
    def use(self) -> Iterator[None]:
        """Use the engine alone, for one transfer.

        Raises:
            DeviceBusyError: another transfer is under way, or one that timed out did not stop.
            ClosedError: the device is closed.
        """
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        if not self._used.acquire(blocking=False):
            raise DeviceBusyError(errno.EBUSY, f"{self.name} has a transfer under way, and takes one at a time")
        try:
            if self._is_stuck and self.registers.status.busy:
                reason = "is still busy with an earlier transfer, and with its memory; close the driver, reset the card"
                raise DeviceBusyError(errno.EBUSY, f"{self.name} {reason} (pyuio reset, Device.reset)")
            self._is_stuck = False
            yield
        finally:
            self._used.release()

    def deadline(self, timeout: float) -> float:
        """Return a time of the device's clock. ValueError: the timeout is not above 0 seconds."""
        if not timeout > 0:
            raise ValueError(f"a timeout is above 0 seconds, not {timeout}")
        return self._clock.monotonic() + timeout

    def run(self, steps: Steps[Result]) -> Result:
        """Do a transfer, and return its result."""
        try:
            while True:
                left = next(steps)
                if self._interrupt is None:
                    self._clock.sleep(min(_PAUSE, left))
                else:
                    with suppress(DeviceTimeoutError):  # the status tells
                        self._interrupt.read(min(_LONGEST_WAIT, left))
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            steps.close()  # stops the engine if the wait was broken off

    async def run_async(self, steps: Steps[Result]) -> Result:
        """Do a transfer while other asyncio tasks run, and return its result.

        InterruptUnavailableError: the driver polls.
        """
        try:
            if self._interrupt is None:
                reason = f"{self.name} polls, and asyncio needs its interrupt: open it with completion='interrupt'"
                raise InterruptUnavailableError(errno.ENXIO, reason)
            while True:
                left = next(steps)
                with suppress(DeviceTimeoutError):
                    await self._interrupt.read_async(min(_LONGEST_WAIT, left))
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            steps.close()

    # -- running descriptors --

    def transfer(self, pieces: Iterable[Piece], deadline: float, *, end_of_packet: bool = True) -> Steps[None]:
        """Transfer pieces of memory, in as many runs as it takes.

        Args:
            pieces: what to transfer.
            deadline: a time of the device's clock.
            end_of_packet: whether the last piece ends a packet, on an H2C stream.

        Raises:
            ChannelError: the engine stopped with an error.
            ChannelTimeoutError: it was not done in time.
            DeviceRemovedError: the card is gone.
        """
        pieces = list(pieces)
        for first in range(0, len(pieces), DESCRIPTORS):
            run = pieces[first : first + DESCRIPTORS]
            is_last = first + len(run) == len(pieces)
            try:
                self.start(run, end_of_packet=end_of_packet and is_last)
                in_time = yield from self.ended(deadline)
                if in_time:
                    self.check(len(run))
            except BaseException:
                self._stop_early()
                raise
            if not in_time:
                self._time_out(len(run))

    def start(self, pieces: list[Piece], *, end_of_packet: bool = True) -> None:
        """Start the engine on these pieces, at most `DESCRIPTORS`: section "Descriptors"."""
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            flags, following = DescriptorControl(0), self._ring.address(index + 1)
            if index == last:
                flags, following = DescriptorControl.STOP | DescriptorControl.COMPLETED, 0
                if end_of_packet and self.is_stream and self.target is Target.H2C:
                    flags |= DescriptorControl.END_OF_PACKET
            source, destination = piece.host, piece.card
            if self.target is Target.C2H:
                # A stream has no source. The field says where the length goes: section "DMA C2H Stream".
                source, destination = piece.card, piece.host
                if self.is_stream:
                    source = self._results.address + _STREAM_RESULT
            self._ring.publish(
                index,
                len=piece.size,
                src_adr=source,
                dst_adr=destination,
                nxt_adr=following,
                control=DESCRIPTOR_MAGIC | _adjacent(index + 1, last) << 8 | flags,
            )
        self._results.zero()
        self._sgdma.descriptor_address.write(self._ring.address(0))
        self._sgdma.descriptor_adjacent.write(_adjacent(0, last))
        write_back = ChannelControl.value(pollmode_wb_enable=self._completion is Completion.WRITE_BACK)
        self.registers.control.write(self._logged | write_back | ChannelControl.value(run=True))

    def ended(self, deadline: float) -> Steps[bool]:
        """Wait until the engine stops by itself, and return True; False if it does not in time.

        The read of the status comes after all that the engine wrote to memory before, as PCI Express does not let the
        answer overtake writes.
        """
        while True:
            now = self._clock.monotonic()
            if self._completion is Completion.WRITE_BACK:
                self._look_at_count()
            status = self.registers.status.read()
            if status & _ENDS and not ChannelStatus.of(status).busy:
                return True
            if now >= deadline:
                return False
            yield deadline - now

    def _look_at_count(self) -> None:
        """Look for a while until the engine has written its count back: section "Poll Mode".

        That is only a reason to read the status: nothing says that the count of the run before cannot come late.
        """
        read = self._results.registers.read32
        for _ in repeat(None, _LOOKS):
            if read(0):
                break

    def check(self, count: int) -> None:
        """End a run of `count` descriptors, of which the engine should have completed all. ChannelError: it has not."""
        status = self.registers.status_rc.snapshot()  # so that the next run begins with none of it
        completed = self.registers.completed_descriptor_count.read()
        self.registers.control.write(0)
        if words := error_words(self.target, status):
            raise ChannelError(self.name, words, status, completed)
        if completed != count:
            raise ChannelError(self.name, f"stopped before all of {count} descriptors were done", status, completed)

    def stream_result(self) -> tuple[int, int]:
        """Return the two words that the engine wrote back for a descriptor of a C2H stream."""
        registers = self._results.registers
        return registers.read32(_STREAM_RESULT), registers.read32(_STREAM_RESULT + 4)

    # -- stopping --

    def _stop_early(self) -> None:
        with suppress(DeviceRemovedError, ClosedError):
            self._is_stuck = True  # unless it stops, whatever comes in between
            self._is_stuck = not stop(self.registers)

    def _time_out(self, count: int) -> NoReturn:
        """Stop the engine after a run of `count` descriptors that takes too long, and say so."""
        status, completed = self.registers.status.snapshot(), self.registers.completed_descriptor_count.read()
        done = f"{completed} of {count} descriptors completed (status {status.read():#x})"
        late = f"{self.name}: not done in time, {done}"
        self._stop_early()
        if self._is_stuck:
            late += "; it does not stop, and may still use the memory: leave that open, and reset the card"
        raise ChannelTimeoutError(late)


def stop(registers: ChannelRegisters) -> bool:
    """Stop a channel's engine, and return whether it is idle: it completes the descriptor that it is at, if it can."""
    registers.control.write(0)
    try:
        registers.status.poll(lambda status: not status.busy, _STOP_TIME)
    except DeviceTimeoutError:
        return False
    registers.status_rc.read()
    return True


def _adjacent(index: int, last: int) -> int:
    """Return how many descriptors follow the one at `index` in the same block: nxt_adj of the one before it.

    A block ends where its page does, or earlier, so that each is fetched at once. Descriptors begin at a page.
    """
    return max(0, min(last - index, ADJACENT_DESCRIPTORS - 1 - index % ADJACENT_DESCRIPTORS))
