# SPDX-License-Identifier: MIT
"""A device through a UIO driver: ``/dev/uioN``; and, for a PCI function, configuration space and BARs through sysfs.

Closing reverses the order of opening. It masks the interrupt before it closes the configuration space, which the
masking uses. It gives the device back when nothing of it is open any more. It releases the lock that keeps others out
last.
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
from pyuio.claim.claim import chosen_node, claim
from pyuio.errors import (
    DeviceBusyError,
    InterruptUnavailableError,
    PermissionDeniedError,
    PyuioError,
)
from pyuio.interrupt.interrupt import Interrupt, open_uio_interrupt
from pyuio.kernel.preempt_rt import refuse_what_freezes
from pyuio.kernel.sysfs import translated
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
        close_parts: closes what `pyuio.Device` made from this backend; `close` calls it first.

    Raises:
        PyuioError: as `pyuio.open`.
    """

    node: UioNode
    config: ConfigSpace | None
    interrupt: Interrupt | PyuioError

    def __init__(self, found: FoundDevice, *, bind: bool, close_parts: Callable[[], object]) -> None:
        self.name = found.name
        self.directory: Path = found.directory
        self.presence = Presence(found.name)
        self.config = None
        self._files: list[int] = []  # open files that belong to this object
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
        one_of_several = len(found.nodes) > 1  # each of them is opened by itself
        if found.address is not None:
            self.config = ConfigSpace(self.directory, self.presence)
            stack.callback(self.config.command_register.close)
            stack.callback(self.config.close)
            self.presence.ask_config(self.config.fileno())
            self._lock(self._file_to_lock(stack), stack, shared=one_of_several)
        claimed = claim(found, bind)
        if claimed.binding is not None:
            stack.callback(claimed.binding.undo)
        refuse_what_freezes(self.name, claimed.driver)
        self.node = chosen_node(found, claimed.nodes)
        device = self._keep(self.node.open(), stack)
        attribute = self.node.open_attribute()
        try:
            self.presence.ask_node(attribute)
        finally:
            os.close(attribute)
        if self.config is None or one_of_several:
            self._lock(device, stack)
        try:
            self.interrupt = open_uio_interrupt(self.node, device, self.config, self.name, self.presence)
            stack.callback(self.interrupt.close)
        except (InterruptUnavailableError, PermissionDeniedError) as error:
            # The rest of the device is useful without an interrupt.
            self.interrupt = error
            _log.info("%s: no interrupt: %s", self.name, error.strerror)

    def _keep(self, file: int, stack: ExitStack) -> int:
        """Register a file to be closed when `stack` closes, and in a forked child."""
        self._files.append(file)
        stack.callback(self._close_file, file)
        return file

    def _close_file(self, file: int) -> None:
        self._files.remove(file)
        os.close(file)

    def _file_to_lock(self, stack: ExitStack) -> int:
        """Return the descriptor of a file of the function that only those can open who may drive it.

        Anybody may lock a file that he can read, such as ``config``. So it is ``resourceN``, unless there is none.
        Opening that has no effect. Opening the node a second time would: when ``uio_pci_generic`` closes, it ends bus
        mastering, whoever needs it (``release`` in ``drivers/uio/uio_pci_generic.c``).
        """
        assert self.config is not None
        path = min(self.directory.glob("resource[0-5]"), default=None)
        if path is None:
            return self.config.fileno()
        try:
            return self._keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC), stack)
        except PermissionError:  # then nor may this user open the node, which says so
            return self.config.fileno()
        except OSError as error:
            raise translated(error, f"opening {path}") from error

    def _lock(self, file: int, stack: ExitStack, *, shared: bool = False) -> None:
        """Keep a second opener out until `stack` closes; the kernel also ends the lock when the process ends.

        Args:
            file: what is locked.
            stack: unlocks it.
            shared: admit others that lock it shared, too.
        """
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            path = Path(f"/proc/self/fd/{file}").readlink()
            who = f"in this process or another; close it first (fuser {path} shows who has it)"
            raise DeviceBusyError(errno.EBUSY, f"{self.name} is open already, {who}") from error
        # Unlock explicitly: closing is not enough, because a thread that is leaving a wait still holds a duplicate.
        stack.callback(fcntl.flock, self._keep(os.dup(file), stack), fcntl.LOCK_UN)

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
        if isinstance(self.interrupt, Interrupt):
            self.interrupt.forget()
        while self._files:
            self._close_file(self._files[0])
        self.presence.close()
        if self.config is not None:
            self.config.forget()
