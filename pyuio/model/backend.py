# SPDX-License-Identifier: MIT
"""A card in this process as a way to a device: `open` gives a `pyuio.Device` on it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import WeakSet

from pyuio._native._access import Presence
from pyuio.device import Device
from pyuio.errors import (
    DeviceBusyError,
    DeviceRemovedError,
    InterruptUnavailableError,
    MappingError,
    ResetUnavailableError,
)
from pyuio.interrupt.interrupt import Interrupt
from pyuio.model.card import Card
from pyuio.model.clock import clock
from pyuio.model.config_space import ModelConfigSpace
from pyuio.model.interrupt import ModelInterrupt
from pyuio.model.machine import Machine
from pyuio.model.region import ModelRegion, TracedModelRegion
from pyuio.pci.discovery import FoundDevice
from pyuio.region.bar_mapping import checked_write_combining, find_bar
from pyuio.region.ports import PortRegion

if TYPE_CHECKING:
    from pathlib import Path

    from pyuio._native._access import Endian
    from pyuio.dma.memory_source import MemorySource
    from pyuio.kernel.uio import UioMap, UioNode
    from pyuio.pci.config_space import ConfigSpace
    from pyuio.process.timeouts import TimeSource
    from pyuio.region import Region


def open(card: Card | type[Card]) -> Device:
    """Open a card in this process as a device. No kernel, no root, no QEMU; time is virtual (`pyuio.model.clock`).

    The device is like that of `pyuio.open`: BARs, configuration space, interrupts, memory for DMA, removal. A card
    keeps its state when the device is closed, and can be opened again.

    Args:
        card: a card, or a class of cards, of which one is made.

    Raises:
        TypeError: `card` is no card.
        DeviceBusyError: it is open already.
        DeviceRemovedError: it was pulled out.
    """
    if isinstance(card, type) and issubclass(card, Card):
        card = card()
    if not isinstance(card, Card):
        raise TypeError(f"pyuio.model.open takes a Card, or a class that derives from it, not {card!r}")
    if not hasattr(card, "function"):
        raise TypeError(f"{type(card).__name__}.__init__ does not call super().__init__(), so it makes no card")
    machine = card.function.host or Machine(card)
    if not isinstance(machine, Machine):
        raise DeviceBusyError(errno.EBUSY, f"{card.name} is plugged into {machine!r}; make another card")
    if machine.removed:
        raise DeviceRemovedError(errno.ENODEV, f"{card.name} was pulled out; make another card")
    found = FoundDevice(
        directory=machine.directory,
        address=machine.address,
        ids=f"{card.vendor:04x}:{card.device:04x}",
        class_code=card.class_code,
        driver="model",
        uio=None,
    )
    device = Device(found, opener=partial(ModelBackend, machine))
    machine.dma = device.dma
    machine.dma.on_buffer = getattr(card, "note_buffer", None)
    return device


class ModelBackend:
    """A card in this process, open; see `pyuio.backend.backend.Backend`.

    Args:
        machine: what the card is plugged into.
        found: what stands for it in messages.
        bind: not used.
        close_parts: closes what `pyuio.Device` made from this backend; `close` calls it first.

    Raises:
        DeviceBusyError: the card is open already.
    """

    node: UioNode | None = None
    driver: str | None = "model"
    config: ConfigSpace | None
    memory: MemorySource[Any]
    clock: TimeSource = clock

    def __init__(
        self, machine: Machine, found: FoundDevice, *, bind: bool | str, close_parts: Callable[[], object]
    ) -> None:
        self._machine = machine
        self._function = machine.card.function
        self.name = f"{machine.card.name} at {found.address}"
        self.directory: Path = found.directory
        self.presence = Presence(self.name)
        self.memory = machine.source()
        self._interrupts: tuple[ModelInterrupt, ...] = ()
        self._regions: WeakSet[ModelRegion] = WeakSet()
        with ExitStack() as stack:
            with clock.lock:
                if machine.is_open:
                    raise DeviceBusyError(errno.EBUSY, f"{self.name} is open already; close it first")
                machine.is_open = True
            stack.callback(self._leave)
            self._request = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            stack.callback(os.close, self._request)
            stack.callback(self.presence.close)
            self.presence.ask_request(self._request)
            self.config = self._config = ModelConfigSpace(self._function, self.directory, self.presence)
            stack.callback(self._config.close)
            machine.on_removal = self._let_go
            stack.callback(self._close_interrupts)
            stack.callback(close_parts)
            self._resources = stack.pop_all()

    def _leave(self) -> None:
        self._machine.on_line = self._machine.on_message = self._machine.on_removal = self._machine.dma = None
        self._machine.is_open = False

    def _let_go(self) -> None:
        os.eventfd_write(self._request, 1)
        self.presence.note_gone()
        for interrupt in self._interrupts:
            interrupt.let_go()

    # ---- Interrupts ----

    @property
    def interrupt(self) -> Interrupt:
        """The INTx interrupt, or the first of `vectors`; see `Device.interrupt`."""
        if enabled := self._interrupts:  # once: a signal handler may close the device between two looks
            return enabled[0]
        self.presence.require()
        machine, faults = self._machine, self._machine.card.faults
        if not machine.card.interrupt_pin:
            return self.vectors(1)[0]
        made = ModelInterrupt(
            self._request,
            self.name,
            self.presence,
            "INTx",
            asserted=lambda: machine.asserted,
            goes_wrong=lambda: bool(faults.happened),
        )
        self._interrupts = (made,)
        machine.on_line = made.look_at_line
        self._note_interrupts()
        return made

    def _note_interrupts(self) -> None:
        note = getattr(self._machine.card, "note_interrupts", None)
        if note is not None:
            note()

    @property
    def most_vectors(self) -> int:
        """How many messages the card has, of the kind of which it has more."""
        return max(self._function.msix, self._function.msi)

    def vectors(self, count: int) -> tuple[Interrupt, ...]:
        """Enable MSI-X, or MSI, with `count` interrupts; see `Device.vectors`."""
        if enabled := self._interrupts:
            has = f"{len(enabled)} {enabled[0].kind}"
            reason = f"{self.name}: its interrupts are enabled already ({has}); ask for vectors once, before others"
            raise InterruptUnavailableError(errno.EBUSY, reason)
        self.presence.require()
        offered = {"MSI-X": self._function.msix, "MSI": self._function.msi}
        kind = next((kind for kind, most in offered.items() if most >= count), None)
        if kind is None:
            has = " and ".join(f"{most} {kind}" for kind, most in offered.items() if most) or "none"
            raise InterruptUnavailableError(errno.ENXIO, f"{self.name} has no {count} message interrupts; it has {has}")
        made = tuple(ModelInterrupt(self._request, self.name, self.presence, kind) for _ in range(count))
        self._interrupts = made

        def deliver(vector: int) -> None:
            if vector < len(made):
                made[vector].come()

        with clock.lock:
            self._machine.on_message = deliver
            self._function.enable_messages(kind, [self._machine.message(vector) for vector in range(count)])
        self._note_interrupts()
        return made

    def _close_interrupts(self) -> None:
        for interrupt in self._interrupts:
            interrupt.close()
        with clock.lock:
            self._machine.on_line = self._machine.on_message = None
            self._interrupts = ()
            self._function.disable_messages()

    # ---- Registers ----

    def map_bar(
        self,
        index: int,
        *,
        write_combining: bool,
        endian: Endian,
        width: int | None,
        region_classes: tuple[type[Region], type[PortRegion]],
    ) -> Region | PortRegion:
        """Return a new region for a BAR."""
        bar = find_bar(self._config.bars(), index, self.name)
        name = f"BAR {index} of {self.name}"
        if write_combining:
            checked_write_combining(bar, name)
        widest = 32 if bar.kind == "io" else 64
        if width not in (None, 8, 16, 32, 64):
            raise ValueError(f"{name}: the widest access has 8, 16, 32 or 64 bits, not {width!r}")
        kind = ModelRegion if region_classes[1] is PortRegion else TracedModelRegion
        region = kind(
            self._function,
            index,
            address=bar.address,
            name=name,
            endian=endian,
            width=widest if width is None else min(width, widest),
            presence=self.presence,
        )
        self._regions.add(region)
        return region

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """(): a card has BARs only."""
        return ()

    def map_region(
        self, item: UioMap, *, size: SupportsIndex | None, endian: Endian, width: int | None, region_class: type[Region]
    ) -> Region:
        """Raise MappingError: there are no maps."""
        raise MappingError(errno.EOPNOTSUPP, f"{self.name} has no {item}: a card has BARs only")

    # ---- Reset, and the end ----

    def reset(self, method: str | None) -> None:
        """Reset the card, and restore its configuration space, as the kernel does; see `Device.reset`."""
        if method not in (None, "flr"):
            raise ResetUnavailableError(errno.EOPNOTSUPP, f"{self.name} has no reset by {method!r}: it has flr")
        with clock.lock:
            state = self._function.state()
            self._machine.card.reset()
            self._function.restore(state)

    def close(self) -> None:
        """Close everything; after an exception, a new call continues."""
        self._resources.close()

    def forget(self) -> None:
        """In a forked child: close everything there; the child has a card of its own, in the state of the fork."""
        self._resources.pop_all()
        for interrupt in self._interrupts:
            interrupt.forget()
        for region in list(self._regions):
            region.forget()
        self._config.forget()
        self.presence.close()
        os.close(self._request)
        self._leave()
