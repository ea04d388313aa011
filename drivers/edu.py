# SPDX-License-Identifier: MIT
"""A driver for QEMU's educational PCI device, ``-device edu``.

The data sheet is docs/specs/edu.rst in QEMU's sources; "section" below is one of its. Copy this file to start a driver
for a card of your own: the registers by name, one method for each thing that the card can do, and `quiet`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from pyuio import Device, DeviceTimeoutError, DmaBuffer, Driver
from pyuio.program import Operation, Read, WriteBack

# Registers of BAR 0, section "MMIO area spec". All take 32-bit accesses; those of DMA take 64-bit ones, too.
IDENTIFICATION = 0x00  # read only: 0xRRrr00ed, version RR.rr
LIVENESS = 0x04  # reads as the inverse of what was written
FACTORIAL = 0x08  # write n, read n! (modulo 2^32) when STATUS_COMPUTING is clear
STATUS = 0x20
INTERRUPT_STATUS = 0x24  # read only: the bits of the interrupts raised and not acknowledged
RAISE_INTERRUPT = 0x60  # write only: bits to set in INTERRUPT_STATUS
ACKNOWLEDGE_INTERRUPT = 0x64  # write only: bits to clear in INTERRUPT_STATUS
DMA_SOURCE = 0x80
DMA_DESTINATION = 0x88
DMA_COUNT = 0x90
DMA_COMMAND = 0x98

# Bits of STATUS.
STATUS_COMPUTING = 0x01  # read only
STATUS_INTERRUPT_AFTER_FACTORIAL = 0x80

# Bits of INTERRUPT_STATUS that the card sets by itself.
INTERRUPT_FACTORIAL = 0x001
INTERRUPT_DMA = 0x100
ALL_INTERRUPTS = 0xFFFFFFFF

# Bits of DMA_COMMAND, section "DMA controller".
DMA_START = 0x1
DMA_TO_MEMORY = 0x2  # clear: from memory to the card
DMA_RAISE_INTERRUPT = 0x4

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
    # What measures interrupt latency with the card needs to know of it: offsets in BAR 0.
    raise_offset = RAISE_INTERRUPT
    status_offset = INTERRUPT_STATUS
    acknowledge_offset = ACKNOWLEDGE_INTERRUPT
    dma_mask = (1 << 28) - 1  # section "Command line switches"; the card cuts the bits above without a word

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = device.bar(0)
        identification = self.registers.read32(IDENTIFICATION)
        if identification & 0xFFFF != 0x00ED:
            raise ValueError(f"{device.name} identifies itself as {identification:#010x}, which is not 0xRRrr00ed")
        self.version = (identification >> 24, identification >> 16 & 0xFF)
        """Major and minor version of the card, section "MMIO area spec", 0x00."""
        self._staging: DmaBuffer | None = None
        self.quiet()

    def liveness(self, value: int) -> int:
        """Write a 32-bit value to the liveness check and return what comes back: its inverse, if the card is alive."""
        self.registers.write32(LIVENESS, value)
        return self.registers.read32(LIVENESS)

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
        self.registers.poll32(STATUS, STATUS_COMPUTING, 0, timeout)
        return self.registers.read32(FACTORIAL)

    def factorial_by_interrupt(self, n: int, timeout: float = 1.0) -> int:
        """Return n! as the card computes it, sleeping until its interrupt says that it is ready.

        Arguments and errors are those of `factorial`; and `InterruptUnavailableError`.
        """
        self._check_factorial(n)
        deadline = time.monotonic() + timeout
        self.acknowledge(INTERRUPT_FACTORIAL)  # one that was left over is not this one's
        self.registers.set32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        try:
            self._start_factorial(n, timeout)
            done = False
            while not done:  # an interrupt may be another's
                bits = self.wait_for_interrupt(max(0.0, deadline - time.monotonic()))
                done = bool(bits & INTERRUPT_FACTORIAL) and not self.registers.read32(STATUS) & STATUS_COMPUTING
        finally:
            self.registers.clear32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        return self.registers.read32(FACTORIAL)

    @staticmethod
    def _check_factorial(n: int) -> None:
        if not 0 <= n <= LARGEST_FACTORIAL:
            raise ValueError(f"the card computes factorials of 0 to {LARGEST_FACTORIAL} in its 32 bits, not of {n}")

    def _start_factorial(self, n: int, timeout: float) -> None:
        # It takes no new number while it computes.
        self.registers.poll32(STATUS, STATUS_COMPUTING, 0, timeout)
        self.registers.write32(FACTORIAL, n)

    def raise_interrupt(self, bits: int = 1) -> None:
        """Make the card raise its interrupt with these bits, 1 to 0xffffffff, set in its interrupt status."""
        self.registers.write32(RAISE_INTERRUPT, bits)

    def interrupt_status(self) -> int:
        """Return the bits of the interrupts raised and not yet acknowledged."""
        return self.registers.read32(INTERRUPT_STATUS)

    def acknowledge(self, bits: int = ALL_INTERRUPTS) -> None:
        """Clear these bits of the interrupt status; the card lowers its line when none is left."""
        self.registers.write32(ACKNOWLEDGE_INTERRUPT, bits)

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
            ValueError: `offset` is out of range, or a `DmaBuffer` is beyond the mask of `Device.dma`.
            DeviceTimeoutError: the card did not finish in time.
            DmaMemoryError, DmaUnavailableError: see `Dma.alloc`.
        """
        view = memoryview(data).cast("B")
        if isinstance(data, DmaBuffer) and data.address + data.size - 1 > self.device.dma.mask:
            # The card would cut the address, and read somebody else's memory.
            raise ValueError(f"{data!r} is beyond what the card reaches, {self.device.dma.mask:#x}")
        for start, length in _pieces(len(view), offset):
            if isinstance(data, DmaBuffer):
                address = data.address + start
            else:
                staging = self._stage()
                staging[:length] = view[start : start + length]
                address = staging.address
            self._transfer(address, DMA_BUFFER + offset, length, DMA_START, by_interrupt, timeout)

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
            command = DMA_START | DMA_TO_MEMORY
            self._transfer(DMA_BUFFER + offset, staging.address, size, command, by_interrupt, timeout)
            result[start : start + size] = memoryview(staging)[:size]
        return result

    def _stage(self) -> DmaBuffer:
        if self._staging is None or self._staging.closed:
            self._staging = self.device.dma.alloc(4096)
        return self._staging

    def _transfer(
        self, source: int, destination: int, count: int, command: int, by_interrupt: bool, timeout: float
    ) -> None:
        """Run one transfer. Addresses are of 64 bits; section "DMA controller"."""
        deadline = time.monotonic() + timeout
        # The card ignores what is written to these registers while it transfers.
        self.registers.poll32(DMA_COMMAND, DMA_START, 0, timeout)
        self.registers.write64(DMA_SOURCE, source)
        self.registers.write64(DMA_DESTINATION, destination)
        self.registers.write64(DMA_COUNT, count)
        self.registers.write64(DMA_COMMAND, command | (DMA_RAISE_INTERRUPT if by_interrupt else 0))
        if by_interrupt:
            while not self.wait_for_interrupt(max(0.0, deadline - time.monotonic())) & INTERRUPT_DMA:
                pass  # an interrupt that something else raised
        self.registers.poll32(DMA_COMMAND, DMA_START, 0, max(0.0, deadline - time.monotonic()))

    def quiet(self) -> None:
        """Wait for a transfer that still runs, turn the interrupt after a factorial off, acknowledge what was raised.

        The card cannot be told to stop. A transfer that a driver left which was killed goes nowhere, as long as nobody
        switches bus mastering on.
        """
        self.registers.poll32(DMA_COMMAND, DMA_START, 0, 1.0)
        self.registers.clear32(STATUS, STATUS_INTERRUPT_AFTER_FACTORIAL)
        self.acknowledge()


def _pieces(length: int, offset: int) -> Iterator[tuple[int, int]]:
    """Yield the start and length of each transfer. ValueError: the offset is not in the part that can be reached."""
    if not 0 <= offset < DMA_REACHABLE:
        raise ValueError(f"the offset in the card's memory is 0 to {DMA_REACHABLE - 1}, not {offset}")
    step = DMA_REACHABLE - offset
    for start in range(0, length, step):
        yield start, min(step, length - start)
