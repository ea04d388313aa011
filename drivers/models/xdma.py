# SPDX-License-Identifier: MIT
"""A card with the engine that Xilinx calls XDMA, in Python, for `pyuio_drivers.xdma`.

It follows PG195, "DMA/Bridge Subsystem for PCI Express"; "section" is one of it. No board was compared with it. What
differs on purpose: the table of MSI-X has a BAR of its own, as on each card of `pyuio.model`. Credits of descriptors,
addresses that do not increment, counters of performance and descriptor bypass are not there.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from pyuio_drivers import xdma_registers as spec
from pyuio_drivers.xdma_registers import DescriptorControl, Target, XdmaRegisters

from pyuio.model import Card, TransferError

_VERSION = 6
_LATENCY = 1e-6  # seconds for the fetch of descriptors, and for each descriptor
_SPEED = 3.2e9  # bytes a second
_UNSUPPORTED_REQUEST = 1  # of read_error of H2C, and of descr_error
_DECODE_ERROR, _SLAVE_ERROR = 1, 2  # of the other errors


class _Descriptor(NamedTuple):
    """Section "Descriptors", table "Descriptor Format"."""

    control: int
    length: int
    source: int
    destination: int
    following: int

    @property
    def flags(self) -> DescriptorControl:
        return DescriptorControl(self.control & 0x13)

    @property
    def adjacent(self) -> int:
        return self.control >> 8 & 0x3F


class _Fault(Exception):
    """The engine stops, and logs these fields of its status."""

    def __init__(self, **fields: int) -> None:
        super().__init__(fields)
        self.fields = fields


class _Engine:
    """One channel's engine."""

    def __init__(self, card: XdmaCard, target: Target, number: int) -> None:
        self.card, self.target, self.number = card, target, number
        kind = target.name.lower()
        self.regs: Any = getattr(card.regs, kind)[number]
        self.sgdma: Any = getattr(card.regs, f"{kind}_sgdma")[number]
        self.control = 0
        self.queue: deque[_Descriptor] = deque()  # fetched, and not begun
        self.waits_for_data = False
        identifier = spec.SUBSYSTEM << 20 | int(card.streams) << 15 | number << 8 | _VERSION
        self.regs.identifier.write(identifier | target << 16)
        self.sgdma.identifier.write(identifier | (target + 4) << 16)
        self.regs.alignments.write(card.alignment << 16 | card.alignment << 8 | 64)

    # -- registers --

    def set_control(self, value: int) -> None:
        """Take what was written to the control register, in one of three ways."""
        self.regs.control.write(value)
        begins = value & ~self.control & 1
        self.control = value
        control = self.regs.control
        if control.non_inc_mode:
            self.card.complain("addresses that do not increment are not modelled")
        if begins:
            if self.regs.status.busy:
                self.card.complain(f"{self.target.name} {self.number} is started while it is busy")
            self.regs.status.write(0)
            self.regs.status.busy = True
            self.regs.completed_descriptor_count.write(0)
            self.queue.clear()
            self.waits_for_data = False
            address, adjacent = self.sgdma.descriptor_address.read(), self.sgdma.descriptor_adjacent.read()
            self.card.after(_LATENCY, lambda: self.fetch(address, adjacent & 0x3F))
        self.card.update_interrupts()

    def log(self, **fields: int) -> None:
        """Set fields of the status, where the control register enables that: footnote of "H2C Channel Control"."""
        for name, value in fields.items():
            if getattr(self.regs.control, f"ie_{name}"):
                setattr(self.regs.status, name, value)

    def end(self, **fields: int) -> None:
        """Become idle."""
        self.log(**fields)
        if not self.regs.control.run:
            self.log(idle_stopped=True)
        self.regs.status.busy = False
        self.queue.clear()
        self.card.update_interrupts()

    # -- descriptors --

    def fetch(self, address: int, adjacent: int) -> None:
        """Fetch a block of descriptors, and begin the first."""
        size = (adjacent + 1) * spec.DESCRIPTOR_SIZE
        if address % spec.DESCRIPTOR_SIZE:
            self.card.complain(f"a descriptor is at {address:#x}, which is no multiple of 32")
        if address // spec.PAGE != (address + size - 1) // spec.PAGE:
            self.card.complain(f"{adjacent + 1} adjacent descriptors at {address:#x} cross a multiple of 4096")
        try:
            block = self.card.memory.read(address, size)
        except TransferError:
            self.end(descr_error=_UNSUPPORTED_REQUEST)
            return
        self.queue.extend(_Descriptor(*one) for one in struct.iter_unpack("<IIQQQ", block))
        self.begin()

    def begin(self) -> None:
        """Begin the next descriptor, if the engine still runs."""
        if not self.regs.control.run:
            self.end()
            return
        descriptor = self.queue.popleft()
        if descriptor.control & 0xFFFF0000 != spec.DESCRIPTOR_MAGIC:
            self.end(magic_stopped=True)
        elif self.card.streams and self.target is Target.C2H:
            self.receive(descriptor)
        else:
            seconds = _LATENCY + (descriptor.length & spec.LARGEST_LENGTH) / _SPEED
            self.card.after(seconds, lambda: self.finish(descriptor))

    def finish(self, descriptor: _Descriptor) -> None:
        """Move the data of a descriptor, and complete it."""
        try:
            self.move(descriptor)
        except _Fault as fault:
            self.end(**fault.fields)
        else:
            self.complete(descriptor)

    def move(self, descriptor: _Descriptor) -> None:
        """Move the data."""
        card, length = self.card, descriptor.length & spec.LARGEST_LENGTH
        if length % card.alignment or descriptor.source % card.alignment or descriptor.destination % card.alignment:
            raise _Fault(align_mismatch=True)
        if self.target is Target.H2C:
            try:
                data = card.memory.read(descriptor.source, length)
            except TransferError:
                raise _Fault(read_error=_UNSUPPORTED_REQUEST) from None
            if card.streams:
                card.take(self.number, data, end_of_packet=DescriptorControl.END_OF_PACKET in descriptor.flags)
            elif error := card.axi_error(descriptor.destination, length):
                raise _Fault(write_error=error)
            else:
                card.axi[descriptor.destination : descriptor.destination + length] = data
        else:
            if error := card.axi_error(descriptor.source, length):
                raise _Fault(read_error=error)
            # A write that fails is told to nobody, on PCI Express. The exception leaves the engine busy for ever.
            card.memory.write(descriptor.destination, memoryview(card.axi)[descriptor.source :][:length])

    def complete(self, descriptor: _Descriptor) -> None:
        """Count a descriptor, write the count back, and go on: section "Poll Mode"."""
        registers, flags = self.regs, descriptor.flags
        count = registers.completed_descriptor_count.read() + 1
        registers.completed_descriptor_count.write(count)
        control = registers.control
        if DescriptorControl.COMPLETED in flags:
            self.log(descriptor_completed=True)
            if control.pollmode_wb_enable and control.ie_descriptor_completed:
                with suppress(TransferError):  # nobody is told
                    self.card.memory.write(
                        registers.poll_mode_write_back.read(), struct.pack("<I", count & spec.WRITE_BACK_COUNT)
                    )
        if DescriptorControl.STOP in flags:
            self.end(descriptor_stopped=True)
            return
        self.card.update_interrupts()
        if self.queue:
            self.begin()
        else:
            self.card.after(_LATENCY, lambda: self.fetch(descriptor.following, descriptor.adjacent))

    # -- C2H streams --

    def receive(self, descriptor: _Descriptor) -> None:
        """Fill a descriptor from the stream, as soon as there is data: section "DMA C2H Stream"."""
        packets = self.card.packets[self.number]
        if not packets:
            self.waits_for_data = True
            self.queue.appendleft(descriptor)
            return
        packet, ends = packets.popleft()
        length = descriptor.length & spec.LARGEST_LENGTH
        if len(packet) > length:
            packets.appendleft((packet[length:], ends))
            packet, ends = packet[:length], False
        self.card.memory.write(descriptor.destination, packet)
        if not self.regs.control.stream_wb_disable:
            status = spec.STREAM_MAGIC | (spec.STREAM_END_OF_PACKET if ends else 0)
            self.card.memory.write(descriptor.source, struct.pack("<II", status, len(packet)))
        self.complete(descriptor)

    def resume(self) -> None:
        """Go on with the descriptor that waited for data, unless that is gone."""
        if self.queue:
            self.receive(self.queue.popleft())


def _changing(block: str, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return the hooks of the two registers that set and clear bits of another: then the hook of that is called."""

    def change(card: XdmaCard, channel: tuple[int, ...], bits: int, *, clear: bool) -> None:
        registers = getattr(card.regs, block)
        register = getattr(registers[channel[0]] if channel else registers, name)
        value = register.read() & ~bits if clear else register.read() | bits
        register.write(value)
        getattr(card, f"on_write_{block}_{name}")(*channel, value)

    def set_bits(card: XdmaCard, *arguments: int) -> None:
        change(card, arguments[:-1], arguments[-1], clear=False)

    def clear_bits(card: XdmaCard, *arguments: int) -> None:
        change(card, arguments[:-1], arguments[-1], clear=True)

    return set_bits, clear_bits


class XdmaCard(Card):
    """The card: the engine in BAR 1, and memory behind it.

    BAR 0 is the user's logic. Here it is memory; a card that derives from this one gives it registers, and raises its
    interrupts by `request_user_interrupts`.

    Attributes:
        channels: of each direction, 1 to 4.
        streams: whether the channels are AXI4-Streams; each packet that comes then goes back by the C2H channel of the
            same number. Else they are memory mapped, and `axi` is behind them.
        alignment: bytes that addresses and sizes are multiples of.
        axi_size: bytes of memory behind the engine, from address 0 on.
        axi: that memory. It outlives a reset.
        slave_errors: addresses of it that answer with an error.
        packets: what waits for each C2H stream: bytes, and whether the packet ends with them.
    """

    vendor, device, class_code = 0x10EE, 0x7024, 0x058000
    bars: ClassVar = {0: 4096, 1: 1 << 16}
    registers: ClassVar = {1: XdmaRegisters}
    reset_values: ClassVar = {
        "config.pcie_max_payload": 1,
        "config.pcie_max_read_request": 2,
        "config.pcie_data_width": 1,
        "irq.identifier": spec.SUBSYSTEM << 20 | Target.IRQ << 16 | _VERSION,
        "config.identifier": spec.SUBSYSTEM << 20 | Target.CONFIG << 16 | _VERSION,
        "sgdma_common.identifier": spec.SUBSYSTEM << 20 | Target.SGDMA_COMMON << 16 | _VERSION,
    }
    msix_vectors = 32
    channels: ClassVar[int] = 1
    streams: ClassVar[bool] = False
    alignment: ClassVar[int] = 1
    axi_size: ClassVar[int] = 16 << 20

    def __init__(self) -> None:
        self.axi = bytearray(self.axi_size)
        self.slave_errors: set[int] = set()
        super().__init__()

    def reset(self) -> None:
        """Lose power; the memory behind the engine stays."""
        super().reset()
        self._requests: set[tuple[str, int]] = set()  # interrupts that are requested, by kind and number
        self._user_request = 0  # usr_irq_req
        self.packets: list[deque[tuple[bytes, bool]]] = [deque() for _ in range(self.channels)]
        self._coming = [b""] * self.channels  # the part of a packet that came by each H2C stream
        self._h2c = [_Engine(self, Target.H2C, number) for number in range(self.channels)]
        self._c2h = [_Engine(self, Target.C2H, number) for number in range(self.channels)]

    # -- what is behind the engine --

    def axi_error(self, address: int, size: int) -> int:
        """Return how the card's bus answers an access: 0, a decode error or a slave error, as the status has it."""
        if address + size > self.axi_size:
            return _DECODE_ERROR
        return _SLAVE_ERROR if any(address <= one < address + size for one in self.slave_errors) else 0

    def take(self, channel: int, data: bytes, *, end_of_packet: bool) -> None:
        """Take data from an H2C stream, and send whole packets back."""
        self._coming[channel] += data
        if end_of_packet:
            packet, self._coming[channel] = self._coming[channel], b""
            self.feed(channel, packet)

    def feed(self, channel: int, packet: bytes) -> None:
        """Let a packet come by a C2H stream."""
        self.packets[channel].append((packet, True))
        engine = self._c2h[channel]
        if engine.waits_for_data:
            engine.waits_for_data = False
            self.after(_LATENCY + len(packet) / _SPEED, engine.resume)

    # -- registers --

    def on_write_h2c_control(self, channel: int, value: int) -> None:
        """Start or stop a channel."""
        self._control(self._h2c, channel, value)

    def on_write_c2h_control(self, channel: int, value: int) -> None:
        """Start or stop a channel."""
        self._control(self._c2h, channel, value)

    def _control(self, engines: list[_Engine], channel: int, value: int) -> None:
        if channel >= len(engines):
            self.complain(f"a channel {channel} is used, and there are {len(engines)} of each direction")
        engines[channel].set_control(value)

    on_write_h2c_control_w1s, on_write_h2c_control_w1c = _changing("h2c", "control")
    on_write_c2h_control_w1s, on_write_c2h_control_w1c = _changing("c2h", "control")

    def on_read_h2c_status_rc(self, channel: int) -> int:
        """Return the status, and clear it."""
        return self._clear_status(self.regs.h2c[channel])

    def on_read_c2h_status_rc(self, channel: int) -> int:
        """Return the status, and clear it."""
        return self._clear_status(self.regs.c2h[channel])

    def _clear_status(self, channel: Any) -> int:
        status: int = channel.status.read()
        channel.status.write(status & 1)
        self.update_interrupts()
        return status

    def on_write_sgdma_common_credit_mode_enable(self, value: int) -> None:
        """Refuse what is not here."""
        if value:
            self.complain("credits of descriptors are not modelled")

    on_write_sgdma_common_credit_mode_enable_w1s = on_write_sgdma_common_credit_mode_enable

    # -- interrupts --

    def request_user_interrupts(self, bits: int) -> None:
        """Set usr_irq_req: a bit for each interrupt, which stays until the driver has taken its cause away."""
        self._user_request = bits & (1 << spec.USER_INTERRUPTS) - 1
        self.update_interrupts()

    def update_interrupts(self, *_: int) -> None:
        """Let the IRQ block say what is requested, and send a message for each request that is new."""
        irq = self.regs.irq
        channels = sum(
            bool(engine.regs.status.read() & engine.regs.interrupt_enable.read() & ~1) << bit
            for bit, engine in enumerate([*self._h2c, *self._c2h])
        )
        irq.channel_pending.write(channels)
        irq.user_pending.write(self._user_request)
        irq.channel_request.write(channels & irq.channel_enable.read())
        irq.user_request.write(self._user_request & irq.user_enable.read())
        now = {*_bits("channel", irq.channel_request.read()), *_bits("user", irq.user_request.read())}
        before, self._requests = self._requests, now
        for kind, number in sorted(before - now):
            vector = self._vector(kind, number)
            if vector not in {self._vector(*one) for one in now}:
                self.lower_interrupt(vector)
        for kind, number in sorted(now - before):
            self.raise_interrupt(self._vector(kind, number))

    on_write_irq_user_enable = update_interrupts
    on_write_irq_channel_enable = update_interrupts
    on_write_h2c_status = update_interrupts
    on_write_c2h_status = update_interrupts
    on_write_h2c_interrupt_enable = update_interrupts
    on_write_c2h_interrupt_enable = update_interrupts
    on_write_irq_user_enable_w1s, on_write_irq_user_enable_w1c = _changing("irq", "user_enable")
    on_write_irq_channel_enable_w1s, on_write_irq_channel_enable_w1c = _changing("irq", "channel_enable")
    on_write_h2c_interrupt_enable_w1s, on_write_h2c_interrupt_enable_w1c = _changing("h2c", "interrupt_enable")
    on_write_c2h_interrupt_enable_w1s, on_write_c2h_interrupt_enable_w1c = _changing("c2h", "interrupt_enable")

    def _vector(self, kind: str, number: int) -> int:
        """Return the vector number that a source has."""
        registers = getattr(self.regs.irq, f"{kind}_vector")
        vector: int = registers[number // 4].vector[number % 4]
        return vector


def _bits(kind: str, bits: int) -> Iterator[tuple[str, int]]:
    return ((kind, number) for number in range(bits.bit_length()) if bits >> number & 1)
