# SPDX-License-Identifier: MIT
"""A driver for the DMA engine that Xilinx calls XDMA: ``with Xdma.open() as card: card.write(0, data)``.

The data sheet is PG195, "DMA/Bridge Subsystem for PCI Express"; "section" is one of it. No board was tried: the driver
was written from the guide, and is tested on the model in `pyuio_drivers.models.xdma`.

`pyuio_drivers.xdma_channel` has the channels, `pyuio_drivers.xdma_engine` what runs descriptors,
`pyuio_drivers.xdma_registers` the registers, `pyuio_drivers.xdma_errors` the errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyuio_drivers.xdma_channel import C2hChannel, Channels, H2cChannel
from pyuio_drivers.xdma_engine import Completion, Engine, Place, stop
from pyuio_drivers.xdma_errors import XdmaError
from pyuio_drivers.xdma_registers import (
    SMALLEST_BAR,
    SUBSYSTEM,
    USER_INTERRUPTS,
    Identifier,
    Target,
    XdmaRegisters,
)

from pyuio import Device, Driver, UnsupportedDeviceError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Xdma(Driver):
    """A card with the engine, on an open device.

    A bitstream with ids of its own, and with registers of its own in the user BAR, gets a driver that derives from
    this one: docs/xdma.md.

    Args:
        device: an open device.
        completion: how the driver learns that a transfer is done: a `Completion`, or its text.
        user_interrupts: how many of the user's logic (usr_irq_req) are used, from the first on, 0 to 16. They, and the
            channels' interrupts, are messages.
        timeout: seconds for each transfer that does not say it, above 0.

    Attributes:
        registers: the engine's registers by name.
        config_bar: the BAR in which they are.
        user_bar: the BAR of the user's logic (AXI4-Lite), the one before; None if there is none.
        h2c: the channels to the card.
        c2h: the channels from the card.
        user_interrupts: the interrupts of the user's logic, enabled.

    Raises:
        UnsupportedDeviceError: there is no such engine in any BAR, or the device is of another kind.
        XdmaError: a channel is busy with a transfer that a driver before this one left.
        InterruptUnavailableError: the card, or the kernel driver that hands it on, does not have so many messages.
        DmaMemoryError, DmaUnavailableError: there is no memory for descriptors, a page for each channel.
        DeviceRemovedError: the card is gone.
        ValueError: an argument is out of range.
    """

    # The ids that the IP has unless the design says another: family, 0, generation, lanes.
    ids = tuple(f"10ee:{family}0{generation}{lanes}" for family in "789" for generation in "1234" for lanes in "1248f")

    def __init__(
        self,
        device: Device,
        *,
        completion: Completion | str = Completion.WRITE_BACK,
        user_interrupts: int = 0,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(device)
        completion = Completion(completion)
        if not 0 <= user_interrupts <= USER_INTERRUPTS:
            raise ValueError(f"the engine has 0 to {USER_INTERRUPTS} user interrupts, not {user_interrupts}")
        if not timeout > 0:
            raise ValueError(f"a timeout is above 0 seconds, not {timeout}")
        self.registers, self.config_bar, self.user_bar = self._find_engine()
        registers = self.registers
        self._places = [*_present(registers, Target.H2C), *_present(registers, Target.C2H)]
        if not self._places:
            raise UnsupportedDeviceError(f"{device.name}: BAR {self.config_bar} is an XDMA engine without channels")
        # A driver that was killed may have left a transfer. It ends before there is memory for others, which turns bus
        # mastering on.
        if busy := self._quiet_channels():
            raise XdmaError(
                f"{device.name}: {', '.join(busy)} is busy with a transfer that an earlier driver left, and does not "
                "stop: reset the card (pyuio reset, Device.reset)"
            )
        own = len(self._places) if completion is Completion.INTERRUPT else 0
        if own + user_interrupts:
            self.interrupts = device.vectors(own + user_interrupts)
        self.user_interrupts = self.interrupts[own:]
        engines = [
            Engine(device, place, completion, self.interrupts[index] if own else None)
            for index, place in enumerate(self._places)
        ]
        self.h2c = Channels(
            (H2cChannel(engine, timeout) for engine in engines if engine.target is Target.H2C),
            f"{device.name}: H2C channels",
        )
        self.c2h = Channels(
            (C2hChannel(engine, timeout) for engine in engines if engine.target is Target.C2H),
            f"{device.name}: C2H channels",
        )
        self._enable_interrupts(own, user_interrupts)

    # -- opening --

    def _find_engine(self) -> tuple[XdmaRegisters, int, int | None]:
        """Return the engine's registers, their BAR, and the user's.

        The order of BARs is user, engine, bypass, and the first and the last may not be there (identify_bars of
        Xilinx's libxdma.c). So the second is looked at before the first, whose registers a look may change. A driver
        that names the engine's BAR in `register_maps` is believed.
        """
        bars = [bar for bar in self.device.config.bars() if bar.kind == "memory"]
        named = [bar for bar in bars if issubclass(self.register_maps.get(bar.index, object), XdmaRegisters)]
        seen = []
        for bar in named or [*bars[1:2], *bars[:1], *bars[2:]]:
            if bar.size < SMALLEST_BAR:
                seen.append(f"BAR {bar.index} has {bar.size:#x} bytes")
                continue
            registers = XdmaRegisters(self.device.bar(bar.index, width=32))
            irq, config = registers.irq.identifier.snapshot(), registers.config.identifier.snapshot()
            if _is(irq, Target.IRQ) and _is(config, Target.CONFIG):
                place = bars.index(bar)
                return registers, bar.index, bars[place - 1].index if place else None
            seen.append(f"BAR {bar.index} has {irq.read():#x} and {config.read():#x}")
        raise UnsupportedDeviceError(
            f"{self.device.name} has no XDMA engine, whose BAR has 0x1fc2.... at 0x2000 and 0x1fc3.... at 0x3000: "
            + ("; ".join(seen) or "it has no BAR in memory")
        )

    def _enable_interrupts(self, channels: int, user: int) -> None:
        """Give each source a vector of its own, channels first: section "IRQ Block Channel Vector Number (0xA0)"."""
        irq = self.registers.irq
        for first in range(0, channels, 4):
            irq.channel_vector[first // 4].write(_vectors(first, channels - first))
        for first in range(0, user, 4):
            irq.user_vector[first // 4].write(_vectors(channels + first, user - first))
        irq.channel_enable.write((1 << channels) - 1)
        irq.user_enable.write((1 << user) - 1)

    # -- the end --

    def _quiet_channels(self) -> list[str]:
        """Disable all interrupts, stop all channels, and return the names of those that do not stop."""
        irq = self.registers.irq
        irq.channel_enable.write(0)
        irq.user_enable.write(0)
        for place in self._places:
            place.registers.interrupt_enable.write(0)
        return [f"{place.target.name} {place.number}" for place in self._places if not stop(place.registers)]

    def quiet(self) -> None:
        """Disable all interrupts, and stop all channels.

        A C2H stream stops only when data comes. Where it does not, closing the device ends bus mastering, so that the
        data goes nowhere. The next driver refuses to start until the card is reset.
        """
        self._quiet_channels()

    # -- data --

    def write(self, card_address: int, data: Buffer, *, channel: int = 0, timeout: float | None = None) -> int:
        """Write to the card by an H2C channel: `H2cChannel.write`. ChannelNotFoundError: there is no such channel."""
        return self.h2c[channel].write(card_address, data, timeout=timeout)

    def read(self, card_address: int, count: int, *, channel: int = 0, timeout: float | None = None) -> bytes:
        """Read from the card by a C2H channel: `C2hChannel.read`. ChannelNotFoundError: there is no such channel."""
        return self.c2h[channel].read(card_address, count, timeout=timeout)

    def readinto(self, card_address: int, buffer: Buffer, *, channel: int = 0, timeout: float | None = None) -> int:
        """Read from the card into a buffer: `C2hChannel.readinto`. ChannelNotFoundError: there is no such channel."""
        return self.c2h[channel].readinto(card_address, buffer, timeout=timeout)

    def user_pending(self) -> int:
        """Return a bit for each user interrupt whose cause the user's logic still has.

        Section "IRQ Block User Interrupt Pending (0x48)".
        """
        return self.registers.irq.user_pending.read()


def _is(identifier: Identifier, target: Target) -> bool:
    return identifier.subsystem == SUBSYSTEM and identifier.target == target


def _present(registers: XdmaRegisters, target: Target) -> Iterator[Place]:
    """Yield the channels of one direction that the bitstream has: their numbers are without gaps."""
    all_of_it = (registers.h2c, registers.h2c_sgdma) if target is Target.H2C else (registers.c2h, registers.c2h_sgdma)
    for number, (channel, sgdma) in enumerate(zip(*all_of_it, strict=True)):
        identifier = channel.identifier.snapshot()
        if not _is(identifier, target) or identifier.channel != number:
            return
        yield Place(target, number, channel, sgdma)


def _vectors(first: int, count: int) -> int:
    """Return the register of up to four vector numbers that has these, from `first` on."""
    return sum((first + index) << 8 * index for index in range(min(4, count)))
