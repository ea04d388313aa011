# SPDX-License-Identifier: MIT
"""An open device: what puts configuration space, BARs, interrupt, memory and binding together."""

from __future__ import annotations

import atexit
import errno
import fcntl
import logging
import os
import threading
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio._native._access import Presence
from pyuio.claim import binding, in_use
from pyuio.dma.allocator import Dma
from pyuio.errors import (
    DeviceBusyError,
    DriverNotBoundError,
    InterruptUnavailableError,
    PermissionDeniedError,
    PyuioError,
)
from pyuio.interrupt.interrupt import Interrupt, open_uio_interrupt
from pyuio.kernel.drivers import bound_driver
from pyuio.kernel.preempt_rt import refuse_what_freezes
from pyuio.kernel.sysfs import link_name, parse_number, read_optional_number
from pyuio.kernel.uio import UioNode
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice, find
from pyuio.process.fork import Owned, forget_all, owned
from pyuio.process.signals import postponed_signals
from pyuio.region import PortRegion, Region
from pyuio.region.bar_mapping import checked_index, find_bar, map_bar
from pyuio.region.ports import renew_locks

if TYPE_CHECKING:
    from pyuio._native._access import Endian
    from pyuio.registers.register_map import RegisterMap

_log = logging.getLogger(__name__)


def _lock(file: int, name: str) -> None:
    """Keep a second opener out until the file is closed; the kernel does that, too, however this process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        path = Path(f"/proc/self/fd/{file}").readlink()
        reason = f"{name} is open already, in this process or another; close it first (fuser {path} shows who has it)"
        raise DeviceBusyError(errno.EBUSY, reason) from error


class Device(Owned):
    """An open device; `pyuio.open` makes it.

    A context manager; `close` frees everything that came from it. In a forked child it is closed, and so is what came
    from it, but for BARs that were mapped before.

    Attributes:
        address: of a PCI function, ``0000:00:04.0``; None for any other device.
        ids: vendor and device id, ``1234:11e8``; None for what is not a PCI function.
        class_code: 24 bits, base class first; None for what is not a PCI function.
        uio: its UIO node.
    """

    def __init__(self, found: FoundDevice, *, bind: bool = False) -> None:
        self._closed = True  # until all is there
        self.name = found.name
        self.address = found.address
        self.ids = found.ids
        self.class_code = found.class_code
        self._directory = found.directory
        self._presence = Presence(found.name)
        self._config: ConfigSpace | None = None
        self._regions: dict[tuple[int, bool, Endian], Region | PortRegion] = {}
        self._traced: Mapping[int, type[RegisterMap]] | None = None
        self._interrupt: Interrupt | PyuioError
        self._dma: Dma | None = None
        self._resources = ExitStack()
        self._files: list[int] = []  # its own, and open
        # Entered again by a signal handler that closes in the middle of something; other threads wait.
        self._guard = threading.RLock()
        try:
            # Ctrl-C in its middle would leave the card with the wrong kernel driver.
            with postponed_signals():
                self._acquire(found, bind)
        except BaseException:
            self.close()
            raise

    def _acquire(self, found: FoundDevice, bind: bool) -> None:
        # Undone in reverse: the interrupt is masked before its owner, the configuration space, goes; the lock is last.
        with ExitStack() as stack:
            stack.callback(self._presence.close)
            if self.address is not None:
                self._config = ConfigSpace(self._directory, self._presence)
                stack.callback(self._config.end)
                self._presence.ask_config(self._config.fileno())
                self._lock(self._config.fileno(), stack)
            self.uio = self._find_node(found, bind, stack)
            refuse_what_freezes(self.name, link_name(self._directory / "driver"))
            node = self._keep(self.uio.open(), stack)
            attribute = self.uio.open_attribute()
            try:
                self._presence.ask_node(attribute)
            finally:
                os.close(attribute)
            if self._config is None:
                self._lock(node, stack)
            try:
                self._interrupt = open_uio_interrupt(self.uio, node, self._config, self.name, self._presence)
                stack.callback(self._interrupt.close)
            except (InterruptUnavailableError, PermissionDeniedError) as error:
                # The rest of the device is of use without it.
                self._interrupt = error
                _log.info("%s: no interrupt: %s", self.name, error.strerror)
            stack.callback(self._close_regions)
            stack.callback(self._close_dma)
            stack.callback(_log.info, "%s: closing %s", self.name, self.uio.name)
            stack.callback(self._let_go_if_gone)
            self._resources = stack.pop_all()
            self._closed = False
        self.own()
        _log.info("%s: opened as %s", self.name, self.uio.name)

    def _keep(self, file: int, stack: ExitStack) -> int:
        """Have a file closed when the stack is undone, and in a forked child."""
        self._files.append(file)
        stack.callback(self._close_file, file)
        return file

    def _close_file(self, file: int) -> None:
        self._files.remove(file)
        os.close(file)

    def _lock(self, file: int, stack: ExitStack) -> None:
        _lock(file, self.name)
        # Closing is not enough: the interrupt has duplicates, which a thread that is just leaving a wait keeps open.
        stack.callback(fcntl.flock, self._keep(os.dup(file), stack), fcntl.LOCK_UN)

    def _find_node(self, found: FoundDevice, bind: bool, stack: ExitStack) -> UioNode:
        node = UioNode.of_device(self._directory)
        if node is None and self.address is None and found.uio is not None:
            return UioNode(found.uio)
        if node is not None:
            return node
        if self.address is None:
            raise DriverNotBoundError(errno.ENODEV, f"{self.name} has no UIO node any more; its driver was unbound")
        if not bind:
            driver = bound_driver(self.address)
            what_to_do = f"pyuio.open('{self.address}', bind=True), or as root: pyuio bind {self.address}"
            if driver is not None:
                reason = f"{self.name} is held by the kernel driver {driver}; to take it from there: {what_to_do}"
                raise DeviceBusyError(errno.EBUSY, reason)
            raise DriverNotBoundError(errno.ENODEV, f"{self.name} has no UIO driver; to bind one: {what_to_do}")
        self._refuse_what_is_used(self.address)
        stack.callback(binding.bind(self.address).undo)
        node = UioNode.of_device(self._directory)
        if node is None:
            raise DriverNotBoundError(errno.ENODEV, f"{self.name} is bound, but the kernel made no UIO node for it")
        return node

    def _refuse_what_is_used(self, address: str) -> None:
        if reasons := in_use.uses(address):
            listing = "".join(f"\n  {reason}" for reason in reasons)
            advice = f"end that first, or take it from whoever uses it: pyuio bind {address} --force"
            raise DeviceBusyError(errno.EBUSY, f"{self.name} is in use, and not bound:{listing}\n{advice}")

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error(self.name)

    @property
    def config(self) -> ConfigSpace:
        """The configuration space. ClosedError: the device is closed; AttributeError: it is not a PCI function."""
        self._require_open()
        if self._config is None:
            raise AttributeError(f"{self.name} is not a PCI function and has no configuration space")
        return self._config

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def removed(self) -> bool:
        """Whether the device was removed or unbound since it was opened; the kernel is asked. See docs/hotplug.md."""
        return self._presence.is_gone()

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt, masked unless someone waits for it.

        Raises:
            ClosedError: the device is closed.
            InterruptUnavailableError: it has no interrupt that its UIO driver could deliver.
            PermissionDeniedError: this user may not write its configuration space, which masks it.
        """
        self._require_open()
        if isinstance(self._interrupt, Interrupt):
            return self._interrupt
        raise type(self._interrupt)(*self._interrupt.args)

    @property
    def irq(self) -> int | None:
        """The kernel's number of the interrupt, as in ``/proc/interrupts``; None where sysfs does not tell.

        Of message-signalled interrupts the first (Documentation/ABI/testing/sysfs-bus-pci). ClosedError: the device is
        closed.
        """
        self._require_open()
        messages = sorted(parse_number(entry.name, entry) for entry in (self._directory / "msi_irqs").glob("*"))
        return messages[0] if messages else read_optional_number(self._directory / "irq") or None

    @property
    def dma(self) -> Dma:
        """Memory that the device can reach. ClosedError: the device is closed."""
        with self._guard:
            self._require_open()
            if self._dma is None:
                self._dma = Dma(self.name, self._directory, self._config, self._presence)
            return self._dma

    def bar(self, index: int, *, write_combining: bool = False, endian: Endian = "little") -> Region | PortRegion:
        """Return a BAR, mapped at the first call; later calls with the same arguments return the same object.

        Args:
            index: 0 to 5; a 64-bit BAR has the index of its first register.
            write_combining: let the processor merge writes; for prefetchable memory BARs (frame buffers).
            endian: "little" or "big": the byte order of the device's registers.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: it is gone.
            MappingError: there is no such BAR, or the kernel refuses to map it.
            PermissionDeniedError: this user may not map it.
            ValueError: the index is not 0 to 5, or the BAR is not prefetchable memory and `write_combining` is set.
        """
        checked_index(index)
        with self._guard:
            self._require_open()
            self._presence.require()
            key = (index, write_combining, endian)
            region = self._regions.get(key)
            if region is None or region.closed:
                bar = find_bar(self._config.bars() if self._config else (), index, self.name)
                map_it = partial(
                    map_bar,
                    bar,
                    self._directory,
                    self.name,
                    node=self.uio,
                    write_combining=write_combining,
                    presence=self._presence,
                )
                if self._traced is None:
                    region = map_it(endian=endian)
                else:
                    from pyuio.region import tracing

                    region = map_it(endian=endian, kinds=tracing.KINDS)
                    tracing.begin(region, f"{self.name}: bar{index}", self._traced.get(index))
                if self._closed:  # by a signal handler, meanwhile
                    region.close()
                    self._require_open()
                self._regions[key] = region
            return region

    def trace_registers(self, names: Mapping[int, type[RegisterMap]] | None = None) -> None:
        """Log each access to BARs that `bar` returns from now on: `pyuio.tracing`, at debug level.

        Args:
            names: of the registers, by number of the BAR, as `Driver.register_maps` has them.

        Raises:
            ValueError: a BAR was returned already; whoever has it would not be traced.
            ClosedError: the device is closed.
        """
        with self._guard:
            self._require_open()
            if self._regions:
                raise ValueError(f"{self.name}: its registers are traced from the start or not: call it before bar()")
            self._traced = {} if names is None else names

    def _let_go_if_gone(self) -> None:
        # What was unbound may be another kernel driver's by now, whose command register is none of ours.
        if self._config is not None and self._presence.is_gone():
            _log.info("%s: it was removed, or unbound", self.name)
            self._config.let_go()

    def _close_dma(self) -> None:
        if self._dma is not None:
            self._dma.close()

    def _close_regions(self) -> None:
        for region in self._regions.values():
            region.close()

    def close(self) -> None:
        """Free DMA memory, unmap BARs, mask the interrupt, and give back to its kernel driver what `pyuio.open` took.

        Everything that came from the device raises `ClosedError` from then on. Again is harmless.

        Raises:
            BindingError: the previous kernel driver did not take the device back.
            DeviceBusyError: another process is binding it, and does not end that.
        """
        with self._guard, postponed_signals():
            self._closed = True
            self._resources.close()  # goes on where an exception, or a handler that closes, left off

    def forget(self) -> None:
        """In a forked child: close it there; the device itself is the parent's."""
        super().forget()
        self._guard = threading.RLock()
        self._closed = True
        self._resources.pop_all()  # and let nobody undo it
        # First what keeps the kernel from ending bus mastering when the parent is killed; then what keeps memory.
        if isinstance(self._interrupt, Interrupt):
            self._interrupt.forget()
        while self._files:
            self._close_file(self._files[0])
        self._presence.close()
        if self._config is not None:
            self._config.forget()
        if self._dma is not None:
            self._dma.let_go()

    def __del__(self) -> None:
        """Close a device that was forgotten, with a `ResourceWarning`."""
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __enter__(self) -> Device:
        """Return itself; leaving the block closes it. ClosedError: it is closed."""
        self._require_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.uio.name
        return f"<pyuio.Device {self.name} {self.ids or ''} {state}>"


def open(which: str | os.PathLike[str] | FoundDevice, *, bind: bool = False) -> Device:
    """Open a device, alone: a second opener gets `DeviceBusyError` until this one closes it or ends.

    Args:
        which: a PCI address (``0000:00:04.0`` or ``00:04.0``), an id pair (``1234:11e8``), ``uio0``, ``/dev/uio0``, or
            an entry of `devices`.
        bind: bind ``uio_pci_generic`` if no UIO driver has the device, taking it from any kernel driver that has it,
            unless the machine is using it (`pyuio.claim.in_use`); closing gives it back.

    Raises:
        DeviceNotFoundError: there is no such device.
        AmbiguousDeviceError: there is more than one.
        DeviceBusyError: it is open already, or another kernel driver has it and `bind` is False, or the machine is
            using it.
        DriverNotBoundError: no kernel driver has it and `bind` is False.
        BindingError: the kernel refused to bind.
        KernelSupportError: this kernel has no ``uio_pci_generic``.
        PermissionDeniedError: this user may not.
        ValueError: `which` does not have the form of a device's name.
        TypeError: `which` is of a wrong type.
    """
    return Device(find(which), bind=bind)


@atexit.register
def _close_all() -> None:
    """Close what is open at the end of the interpreter, before anything that it takes is gone."""
    for device in [thing for thing in list(owned) if isinstance(thing, Device)]:
        try:
            device.close()
        except PyuioError as error:
            _log.warning("%s: closing at the end of the program: %s", device.name, error)


# After that of `pyuio.dma`, whose memory leaves holes in a child, to be filled in before anything else is.
os.register_at_fork(after_in_child=forget_all)
os.register_at_fork(after_in_child=renew_locks)
