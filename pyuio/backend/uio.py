# SPDX-License-Identifier: MIT
"""A device through a UIO driver: ``/dev/uioN``; and, for a PCI function, configuration space and BARs through sysfs.

Closing reverses the order of opening. It masks the interrupt before it closes the configuration space, which the
masking uses. It gives the device back when nothing of it is open any more. It releases the lock that keeps others out
last.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from pyuio._native._access import Presence
from pyuio.backend.open_files import OpenFiles
from pyuio.claim.claim import chosen_node, claim
from pyuio.dma.physical_memory import PhysicalMemory
from pyuio.errors import InterruptUnavailableError, PermissionDeniedError, PyuioError, ResetUnavailableError
from pyuio.interrupt.interrupt import Interrupt, open_uio_interrupt
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.preempt_rt import refuse_what_freezes
from pyuio.kernel.uio import UioMap, UioNode
from pyuio.pci.assigned_interrupt import assigned_interrupt
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.reset import by_method, failed
from pyuio.process.signals import postponed_signals
from pyuio.region.bar_mapping import find_bar, map_bar
from pyuio.region.map_mapping import map_region

if TYPE_CHECKING:
    from pyuio._native._access import Endian
    from pyuio.dma.memory_source import MemorySource
    from pyuio.pci.discovery import FoundDevice
    from pyuio.process.timeouts import TimeSource
    from pyuio.region import PortRegion, Region

_log = logging.getLogger("pyuio.device")


class UioBackend:
    """A device that a UIO driver has, open; see `pyuio.backend.backend.Backend`.

    Args:
        found: the device.
        bind: True: bind ``uio_pci_generic`` if no UIO driver has it; or the name of the driver to bind.
        close_parts: closes what `pyuio.Device` made from this backend; `close` calls it first.

    Raises:
        PyuioError: as `pyuio.open`.
    """

    node: UioNode
    config: ConfigSpace | None
    memory: MemorySource[Any]
    clock: TimeSource = time

    def __init__(self, found: FoundDevice, *, bind: bool | str, close_parts: Callable[[], object]) -> None:
        self.name = found.name
        self.directory: Path = found.directory
        self.presence = Presence(found.name)
        self.config = None
        self.memory = PhysicalMemory(found.name, found.directory)
        self._files = OpenFiles(found.name)
        self._of_other_nodes: list[Interrupt] = []
        self._resources = ExitStack()
        with ExitStack() as stack:
            stack.callback(self.presence.close)
            self._open(found, bind, stack)
            stack.callback(close_parts)
            stack.callback(_log.info, "%s: closing %s", self.name, self.node.name)
            stack.callback(self._abandon_if_gone)
            self._resources = stack.pop_all()
        _log.info("%s: opened as %s", self.name, self.node.name)

    def _open(self, found: FoundDevice, bind: bool | str, stack: ExitStack) -> None:
        one_of_several = len(found.nodes) > 1  # each of them is opened by itself
        if found.address is not None:
            self.config = ConfigSpace(self.directory, self.presence)
            stack.callback(self.config.command_register.close)
            stack.callback(self.config.close)
            self.presence.ask_config(self.config.fileno())
            self._files.lock_function(self.directory, stack, shared=one_of_several)
        claimed = claim(found, bind)
        if claimed.binding is not None:
            stack.callback(claimed.binding.undo)
        self.driver = claimed.driver
        refuse_what_freezes(self.name, claimed.driver)
        self.node = chosen_node(found, claimed.nodes)
        self._nodes = claimed.nodes
        self._device = device = self._files.keep(self.node.open(), stack)
        attribute = self.node.open_attribute()
        try:
            self.presence.ask_node(attribute)
        finally:
            os.close(attribute)
        self._files.lock(device, stack)  # also for a device without a file that `lock_function` can lock
        try:
            self._interrupt: Interrupt | PyuioError = open_uio_interrupt(
                self.node, device, self.config, self.name, self.presence, self._interrupt_kind()
            )
            stack.callback(self._interrupt.close)
        except (InterruptUnavailableError, PermissionDeniedError) as error:
            # The rest of the device is useful without an interrupt.
            self._interrupt = error
            _log.info("%s: no interrupt: %s", self.name, error.strerror)

    def map_bar(
        self,
        index: int,
        *,
        write_combining: bool,
        endian: Endian,
        width: int | None,
        region_classes: tuple[type[Region], type[PortRegion]],
    ) -> Region | PortRegion:
        """Return a new region for a BAR, by ``resourceN``, or by ``/dev/uioN`` if the kernel driver claims the BAR."""
        bar = find_bar(self.config.bars() if self.config else (), index, self.name)
        return map_bar(
            bar,
            self.directory,
            self.name,
            nodes=(self.node,),
            write_combining=write_combining,
            endian=endian,
            width=width,
            region_classes=region_classes,
            presence=self.presence,
        )

    def _interrupt_kind(self) -> str | None:
        if self.config is None:
            return None
        return assigned_interrupt(self.directory, self.config.interrupt_pin).kind

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt; see `Device.interrupt`."""
        if isinstance(self._interrupt, Interrupt):
            return self._interrupt
        raise type(self._interrupt)(*self._interrupt.args)

    @property
    def most_vectors(self) -> int:
        """The number of its nodes, if it has several; else 1 if the interrupt is a message, and 0 if not."""
        if len(self._nodes) > 1:
            return len(self._nodes)
        return int(isinstance(self._interrupt, Interrupt) and self._interrupt.kind not in (None, "INTx"))

    def vectors(self, count: int) -> tuple[Interrupt, ...]:
        """Return the interrupt of each of its first nodes, or the only one if it is a message; see `Device.vectors`."""
        if len(self._nodes) > 1 and count <= len(self._nodes):
            return self._interrupts_of_nodes(self._nodes[:count])
        interrupt = self.interrupt
        if count == 1 and interrupt.kind not in (None, "INTx"):
            return (interrupt,)
        has = f"one interrupt{f', {interrupt.kind}' if interrupt.kind else ''}"
        if len(self._nodes) > 1:
            has = f"an interrupt for each of its {len(self._nodes)} nodes"
        reason = f"{self.name}: its kernel driver, {self.driver}, delivers {has}, not {count} message interrupts"
        advice = "" if self.config is None else f"; open it with bind='{VFIO_PCI}', which does"
        raise InterruptUnavailableError(errno.ENXIO, reason + advice)

    def _interrupts_of_nodes(self, nodes: tuple[UioNode, ...]) -> tuple[Interrupt, ...]:
        """Open the other nodes, and return the interrupts of all of them in their order."""
        if self._of_other_nodes:
            reason = f"{self.name}: the interrupts of its other nodes are open already; ask for vectors once"
            raise InterruptUnavailableError(errno.EBUSY, reason)
        found = {self.node.name: self.interrupt}
        with postponed_signals(), ExitStack() as stack:
            for node in nodes:
                if node.name == self.node.name:
                    continue
                file = self._files.keep(node.open(), stack)
                self._files.lock(file, stack)
                kind = found[self.node.name].kind
                made = open_uio_interrupt(node, file, self.config, f"{self.name} ({node.name})", self.presence, kind)
                stack.callback(made.close)
                found[node.name] = made
            self._of_other_nodes = [one for one in found.values() if one is not self._interrupt]
            self._resources.callback(stack.pop_all().close)
        return tuple(found[node.name] for node in nodes)

    def reset(self, method: str | None) -> None:
        """Reset the function by its attribute ``reset``; see `Device.reset`."""
        if self.config is None:
            raise ResetUnavailableError(
                errno.EOPNOTSUPP, f"{self.name} is not a PCI function: the kernel cannot reset it"
            )
        attribute = self.directory / "reset"
        # Ctrl-C amid this would leave the kernel with another order of methods.
        with postponed_signals(), by_method(self.directory, method, self.name):
            try:
                self.config.command_register.reset(attribute)
            except OSError as error:
                raise failed(error, self.name, attribute) from error

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """The maps of its node, by index; () if its driver offers none."""
        return self.node.maps

    def map_region(
        self, item: UioMap, *, size: SupportsIndex | None, endian: Endian, width: int | None, region_class: type[Region]
    ) -> Region:
        """Return a new region for one of `maps`, by ``/dev/uioN``."""
        return map_region(
            self.node,
            item,
            self.name,
            size=size,
            endian=endian,
            width=width,
            region_class=region_class,
            presence=self.presence,
            file=self._device,
        )

    def _abandon_if_gone(self) -> None:
        # After unbinding, another kernel driver may have the device, and its command register must not be changed.
        if self.config is not None and self.presence.is_gone():
            _log.info("%s: it was removed or unbound", self.name)
            self.config.abandon()

    def close(self) -> None:
        """Mask the interrupt, close everything, and give the device back; after an exception, a new call continues."""
        self._resources.close()

    def forget(self) -> None:
        """Close everything in a forked child, without touching the device, which belongs to the parent."""
        self._resources.pop_all()  # drop the callbacks: the parent runs them
        # First: while this process has the files open, the kernel does not end bus mastering if the parent is killed.
        if isinstance(self._interrupt, Interrupt):
            self._interrupt.forget()
        for interrupt in self._of_other_nodes:
            interrupt.forget()
        self._files.forget()
        self.presence.close()
        if self.config is not None:
            self.config.forget()
