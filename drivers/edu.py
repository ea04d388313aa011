# SPDX-License-Identifier: MIT
"""A driver for QEMU's educational PCI device, ``-device edu``.

The data sheet is docs/specs/edu.rst in QEMU's sources; "section" below is one of its. Copy this file to start a driver
for a card of your own: the registers by name, one method for each thing that the card can do, and `quiet`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from typing import ClassVar

from pyuio import Device, DeviceTimeoutError, DmaBuffer, Driver, Field, Register, RegisterMap
from pyuio.program import Operation, Read, Write, WriteBack


class Identification(Register, access="ro"):
    """0xRRrr00ed, version RR.rr."""

    major = Field(31, 24)
    minor = Field(23, 16)
    card = Field(15, 0, doc="0x00ed")


class Status(Register):
    """What the factorial unit does."""

    computing = Field(0, access="ro", doc="a factorial is being computed")
    interrupt_after_factorial = Field(7, doc="raise an interrupt when it is done")


class Interrupts(Register):
    """One bit for each interrupt. Software may raise any; the card raises these two by itself."""

    factorial = Field(0, doc="a factorial is done")
    dma = Field(8, doc="a transfer is done")


class Direction(enum.IntEnum):
    """Where a transfer goes."""

    FROM_MEMORY = 0
    TO_MEMORY = 1


class DmaCommand(Register, width=64):
    """Section "DMA controller". The card ignores what is written while it transfers."""

    start = Field(0, doc="write 1 to start; reads as 1 until the transfer is done")
    direction = Field(1, enum=Direction)
    raise_interrupt = Field(2, doc="raise an interrupt when it is done")


class EduRegisters(RegisterMap):
    """BAR 0, section "MMIO area spec". All take 32-bit accesses; those of DMA take 64-bit ones, too."""

    identification = Identification(0x00)
    liveness = Register(0x04, doc="reads as the inverse of what was written")
    factorial = Register(0x08, doc="write n, read n! (modulo 2^32) when status.computing is clear")
    status = Status(0x20)
    interrupt_status = Interrupts(0x24, access="ro", doc="interrupts raised and not acknowledged")
    raise_interrupt = Interrupts(0x60, access="wo", doc="bits to set in interrupt_status")
    acknowledge_interrupt = Interrupts(0x64, access="wo", doc="bits to clear in interrupt_status")
    dma_source = Register(0x80, width=64, doc="address to read from, on the bus or in the card's memory")
    dma_destination = Register(0x88, width=64, doc="address to write to")
    dma_count = Register(0x90, width=64, doc="bytes to transfer")
    dma_command = DmaCommand(0x98)


# The same as numbers, for programs of a `pyuio.Service` and whoever counts accesses: offsets, and bits.
LIVENESS = EduRegisters.liveness.info.offset
FACTORIAL = EduRegisters.factorial.info.offset
STATUS = EduRegisters.status.info.offset
INTERRUPT_STATUS = EduRegisters.interrupt_status.info.offset
RAISE_INTERRUPT = EduRegisters.raise_interrupt.info.offset
ACKNOWLEDGE_INTERRUPT = EduRegisters.acknowledge_interrupt.info.offset
DMA_SOURCE = EduRegisters.dma_source.info.offset
DMA_DESTINATION = EduRegisters.dma_destination.info.offset
DMA_COUNT = EduRegisters.dma_count.info.offset
DMA_COMMAND = EduRegisters.dma_command.info.offset
STATUS_COMPUTING = Status.computing.mask
STATUS_INTERRUPT_AFTER_FACTORIAL = Status.interrupt_after_factorial.mask
INTERRUPT_FACTORIAL = Interrupts.factorial.mask
INTERRUPT_DMA = Interrupts.dma.mask
ALL_INTERRUPTS = 0xFFFFFFFF
DMA_START = DmaCommand.start.mask
DMA_TO_MEMORY = DmaCommand.direction.mask  # clear: from memory to the card
DMA_RAISE_INTERRUPT = DmaCommand.raise_interrupt.mask

# The card's own memory, section "DMA controller": 4096 bytes at this address, as the card sees it.
DMA_BUFFER = 0x40000
# QEMU up to 8 at least ends, and the whole machine with it, at a transfer that reaches the end of the buffer, or has a
# count of 0 (hw/misc/edu.c, edu_check_range): the last byte is out of reach, and a card does not tell its QEMU.
DMA_REACHABLE = 4095

LARGEST_FACTORIAL = 12  # 13! does not fit 32 bits


class Edu(Driver):
    """The educational card, on an open device.

    Raises:
        ValueError: the device is not an edu card.
    """

    ids = ("1234:11e8",)
    register_maps: ClassVar = {0: EduRegisters}
    # What measures interrupt latency with the card needs to know of it: offsets in BAR 0.
    raise_offset = RAISE_INTERRUPT
    status_offset = INTERRUPT_STATUS
    acknowledge_offset = ACKNOWLEDGE_INTERRUPT
    dma_mask = (1 << 28) - 1  # section "Command line switches"; the card cuts the bits above without a word

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = device.bar(0)
        self.named = EduRegisters(self.registers)
        """The same registers by name."""
        identification = self.named.identification.snapshot()
        if identification.card != 0x00ED:
            raise ValueError(f"{device.name} identifies itself as {identification.read():#010x}, not 0xRRrr00ed")
        self.version = (identification.major, identification.minor)
        """Major and minor version of the card, section "MMIO area spec", 0x00."""
        self._staging: DmaBuffer | None = None
        self.quiet()

    def liveness(self, value: int) -> int:
        """Write a 32-bit value to the liveness check and return what comes back: its inverse, if the card is alive."""
        self.named.liveness.write(value)
        return self.named.liveness.read()

    def factorial(self, n: int, timeout: float = 1.0) -> int:
        """Return n! as the card computes it, asking until it is ready.

        Args:
            n: 0 to 12, whose factorials fit 32 bits.
            timeout: seconds.

        Raises:
            ValueError: n is out of range.
            DeviceTimeoutError: the card did not finish in time.
        """
        self._check_factorial(n)
        self._start_factorial(n, timeout)
        self.named.status.poll(lambda status: not status.computing, timeout)
        return self.named.factorial.read()

    def factorial_by_interrupt(self, n: int, timeout: float = 1.0) -> int:
        """Return n! as the card computes it, sleeping until its interrupt says that it is ready.

        Arguments and errors are those of `factorial`; and `InterruptUnavailableError`.
        """
        self._check_factorial(n)
        deadline = time.monotonic() + timeout
        self.acknowledge(INTERRUPT_FACTORIAL)  # one that was left over is not this one's
        self.named.status.interrupt_after_factorial = True
        try:
            self._start_factorial(n, timeout)
            done = False
            while not done:  # an interrupt may be another's
                bits = self.wait_for_interrupt(max(0.0, deadline - time.monotonic()))
                done = bool(bits & INTERRUPT_FACTORIAL) and not self.named.status.computing
        finally:
            self.named.status.interrupt_after_factorial = False
        return self.named.factorial.read()

    @staticmethod
    def _check_factorial(n: int) -> None:
        if not 0 <= n <= LARGEST_FACTORIAL:
            raise ValueError(f"the card computes factorials of 0 to {LARGEST_FACTORIAL} in its 32 bits, not of {n}")

    def _start_factorial(self, n: int, timeout: float) -> None:
        # It takes no new number while it computes.
        self.named.status.poll(lambda status: not status.computing, timeout)
        self.named.factorial.write(n)

    def raise_interrupt(self, bits: int = 1) -> None:
        """Make the card raise its interrupt with these bits, 1 to 0xffffffff, set in its interrupt status."""
        self.named.raise_interrupt.write(bits)

    def trigger(self) -> None:
        """Make the card raise its interrupt once."""
        self.raise_interrupt()

    def trigger_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to raise the interrupt."""
        return [Write(self.registers, RAISE_INTERRUPT, 1)]

    def interrupt_status(self) -> int:
        """Return the bits of the interrupts raised and not yet acknowledged."""
        return self.named.interrupt_status.read()

    def acknowledge(self, bits: int = ALL_INTERRUPTS) -> None:
        """Clear these bits of the interrupt status; the card lowers its line when none is left."""
        self.named.acknowledge_interrupt.write(bits)

    def acknowledge_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does at once: acknowledge what was raised, and keep it as ``status``."""
        return [
            Read("status", self.registers, INTERRUPT_STATUS),
            WriteBack("status", self.registers, ACKNOWLEDGE_INTERRUPT),
        ]

    def wait_for_interrupt(self, timeout: float | None = None) -> int:
        """Wait for the card's interrupt, acknowledge it, and return the bits that were raised.

        The bits may be 0: an interrupt that was acknowledged before it was read.

        Args:
            timeout: seconds, or None for ever.

        Raises:
            DeviceTimeoutError: none came in time.
            InterruptUnavailableError: the device cannot deliver one.
        """
        try:
            self.device.interrupt.read(timeout)
        except BlockingIOError as error:
            raise DeviceTimeoutError(*error.args) from None
        bits = self.interrupt_status()
        self.acknowledge(bits)
        return bits

    def to_device(
        self,
        data: bytes | bytearray | memoryview | DmaBuffer,
        offset: int = 0,
        *,
        by_interrupt: bool = False,
        timeout: float = 1.0,
    ) -> None:
        """Have the card copy `data` into its own memory, which takes it 100 ms for every 4095 bytes or part of them.

        Data of any length: what does not fit between `offset` and the end starts again at `offset`, over what is there.

        Args:
            data: anything with bytes; those of a `DmaBuffer` the card takes itself.
            offset: where in the card's memory, 0 to 4094.
            by_interrupt: sleep until the card's interrupt instead of asking it.
            timeout: seconds for each transfer.

        Raises:
            ValueError: `offset` is out of range; a `DmaBuffer` is another device's, or beyond the mask of `Device.dma`.
            DeviceTimeoutError: the card did not finish in time.
            DmaMemoryError, DmaUnavailableError: see `Dma.alloc`.
        """
        view = memoryview(data).cast("B")
        if isinstance(data, DmaBuffer) and not self.device.dma.owns(data):
            raise ValueError(f"{data!r} is another device's, which this card may not be able to reach")
        if isinstance(data, DmaBuffer) and data.address + data.size - 1 > self.device.dma.mask:
            # The card would cut the address, and read somebody else's memory.
            raise ValueError(f"{data!r} is beyond what the card reaches, {self.device.dma.mask:#x}")
        for start, length in _pieces(len(view), offset):
            if isinstance(data, DmaBuffer):
                address = data.address + start
            else:
                staging = self._stage()
                # What a transfer before left running may still read it, or write to it.
                self._wait_for_transfer(timeout)
                staging[:length] = view[start : start + length]
                address = staging.address
            self._transfer(Direction.FROM_MEMORY, address, DMA_BUFFER + offset, length, by_interrupt, timeout)

    def from_device(
        self, length: int, offset: int = 0, *, by_interrupt: bool = False, timeout: float = 1.0
    ) -> bytearray:
        """Have the card copy its own memory out, and return it. The counterpart of `to_device`, with the same errors.

        Args:
            length: in bytes, from 0; what exceeds the end of the card's memory starts again at `offset`.
            offset: where in the card's memory, 0 to 4094.
            by_interrupt: sleep until the card's interrupt instead of asking it.
            timeout: seconds for each transfer.
        """
        if length < 0:
            raise ValueError(f"the length must be at least 0, not {length}")
        result = bytearray(length)
        for start, size in _pieces(length, offset):
            staging = self._stage()
            self._transfer(Direction.TO_MEMORY, DMA_BUFFER + offset, staging.address, size, by_interrupt, timeout)
            result[start : start + size] = memoryview(staging)[:size]
        return result

    def _stage(self) -> DmaBuffer:
        if self._staging is None or self._staging.closed:
            self._staging = self.device.dma.alloc(4096)
        return self._staging

    def _wait_for_transfer(self, timeout: float) -> None:
        self.named.dma_command.poll(lambda command: not command.start, timeout)

    def _transfer(
        self, direction: Direction, source: int, destination: int, count: int, by_interrupt: bool, timeout: float
    ) -> None:
        """Run one transfer. Addresses are of 64 bits; section "DMA controller"."""
        deadline = time.monotonic() + timeout
        # The card ignores what is written to these registers while it transfers.
        self._wait_for_transfer(timeout)
        self.named.dma_source.write(source)
        self.named.dma_destination.write(destination)
        self.named.dma_count.write(count)
        with self.named.dma_command.change(0) as command:
            command.start = True
            command.direction = direction
            command.raise_interrupt = by_interrupt
        if by_interrupt:
            while not self.wait_for_interrupt(max(0.0, deadline - time.monotonic())) & INTERRUPT_DMA:
                pass  # an interrupt that something else raised
        self.named.dma_command.poll(lambda command: not command.start, max(0.0, deadline - time.monotonic()))

    def quiet(self) -> None:
        """Wait for a transfer that still runs, turn the interrupt after a factorial off, acknowledge what was raised.

        The card cannot be told to stop. A transfer that a driver left which was killed goes nowhere, as long as nobody
        switches bus mastering on.
        """
        self.named.dma_command.poll(lambda command: not command.start, 1.0)
        self.named.status.interrupt_after_factorial = False
        self.acknowledge()


def _pieces(length: int, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the start and length of each transfer. ValueError: the offset is not in the part that can be reached."""
    if not 0 <= offset < DMA_REACHABLE:
        raise ValueError(f"the offset in the card's memory is 0 to {DMA_REACHABLE - 1}, not {offset}")
    step = DMA_REACHABLE - offset
    for start in range(0, length, step):
        yield start, min(step, length - start)
