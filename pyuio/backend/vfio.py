# SPDX-License-Identifier: MIT
"""A PCI function through ``vfio-pci``: one file for BARs, configuration space and interrupts, and an IOMMU for memory.

The kernel takes the function back only when everything of it is closed: each descriptor, and each mapping of a BAR, in
forked children, too. What unbinds the function waits for that, in a call that cannot be killed. Some things follow.

- Closing keeps an order: interrupts, regions, memory, files. Giving the function back to its former kernel driver comes
  last, and is refused if something of the function is still open (`pyuio.claim.binding`).
- When the kernel wants the function back (removal, unbinding, unplugging), it says so by an eventfd, and goes on
  waiting. A thread (`pyuio.backend.removal_watch`) then lets the function go, whatever the program is doing: each wait
  and access raises `DeviceRemovedError` from then on, mappings show zeros, and descriptors are those of ``/dev/null``.
  The program closes its device when it comes to it. That eventfd is never read, so it tells everybody.
- After a fatal error on its link the kernel resets the function, which forgets its set-up. For the program it has gone
  then, which the same eventfd tells. Opening it again finds it as the kernel had set it up.
- A forked child gets no mapping of a BAR, and closes its copies of the files at once.

Sources: Documentation/driver-api/vfio.rst; ``drivers/vfio/pci/vfio_pci_core.c`` and ``vfio_pci_intrs.c``.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex
from weakref import WeakMethod, WeakSet

from pyuio._native._access import Presence
from pyuio.backend import removal_watch, vfio_membership
from pyuio.backend.open_files import OpenFiles
from pyuio.claim.claim import claim
from pyuio.dma.iommu_memory import IommuMemory
from pyuio.errors import (
    DeviceBusyError,
    InterruptUnavailableError,
    KernelSupportError,
    MappingError,
    PyuioError,
)
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.vfio_interrupt import KINDS, open_vfio_interrupts
from pyuio.kernel import vfio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.sysfs import translated
from pyuio.pci.aer import fatal_errors, read_link_errors
from pyuio.pci.bars import lost_bars
from pyuio.pci.config_space import ConfigFile, ConfigSpace
from pyuio.pci.reset import by_method, failed
from pyuio.process.descriptors import replace_descriptor, reserve_nothing
from pyuio.process.signals import postponed_signals
from pyuio.region.bar_mapping import checked_write_combining, find_bar

if TYPE_CHECKING:
    from pyuio._native._access import Endian
    from pyuio.dma.memory_source import MemorySource
    from pyuio.kernel.uio import UioMap
    from pyuio.pci.discovery import FoundDevice
    from pyuio.process.timeouts import TimeSource
    from pyuio.region import PortRegion, Region
    from pyuio.region.mapping import RevocableMapping

_log = logging.getLogger("pyuio.device")

# Seconds. The kernel waits one for the link, and longer only for a function that does not answer.
_LONGEST_RESET = 2.0


class VfioBackend:
    """A function that ``vfio-pci`` has, open; see `pyuio.backend.backend.Backend`.

    Args:
        found: the function.
        bind: bind ``vfio-pci`` if another driver, or none, has it.
        close_parts: closes what `pyuio.Device` made from this backend; `close` calls it first.

    Raises:
        PyuioError: as `pyuio.open`.
    """

    node = None
    driver = VFIO_PCI
    config: ConfigSpace
    memory: MemorySource[Any]
    clock: TimeSource = time

    def __init__(self, found: FoundDevice, *, bind: bool, close_parts: Callable[[], object]) -> None:
        assert found.address is not None
        self.name = found.name
        self.address = found.address
        self.directory: Path = found.directory
        self.presence = Presence(found.name)
        self._files = OpenFiles(found.name)
        self._regions: WeakSet[Region | PortRegion] = WeakSet()
        self._mappings: list[RevocableMapping] = []  # a native program may use one whose region is closed
        self._interrupts: tuple[Interrupt, ...] = ()
        self._closed = False  # the function's file
        self._resetting = False  # the kernel does so after a fatal error
        self._guard = threading.RLock()  # the watch lets the function go in a thread of its own
        self._resources = ExitStack()
        with ExitStack() as stack:
            stack.callback(self.presence.close)
            self._open(found, bind, stack)
            stack.callback(close_parts)
            stack.callback(_log.info, "%s: closing %s", self.name, self._group.path)
            self._resources = stack.pop_all()
        _log.info("%s: opened by %s", self.name, self._group.path)

    def _open(self, found: FoundDevice, bind: bool, stack: ExitStack) -> None:
        if bind:
            self._files.lock_function(self.directory, stack)
        claimed = claim(found, VFIO_PCI if bind else False)
        if claimed.binding is not None:
            stack.callback(claimed.binding.undo)
        number = vfio.group_of(self.directory)
        if number is None:
            reason = f"{self.name} has no IOMMU group: this machine's IOMMU is off; see pyuio doctor"
            raise KernelSupportError(errno.ENOSYS, reason)
        self._group = vfio_membership.Membership(number, self.address)
        stack.callback(self._group.leave)
        self.memory = IommuMemory(self.name, self._group.space)
        try:
            self._file = self._files.keep(self._group.open_device(), stack)
        except PyuioError:
            raise
        except OSError as error:
            raise translated(error, f"opening {self.name} by {self._group.path}", DeviceBusyError) from error
        stack.callback(self._group.end_memory)
        stack.callback(self._note_closed)
        with self._guard:  # the watch may let it go from now on, and needs all of it
            try:
                self._watch_for_request(stack)
                self._watch_for_errors(stack)
                place = vfio.file_region(self._file, vfio.CONFIG_REGION)
            except OSError as error:
                raise translated(error, f"opening {self.name}") from error
            self.config = ConfigSpace(self.directory, self.presence, ConfigFile(self._file, place.offset, place.size))
            stack.callback(self.config.command_register.close)
            stack.callback(self.config.close)
            stack.callback(self.presence.close)
            self.presence.ask_config(self._file, place.offset)
            stack.callback(self._unmap)
            stack.callback(self._close_interrupts)

    def _watch_for_request(self, stack: ExitStack) -> None:
        reserve_nothing()
        self._request = self._files.keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), stack)
        vfio.deliver_interrupts(self._file, vfio.REQUEST, [self._request])
        self.presence.ask_request(self._request)
        removal_watch.begin(self._request, WeakMethod(self._let_go))
        stack.callback(removal_watch.end, self._request)

    def _watch_for_errors(self, stack: ExitStack) -> None:
        """Have the kernel tell of uncorrectable errors on the link; what is not PCI Express has none."""
        if not vfio.interrupt_count(self._file, vfio.ERROR):
            return
        self._fatal_before = fatal_errors(self.directory)
        self._error = self._files.keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), stack)
        vfio.deliver_interrupts(self._file, vfio.ERROR, [self._error])
        removal_watch.begin(self._error, WeakMethod(self._note_error))
        stack.callback(removal_watch.end, self._error)

    def _note_error(self) -> bool:
        """Tell of an uncorrectable error; after a fatal one the device is gone. Return whether to watch on."""
        with self._guard:
            if self._closed:
                return False
            with suppress(BlockingIOError):  # called without cause
                os.eventfd_read(self._error)
        if fatal_errors(self.directory) == self._fatal_before:
            told = read_link_errors(self.directory)
            _log.warning("%s: an error on its link, and something was lost; counted by now: %s", self.name, told)
            return True
        _log.error("%s: a fatal error on its link; the kernel resets it, and it has to be opened again", self.name)
        self._resetting = True
        try:
            self.presence.note_gone()
            deadline = time.monotonic() + _LONGEST_RESET
            while time.monotonic() < deadline and not self._was_reset():
                time.sleep(0.01)
        finally:
            self._resetting = False
        with self._guard:
            if not self._closed:
                os.eventfd_write(self._request, 1)
        return False

    def _was_reset(self) -> bool:
        try:
            with closing(ConfigSpace(self.directory)) as config:
                return bool(lost_bars(config, config.bars()))
        except (PyuioError, OSError):
            return False

    def _unmap(self) -> None:
        """Take BARs away from whatever still uses them."""
        for mapping in self._mappings:
            mapping.let_go()
        for region in list(self._regions):
            region.let_go()

    def _note_closed(self) -> None:
        while self._resetting:  # the kernel would restore its configuration space now, and the reset lose that again
            time.sleep(0.01)
        with self._guard:  # the watch may be about to let it go
            self._closed = True

    def _enable(self, kind: int, count: int) -> tuple[Interrupt, ...]:
        with postponed_signals():  # Ctrl-C amid this would leave them enabled, and nobody could disable them
            enabled = open_vfio_interrupts(self._file, kind, count, self._request, self.name, self.presence)
            self._interrupts = enabled
        return enabled  # a signal handler may have closed the device by now, which then has no interrupts

    # ---- Interrupts ----

    @property
    def interrupt(self) -> Interrupt:
        """The INTx interrupt, or the first of `vectors`; see `Device.interrupt`."""
        with self._guard:
            if enabled := self._interrupts:  # once: a signal handler may close the device between two looks
                return enabled[0]
            self.presence.require()
            if vfio.interrupt_count(self._file, vfio.INTX):
                return self._enable(vfio.INTX, 1)[0]
            return self.vectors(1)[0]

    def _offered(self) -> dict[int, int]:
        return {kind: vfio.interrupt_count(self._file, kind) for kind in (vfio.MSIX, vfio.MSI)}

    @property
    def most_vectors(self) -> int:
        """How many messages the function has, of the kind of which it has more."""
        with self._guard:
            self.presence.require()
            return max(self._offered().values())

    def vectors(self, count: int) -> tuple[Interrupt, ...]:
        """Enable MSI-X, or MSI, with `count` interrupts; see `Device.vectors`."""
        with self._guard:
            if enabled := self._interrupts:
                has = f"{len(enabled)} {enabled[0].kind}"
                reason = f"{self.name}: its interrupts are enabled already ({has}); ask for vectors once, before others"
                raise InterruptUnavailableError(errno.EBUSY, reason)
            self.presence.require()
            offered = self._offered()
            kind = next((kind for kind, most in offered.items() if most >= count), None)
            if kind is None:
                has = " and ".join(f"{most} {KINDS[kind]}" for kind, most in offered.items() if most)
                reason = f"{self.name} has no {count} message interrupts; it has {has or 'none'}"
                raise InterruptUnavailableError(errno.ENXIO, reason)
            return self._enable(kind, count)

    def _close_interrupts(self) -> None:
        with self._guard:
            if not self._interrupts:
                return
            kind = next(number for number, name in KINDS.items() if name == self._interrupts[0].kind)
            for interrupt in self._interrupts:
                interrupt.close()
            self._interrupts = ()
            with suppress(OSError):  # the device may be gone
                vfio.deliver_interrupts(self._file, kind, ())

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
        """Return a new region for a BAR, by the function's file. VFIO knows no write combining: it is left out."""
        from pyuio.region.mapping import RevocableMapping

        bar = find_bar(self.config.bars(), index, self.name)
        name = f"BAR {index} of {self.name}"
        if write_combining:
            checked_write_combining(bar, name)
            _log.info("%s: VFIO maps it without write combining", name)
        # Ctrl-C amid this would leave a mapping that keeps the function from being given back.
        with self._guard, postponed_signals():
            self.presence.require()
            path = f"{self._group.path} (VFIO)"
            try:
                place = vfio.file_region(self._file, index)
                mapped = bar.kind == "memory" and place.mappable
                if width is None or (width == 64 and not mapped):  # a driver's registers may be wider than a call
                    width = 64 if mapped else 32
                known: dict[str, Any] = {"address": bar.address, "name": name, "endian": endian, "width": width}
                if mapped:
                    mapping = RevocableMapping(self._file, place.offset, bar.size)
                    self._mappings = [one for one in self._mappings if one.mapping is not None] + [mapping]
                    known.update(mapping=mapping)
                else:
                    known.update(file=self._file, start=place.offset)
                region = region_classes[not mapped](path, bar.size, presence=self.presence, **known)
            except OSError as error:
                raise translated(error, f"mapping {name} through VFIO", MappingError) from error
            self._regions.add(region)
        return region

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """(): VFIO has BARs only."""
        return ()

    def map_region(
        self, item: UioMap, *, size: SupportsIndex | None, endian: Endian, width: int | None, region_class: type[Region]
    ) -> Region:
        """Raise MappingError: there are no maps."""
        raise MappingError(errno.EOPNOTSUPP, f"{self.name} has no {item}: VFIO has BARs only")

    # ---- Reset, and the end ----

    def reset(self, method: str | None) -> None:
        """Reset the function; see `Device.reset`."""
        # Ctrl-C amid this would leave the kernel with another order of methods.
        with self._guard, postponed_signals(), by_method(self.directory, method, self.name):
            self.presence.require()
            try:
                vfio.reset(self._file)
            except OSError as error:
                raise failed(error, self.name, self._group.path) from error

    def _let_go(self) -> None:
        """Close everything of the function, which the kernel wants back; what uses it meanwhile does not crash.

        The steps that wait for a lock come last, without the guard: a signal handler that closes the device may wait
        for the guard in a thread that has such a lock.
        """
        # A step that fails must not keep the others from being taken.
        with ExitStack() as last, self._guard, ExitStack() as first:
            if self._closed or not self.presence.is_gone():  # or an earlier eventfd had the same number
                return
            _log.warning("%s: the kernel wants it back; it is let go", self.name)
            self.presence.note_gone()
            last.callback(self._group.leave)
            last.callback(self.config.let_go)
            for region in list(self._regions):
                last.callback(region.let_go)
            last.callback(self._close_file)
            last.callback(self._group.end_memory)
            for mapping in self._mappings:
                first.callback(mapping.let_go)
            for interrupt in self._interrupts:
                first.callback(interrupt.let_go)

    def _close_file(self) -> None:
        """Close the function's file, and with that give the function back, unless `close` has begun to."""
        with self._guard:
            if not self._closed:
                try:
                    self.presence.close()
                finally:
                    replace_descriptor(self._file)

    def close(self) -> None:
        """Close everything, and give the function back; after an exception, a new call continues."""
        self._resources.close()

    def forget(self) -> None:
        """Close everything in a forked child, without touching the device, which belongs to the parent."""
        self._resources.pop_all()  # drop the callbacks: the parent runs them
        self._guard = threading.RLock()
        users = (*self._interrupts, *list(self._regions), *self._mappings, self.config, self._files)
        with ExitStack() as steps:  # whatever fails, the child must not keep the files of the function
            steps.callback(vfio_membership.forget_all)
            steps.callback(self.presence.close)
            for user in reversed(users):
                steps.callback(user.forget)
