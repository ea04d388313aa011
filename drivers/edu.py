# SPDX-License-Identifier: MIT
"""A driver for QEMU's educational PCI device, ``-device edu``.

The data sheet is docs/specs/edu.rst in QEMU's sources; a "section" named below is in it. Copy this file to start a
driver for a card of your own: the registers by name, one method for each thing that the card can do, and `quiet`.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pyuio import (
    Device,
    DeviceTimeoutError,
    DmaBuffer,
    Driver,
    Field,
    Register,
    RegisterMap,
    UnsupportedDeviceError,
)

if TYPE_CHECKING:
    from pyuio.program import Operation


class Identification(Register, access="ro"):
    """0xRRrr00ed, version RR.rr."""

    major = Field(31, 24)
    minor = Field(23, 16)
    card = Field(15, 0, doc="0x00ed")


class Status(Register):
    """State and interrupt enable of the factorial unit."""

    computing = Field(0, access="ro", doc="a factorial is being computed")
    interrupt_after_factorial = Field(7, doc="raise an interrupt when it is done")


class Interrupts(Register):
    """One bit for each interrupt. Software may raise all 32; the card itself raises these two."""

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
    """BAR 0, section "MMIO area spec". All registers take 32-bit accesses; those of DMA also take 64-bit ones."""

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


# The card's own memory, section "DMA controller": 4096 bytes at this address in the card's view.
DMA_BUFFER = 0x40000
# A transfer that reaches the end of the buffer, or has a count of 0, ends QEMU and the whole guest with it, at least up
# to QEMU 8 (hw/misc/edu.c, edu_check_range). A card does not tell QEMU's version, so the last byte is never used.
DMA_REACHABLE = 4095

LARGEST_FACTORIAL = 12  # 13! does not fit 32 bits


class Edu(Driver):
    """Driver of the educational card, on an open device.

    Raises:
        UnsupportedDeviceError: the device is not an edu card.
    """

    ids = ("1234:11e8",)
    register_maps: ClassVar = {0: EduRegisters}
    dma_mask = (1 << 28) - 1  # section "Command line switches"; the card silently drops higher bits

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.bar = device.bar(0)
        """The registers by offset."""
        self.registers = EduRegisters(self.bar)
        """The registers by name."""
        identification = self.registers.identification.snapshot()
        if identification.card != 0x00ED:
            raise UnsupportedDeviceError(
                f"{device.name} identifies itself as {identification.read():#010x}, not 0xRRrr00ed"
            )
        self.version = (identification.major, identification.minor)
        """Major and minor version of the card, section "MMIO area spec", 0x00."""
        self._staging: DmaBuffer | None = None
        self.quiet()

    def liveness(self, value: int) -> int:
        """Write a 32-bit value to the liveness register and return what it reads as: its inverse, if the card lives."""
        self.registers.liveness.write(value)
        return self.registers.liveness.read()

    def factorial(self, n: int, timeout: float = 1.0) -> int:
        """Have the card compute n! and return it, polling the status until it is ready.

        Args:
            n: 0 to 12, whose factorials fit 32 bits.
            timeout: seconds.

        Raises:
            ValueError: n is out of range.
            DeviceTimeoutError: the card did not finish in time.
        """
        self._check_factorial(n)
        self._start_factorial(n, timeout)
        self.registers.status.poll(lambda status: not status.computing, timeout)
        return self.registers.factorial.read()

    def factorial_by_interrupt(self, n: int, timeout: float = 1.0) -> int:
        """Have the card compute n! and return it, sleeping until the card's interrupt.

        Arguments and errors are those of `factorial`. InterruptUnavailableError: the device cannot deliver interrupts.
        """
        self._check_factorial(n)
        clock = self.device.clock
        deadline = clock.monotonic() + timeout
        self.acknowledge(Interrupts.factorial.mask)  # an old one must not be taken for this one
        self.registers.status.interrupt_after_factorial = True
        try:
            self._start_factorial(n, timeout)
            self._wait_for(Interrupts.factorial.mask, deadline)
            while self.registers.status.computing:  # the interrupt was raised by something else
                self._wait_for(Interrupts.factorial.mask, deadline)
        finally:
            self.unless_gone(self._disable_interrupt)
        return self.registers.factorial.read()

    def _disable_interrupt(self) -> None:
        self.registers.status.interrupt_after_factorial = False

    @staticmethod
    def _check_factorial(n: int) -> None:
        if not 0 <= n <= LARGEST_FACTORIAL:
            raise ValueError(f"the card computes factorials of 0 to {LARGEST_FACTORIAL} in its 32 bits, not of {n}")

    def _start_factorial(self, n: int, timeout: float) -> None:
        # The card takes no new number while it computes.
        self.registers.status.poll(lambda status: not status.computing, timeout)
        self.registers.factorial.write(n)

    def raise_interrupt(self, bits: int = 1) -> None:
        """Make the card raise its interrupt with these bits, 1 to 0xffffffff, set in its interrupt status."""
        self.registers.raise_interrupt.write(bits)

    def trigger(self) -> None:
        """Make the card raise its interrupt once."""
        self.raise_interrupt()

    def trigger_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that raises the interrupt."""
        from pyuio.program import Write

        return [Write(self.registers.raise_interrupt, 1)]

    def interrupt_status(self) -> int:
        """Return the bits of the interrupts that are raised and not yet acknowledged."""
        return self.registers.interrupt_status.read()

    def acknowledge(self, bits: int = 0xFFFFFFFF) -> None:
        """Clear these bits of the interrupt status; the card lowers its line when none is left."""
        self.registers.acknowledge_interrupt.write(bits)

    def acknowledge_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that keeps the raised bits as ``status`` and acknowledges them."""
        from pyuio.program import Read, WriteBack

        return [
            Read("status", self.registers.interrupt_status),
            WriteBack("status", self.registers.acknowledge_interrupt),
        ]

    def wait_for_interrupt(self, timeout: float | None = None) -> int:
        """Wait for the card's interrupt, acknowledge it, and return the bits that were raised.

        The bits are 0 if the interrupt was acknowledged before this read it.

        Args:
            timeout: seconds, or None for ever.

        Raises:
            DeviceTimeoutError: none came in time.
            InterruptUnavailableError: the device cannot deliver one.
        """
        self.device.interrupt.read(timeout)
        bits = self.interrupt_status()
        self.acknowledge(bits)
        return bits

    def _wait_for(self, bit: int, deadline: float) -> None:
        """Wait for the interrupt with this bit, until a time of the device's clock; others are acknowledged."""
        clock = self.device.clock
        left = deadline - clock.monotonic()
        while not self.wait_for_interrupt(max(0.0, left)) & bit:
            if left <= 0:  # a card that does not lower its line interrupts again and again
                reason = f"interrupts came, and none of them had bit {bit:#x}"
                raise DeviceTimeoutError(errno.ETIMEDOUT, f"{self.device.name}: {reason}")
            left = deadline - clock.monotonic()

    def to_device(
        self,
        data: bytes | bytearray | memoryview | DmaBuffer,
        offset: int = 0,
        *,
        by_interrupt: bool = False,
        timeout: float = 1.0,
    ) -> None:
        """Have the card copy `data` into its own memory. Each transfer takes 100 ms and copies up to 4095 bytes.

        The data may have any length. What does not fit between `offset` and the end of the card's memory is written
        from `offset` again, over what is there.

        Args:
            data: any bytes. The card reads a `DmaBuffer` directly; other data is copied to one first.
            offset: where in the card's memory, 0 to 4094.
            by_interrupt: sleep until the card's interrupt instead of polling.
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
            # The card would drop the high bits of the address, and read somebody else's memory.
            raise ValueError(f"{data!r} is beyond what the card reaches, {self.device.dma.mask:#x}")
        for start, length in _pieces(len(view), offset):
            if isinstance(data, DmaBuffer):
                address = data.address + start
            else:
                staging = self._stage()
                # An earlier transfer that timed out may still read or write it.
                self._wait_for_transfer(timeout)
                staging[:length] = view[start : start + length]
                address = staging.address
            self._transfer(Direction.FROM_MEMORY, address, DMA_BUFFER + offset, length, by_interrupt, timeout)

    def from_device(
        self, length: int, offset: int = 0, *, by_interrupt: bool = False, timeout: float = 1.0
    ) -> bytearray:
        """Have the card copy its own memory out, and return the bytes. Raises what `to_device` raises.

        Args:
            length: in bytes, from 0; past the end of the card's memory it is read from `offset` again.
            offset: where in the card's memory, 0 to 4094.
            by_interrupt: sleep until the card's interrupt instead of polling.
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
        self.registers.dma_command.poll(lambda command: not command.start, timeout)

    def _transfer(
        self, direction: Direction, source: int, destination: int, count: int, by_interrupt: bool, timeout: float
    ) -> None:
        """Run one transfer, between addresses of 64 bits: section "DMA controller"."""
        clock = self.device.clock
        deadline = clock.monotonic() + timeout
        # The card ignores what is written to these registers while it transfers.
        self._wait_for_transfer(timeout)
        self.acknowledge(Interrupts.dma.mask)  # that of one that timed out must not be taken for this one
        self.registers.dma_source.write(source)
        self.registers.dma_destination.write(destination)
        self.registers.dma_count.write(count)
        with self.registers.dma_command.change(0) as command:
            command.start = True
            command.direction = direction
            command.raise_interrupt = by_interrupt
        if by_interrupt:
            self._wait_for(Interrupts.dma.mask, deadline)
        self.registers.dma_command.poll(lambda command: not command.start, max(0.0, deadline - clock.monotonic()))

    def quiet(self) -> None:
        """Wait for the end of a transfer, disable the interrupt after a factorial, acknowledge what was raised.

        The card has no way to stop a transfer. One that a killed driver left running moves no data as long as nobody
        switches bus mastering on.
        """
        try:
            self._wait_for_transfer(1.0)
        finally:
            self._disable_interrupt()
            self.acknowledge()


def _pieces(length: int, offset: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of each transfer. ValueError: the offset is outside of the memory that can be reached."""
    if not 0 <= offset < DMA_REACHABLE:
        raise ValueError(f"the offset in the card's memory is 0 to {DMA_REACHABLE - 1}, not {offset}")
    step = DMA_REACHABLE - offset
    for start in range(0, length, step):
        yield start, min(step, length - start)
