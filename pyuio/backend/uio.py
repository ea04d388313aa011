# SPDX-License-Identifier: MIT
"""A device by a kernel driver of UIO: ``/dev/uioN``, and of a PCI function configuration space and BARs by sysfs.

What is opened is closed in reverse: the interrupt is masked before the configuration space, by which it is masked, is
closed; the device is given back when nothing of it is open any more; the lock that keeps others out goes last.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio._native._access import Presence
from pyuio.claim.claim import claim
from pyuio.errors import (
    DeviceBusyError,
    DriverNotBoundError,
    InterruptUnavailableError,
    PermissionDeniedError,
    PyuioError,
)
from pyuio.interrupt.interrupt import Interrupt, open_uio_interrupt
from pyuio.kernel.uio import UioNode
from pyuio.pci.config_space import ConfigSpace
from pyuio.region.bar_mapping import find_bar, map_bar

if TYPE_CHECKING:
    from pyuio._native._access import Endian
    from pyuio.pci.discovery import FoundDevice
    from pyuio.region import PortRegion, Region

_log = logging.getLogger("pyuio.device")


class UioBackend:
    """A device that a UIO driver has, open; see `pyuio.backend.backend.Backend`.

    Args:
        found: the device.
        bind: bind ``uio_pci_generic`` if no UIO driver has it.
        close_parts: closes what the device made of this; called first when it is closed.

    Raises:
        As `pyuio.open`.
    """

    node: UioNode
    config: ConfigSpace | None
    interrupt: Interrupt | PyuioError

    def __init__(self, found: FoundDevice, *, bind: bool, close_parts: Callable[[], object]) -> None:
        self.name = found.name
        self.directory: Path = found.directory
        self.presence = Presence(found.name)
        self.config = None
        self._files: list[int] = []  # its own, and open
        self._resources = ExitStack()
        with ExitStack() as stack:
            stack.callback(self.presence.close)
            self._open(found, bind, stack)
            stack.callback(close_parts)
            stack.callback(_log.info, "%s: closing %s", self.name, self.node.name)
            stack.callback(self._abandon_if_gone)
            self._resources = stack.pop_all()
        _log.info("%s: opened as %s", self.name, self.node.name)

    def _open(self, found: FoundDevice, bind: bool, stack: ExitStack) -> None:
        if found.address is not None:
            self.config = ConfigSpace(self.directory, self.presence)
            stack.callback(self.config.command_register.close)
            stack.callback(self.config.close)
            self.presence.ask_config(self.config.fileno())
            self._lock(self.config.fileno(), stack)
        claimed = claim(found, bind)
        if claimed.binding is not None:
            stack.callback(claimed.binding.undo)
        if claimed.node is None:
            raise DriverNotBoundError(errno.ENODEV, f"{self.name} is bound, but the kernel made no UIO node for it")
        self.node = claimed.node
        device = self._keep(self.node.open(), stack)
        attribute = self.node.open_attribute()
        try:
            self.presence.ask_node(attribute)
        finally:
            os.close(attribute)
        if self.config is None:
            self._lock(device, stack)
        try:
            self.interrupt = open_uio_interrupt(self.node, device, self.config, self.name, self.presence)
            stack.callback(self.interrupt.close)
        except (InterruptUnavailableError, PermissionDeniedError) as error:
            # The rest of the device is of use without it.
            self.interrupt = error
            _log.info("%s: no interrupt: %s", self.name, error.strerror)

    def _keep(self, file: int, stack: ExitStack) -> int:
        """Have a file closed when the stack is undone, and in a forked child."""
        self._files.append(file)
        stack.callback(self._close_file, file)
        return file

    def _close_file(self, file: int) -> None:
        self._files.remove(file)
        os.close(file)

    def _lock(self, file: int, stack: ExitStack) -> None:
        """Keep a second opener out until the stack is undone; the kernel ends the lock with the process, too."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            path = Path(f"/proc/self/fd/{file}").readlink()
            who = f"in this process or another; close it first (fuser {path} shows who has it)"
            raise DeviceBusyError(errno.EBUSY, f"{self.name} is open already, {who}") from error
        # Closing is not enough: the interrupt has duplicates, which a thread that is just leaving a wait keeps open.
        stack.callback(fcntl.flock, self._keep(os.dup(file), stack), fcntl.LOCK_UN)

    def map_bar(
        self,
        index: int,
        *,
        write_combining: bool,
        endian: Endian,
        kinds: tuple[type[Region], type[PortRegion]],
    ) -> Region | PortRegion:
        """Return a new region for a BAR, by ``resourceN``, or by ``/dev/uioN`` where the kernel driver keeps that."""
        bar = find_bar(self.config.bars() if self.config else (), index, self.name)
        return map_bar(
            bar,
            self.directory,
            self.name,
            node=self.node,
            write_combining=write_combining,
            endian=endian,
            kinds=kinds,
            presence=self.presence,
        )

    def _abandon_if_gone(self) -> None:
        # What was unbound may be another kernel driver's by now, whose command register is none of ours.
        if self.config is not None and self.presence.is_gone():
            _log.info("%s: it was removed, or unbound", self.name)
            self.config.abandon()

    def close(self) -> None:
        """Mask the interrupt, close everything, and give the device back; goes on where an exception broke it off."""
        self._resources.close()

    def forget(self) -> None:
        """In a forked child: close everything there, and touch nothing of the device, which is the parent's."""
        self._resources.pop_all()  # and let nobody undo it
        # First what keeps the kernel from ending bus mastering when the parent is killed.
        if isinstance(self.interrupt, Interrupt):
            self.interrupt.forget()
        while self._files:
            self._close_file(self._files[0])
        self.presence.close()
        if self.config is not None:
            self.config.forget()
