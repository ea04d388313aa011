# SPDX-License-Identifier: MIT
"""An open device. It assembles what a backend gives: BARs, maps, an interrupt, configuration space, memory for DMA."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import operator
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, SupportsIndex, TypeVar

from pyuio._native._program import Runner
from pyuio.backend.opening import open_backend
from pyuio.dma.allocator import Dma
from pyuio.errors import DeviceRemovedError, InterruptUnavailableError, PyuioError
from pyuio.interrupt.interrupt import Interrupt
from pyuio.kernel import device_tree
from pyuio.kernel.uio import UioMap
from pyuio.pci.assigned_interrupt import interrupt_number, line_of_node
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice, find
from pyuio.process.fork import Owned, forget_all, owned
from pyuio.process.late import release_after_fork
from pyuio.process.signals import postponed_signals
from pyuio.region import PortRegion, Region
from pyuio.region.bar_mapping import checked_index
from pyuio.region.map_mapping import find_map, of_map
from pyuio.region.ports import renew_locks

if TYPE_CHECKING:
    from pyuio._native._access import Endian
    from pyuio.backend.backend import Backend
    from pyuio.kernel.uio import UioNode
    from pyuio.process.timeouts import TimeSource
    from pyuio.program import Operation
    from pyuio.program.run import Outcome
    from pyuio.region.tracing import Recording
    from pyuio.registers.register_map import RegisterMap

_log = logging.getLogger("pyuio.device")
# What pyuio imports late. None of these has a lock that it takes before a fork: such a hook would come amid the fork.
_LATE_MODULES = (
    "json",
    "periphery",
    "pyudev",
    "shutil",
    "socket",
    "subprocess",
    "pyuio.backend.uio",
    "pyuio.backend.vfio",
    "pyuio.dma.ring",
    "pyuio.driver",
    "pyuio.interrupt.wait",
    "pyuio.kernel.irq",
    "pyuio.pci.hotplug",
    "pyuio.program.run",
    "pyuio.region.mapping",
    "pyuio.rt.realtime",
    "pyuio.service",
)


_opening = threading.RLock()

_Key = TypeVar("_Key")
_Region = TypeVar("_Region", Region, Region | PortRegion)


class Device(Owned, Runner):
    """An open device; `pyuio.open` makes it.

    `run` does a program of register operations in one call. It comes from the compiled `Runner`;
    ``pyuio/_native/_program.pyi`` says what it does and raises.

    It is a context manager. `close` frees everything that came from it. In a forked child, it and everything that came
    from it is closed, except BARs and maps that were mapped before the fork (over VFIO: `let_children_access`).

    Attributes:
        address: of a PCI function, ``0000:00:04.0``; None for any other device.
        ids: vendor and device id of a PCI function, ``1234:11e8``; None for any other device.
        class_code: of a PCI function, 24 bits, base class first; None for any other device.
        driver: the kernel driver that hands it on: ``uio_pci_generic``, ``vfio-pci``, or another.
    """

    _recording: Recording | None = None

    def __init__(
        self, found: FoundDevice, *, bind: bool | str = False, opener: Callable[..., Backend] = open_backend
    ) -> None:
        self._closed = True  # until everything is open
        self.name = found.name
        self.address = found.address
        self.ids = found.ids
        self.class_code = found.class_code
        self._regions: dict[tuple[int, bool, Endian, int | None], Region | PortRegion] = {}
        self._maps: dict[tuple[str, int, int | None, Endian, int | None], Region] = {}
        self._widths: dict[int | str, int] = {}
        self._traced: Mapping[int | str, type[RegisterMap]] | None = None
        self._dma: Dma | None = None
        self._interrupt: Interrupt | None = None  # once it was used
        # Recursive: a signal handler that closes the device may enter it again. Other threads wait.
        self._guard = threading.RLock()
        try:
            # Ctrl-C in the middle of the opening would leave the card with the wrong kernel driver. A fork would give a
            # child files that it does not know.
            with postponed_signals(), _opening:
                self._backend: Backend = opener(found, bind=bind, close_parts=self._close_parts)
                self.driver = self._backend.driver
                self._closed = False
                self.own()
        except BaseException:
            if not self._closed:
                self.close()
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise self.closed_error(self.name)

    @property
    def uio(self) -> UioNode:
        """The UIO node, also after `close`. AttributeError: the device has none, because VFIO hands it out."""
        if self._backend.node is None:
            raise AttributeError(f"{self.name} has no UIO node: {self.driver} hands it out")
        return self._backend.node

    @property
    def config(self) -> ConfigSpace:
        """The configuration space. ClosedError: the device is closed. AttributeError: it is not a PCI function."""
        self._require_open()
        if self._backend.config is None:
            raise AttributeError(f"{self.name} is not a PCI function and has no configuration space")
        return self._backend.config

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def removed(self) -> bool:
        """Whether the device was removed or unbound since it was opened; this asks the kernel. See docs/hotplug.md."""
        return self._backend.presence.is_gone()

    @property
    def interrupt(self) -> Interrupt:
        """The interrupt, masked unless someone waits for it: INTx, or the first message (`vectors`).

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
            InterruptUnavailableError: the device has no interrupt that its kernel driver can deliver.
            PermissionDeniedError: this user may not write the configuration space, through which pyuio masks.
        """
        self._require_open()
        if self._interrupt is None:  # a driver asks for it at each wait, which must cost nothing
            with self._guard:
                self._require_open()
                self._use((self._backend.interrupt,))
                self._require_open()  # a signal handler may have closed it meanwhile
        assert self._interrupt is not None
        return self._interrupt

    @property
    def most_vectors(self) -> int:
        """How many interrupts `vectors` can enable; 0 if the device, or its kernel driver, delivers no messages.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
        """
        with self._guard:
            self._require_open()
            self._backend.presence.require()
            return self._backend.most_vectors

    def vectors(self, count: int) -> tuple[Interrupt, ...]:
        """Enable MSI-X, or MSI, and return one interrupt for each of the first `count` vectors.

        If the kernel driver made several UIO nodes, it returns the interrupts of the first `count` of them instead, and
        keeps these nodes open.

        Call it once, and before `interrupt` is used: a device has either INTx or messages. Messages need bus mastering,
        which is on from then on until the device is closed.

        Args:
            count: 1 to `most_vectors`.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
            InterruptUnavailableError: the device has not so many, its interrupts are enabled already, or its kernel
                driver delivers no messages, as ``uio_pci_generic``.
            DeviceBusyError: another UIO node of the device is open.
            ValueError: `count` is below 1.
        """
        count = operator.index(count)
        if count < 1:
            raise ValueError(f"{self.name}: a device has at least one vector, not {count}")
        with self._guard:
            self._require_open()
            self._backend.presence.require()
            interrupts = self._backend.vectors(count)
            self._use(interrupts)
            return interrupts

    def _use(self, interrupts: tuple[Interrupt, ...]) -> None:
        interrupt = interrupts[0]
        # A message is a write to memory, which a device sends only with bus mastering (PCI 3.0, section 6.8).
        if interrupt.kind not in (None, "INTx"):
            self.dma.send_messages()
        if self._recording is not None:
            self._recording.interrupts(interrupts)
        self._interrupt = interrupt

    def reset(self, method: str | None = None) -> None:
        """Reset the device, without its neighbours, as the kernel knows how: FLR, power management, or its bus.

        All that a driver has set up in the device is lost. The kernel restores the configuration space; BARs, DMA
        buffers and interrupts stay open, and whoever waits for an interrupt goes on waiting. Stop the device before,
        and set it up again afterwards.

        Args:
            method: the kernel's name of one, as in ``/sys/bus/pci/devices/ADDRESS/reset_method``: ``"flr"``, ``"pm"``,
                ``"bus"`` and others; only root may choose. None for the first of them that works.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
            ResetUnavailableError: the kernel knows no way, does not offer this one, or it failed.
            PermissionDeniedError: this user may not.
        """
        with self._guard:
            self._require_open()
            self._backend.presence.require()
            self._backend.reset(method)

    @property
    def uio_name(self) -> str | None:
        """The name that the kernel driver gave the UIO node; None if there is no node, or if it is gone."""
        try:
            return self._backend.node.driver_name if self._backend.node else None
        except DeviceRemovedError:
            return None

    @property
    def compatible(self) -> tuple[str, ...]:
        """What the device tree says that it is compatible with, the most specific first; () without a device tree."""
        return device_tree.compatible(self._backend.directory)

    @property
    def clock(self) -> TimeSource:
        """The time of the device, with `monotonic` and `sleep`: the module `time`; virtual for a card in Python.

        A driver that takes its deadlines and pauses from it is tested on models in no time (docs/model.md).
        """
        return self._backend.clock

    @property
    def irq(self) -> int | None:
        """The kernel's number of the interrupt, as in ``/proc/interrupts``; None if the kernel does not tell.

        If the device has message-signalled interrupts, it is the number of the first
        (Documentation/ABI/testing/sysfs-bus-pci). For a device that is not a PCI function, it is the one whose handler
        has the UIO node's name; None if several nodes or several interrupts have it. Over VFIO the kernel has a number
        once the interrupt is enabled: this does so, as `interrupt` does.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: it is gone, over VFIO.
        """
        self._require_open()
        if self.address is not None:
            if self._backend.node is None:
                with contextlib.suppress(InterruptUnavailableError):
                    _ = self.interrupt
            return interrupt_number(self._backend.directory)
        return line_of_node(self.uio)

    @property
    def dma(self) -> Dma:
        """Memory that the device can reach. ClosedError: the device is closed."""
        with self._guard:
            self._require_open()
            if self._dma is None:
                backend = self._backend
                self._dma = Dma(self.name, backend.directory, backend.config, backend.presence, backend.memory)
                if self._recording is not None:
                    self._dma.on_buffer = self._recording.buffer
            return self._dma

    def bar(
        self, index: int, *, write_combining: bool = False, endian: Endian = "little", width: int | None = None
    ) -> Region | PortRegion:
        """Return a BAR. The first call maps it; later calls with the same arguments return the same object.

        Args:
            index: 0 to 5; a 64-bit BAR has the index of its first register.
            write_combining: let the processor merge writes; for prefetchable memory BARs (frame buffers).
            endian: "little" or "big": the byte order of the device's registers.
            width: bits of the widest access that the device takes, 8 to 64; wider ones raise ValueError. None for what
                the driver's register map says (``class Registers(RegisterMap, width=32)``), or else for 64, or 32 for
                I/O ports.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
            MappingError: there is no such BAR, or the kernel refuses to map it.
            PermissionDeniedError: this user may not map the BAR.
            ValueError: the index is not 0 to 5, there is no such width, or the BAR is not prefetchable memory and
                `write_combining` is set.
        """
        checked_index(index)
        with self._guard:
            self._require_open()
            self._backend.presence.require()
            width = self._widths.get(index) if width is None else width
            key = (index, write_combining, endian, width)
            map_it = partial(self._backend.map_bar, index, write_combining=write_combining, endian=endian, width=width)
            registers = self._traced.get(index) if self._traced else None
            return self._mapped(
                self._regions, key, f"bar{index}", registers, lambda classes: map_it(region_classes=classes)
            )

    def _mapped(
        self,
        regions: dict[_Key, _Region],
        key: _Key,
        place: str,
        registers: type[RegisterMap] | None,
        map_it: Callable[[tuple[type[Region], type[PortRegion]]], _Region],
    ) -> _Region:
        """Return the region that was mapped before, or map it.

        Args:
            regions: those that were mapped, by their arguments.
            key: the arguments.
            place: what the region is called in the log of accesses.
            registers: the names of its registers, for that log.
            map_it: maps it, as one of two classes, for memory and for I/O ports.
        """
        region = regions.get(key)
        if region is None or region.closed:
            if self._traced is None:
                region = map_it((Region, PortRegion))
            else:
                from pyuio.region import tracing

                region = map_it(tracing.TRACED_CLASSES)
                tracing.begin(region, self.name, place, registers, self._recording)
            if self._closed:  # a signal handler has closed it meanwhile
                region.close()
                self._require_open()
            regions[key] = region
        return region

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """The memory regions that the UIO driver offers, by index; () if it offers none. They are not BARs.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
        """
        with self._guard:
            self._require_open()
            self._backend.presence.require()
            return self._backend.maps

    def map(
        self,
        which: int | str,
        *,
        size: SupportsIndex | None = None,
        endian: Endian = "little",
        width: int | None = None,
    ) -> Region:
        """Return one of `maps`. The first call maps it; later calls with the same arguments return the same object.

        Args:
            which: its index, or its name. ``map0`` stands for index 0, if no map has that name.
            size: its size in bytes, if it is less than the driver says: many drivers round up to whole pages. None for
                all from its first byte on, the map's size less its offset.
            endian: "little" or "big": the byte order of the device's registers.
            width: bits of the widest access that the device takes, 8 to 64; wider ones raise ValueError. None for what
                the driver's register map says (``class Registers(RegisterMap, width=32)``), or else for 64.

        Raises:
            ClosedError: the device is closed.
            DeviceRemovedError: the device is gone.
            MappingError: there is no such map; the message lists those that there are. Or the kernel or the UIO driver
                refuses to map it; the message says why.
            ValueError: `size` is below 1 or beyond the map, or there is no such width.
            TypeError: `which` is neither an int nor a str.
        """
        with self._guard:
            item = find_map(self.maps, which, self.name)
            size = None if size is None else operator.index(size)
            width = of_map(self._widths, item) if width is None else width
            key = (item.label, item.index, size, endian, width)
            map_it = partial(self._backend.map_region, item, size=size, endian=endian, width=width)
            registers = of_map(self._traced, item) if self._traced else None
            return self._mapped(self._maps, key, item.label, registers, lambda classes: map_it(region_class=classes[0]))

    def _run_slowly(self, program: Sequence[Operation]) -> Outcome:
        """Run a program that `Runner` does not remember."""
        from pyuio.program.run import run_once  # takes long, and few programs run any

        self._require_open()
        self._backend.presence.require()
        outcome, prepared = run_once(program, self._backend.presence, self.clock)
        if prepared is not None:
            self._remember(prepared)
            if self._closed:  # a signal handler, or another thread, has closed it meanwhile
                self._forget_programs()
        return outcome

    def let_children_access(self) -> None:
        """Let children that are forked from now on access the registers of BARs that are mapped by now.

        Over UIO they can do that anyway. Over VFIO the kernel gives a device back only when nobody maps its BARs: close
        the device, or let it be unbound, after those children have ended.

        Raises:
            ClosedError: the device is closed.
        """
        with self._guard:
            self._require_open()
            for region in self._regions.values():
                if not region.closed:
                    region.inherit()

    def limit_widths(self, widths: Mapping[int, int] | Mapping[int | str, int]) -> None:
        """Say how many bits the widest access of each BAR or map has, for each `bar` and `map` from now on.

        Args:
            widths: 8 to 64, by number of the BAR or by name of the map. `Driver` gives those of its `register_maps`. A
                call of `bar` or `map` may say another.
        """
        self._widths.update(widths.items())

    def trace_registers(
        self,
        names: Mapping[int, type[RegisterMap]] | Mapping[int | str, type[RegisterMap]] | None = None,
        *,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        """Log each access to what `bar` and `map` return from now on, to the logger `pyuio.tracing` at debug level.

        Args:
            names: the register maps by number of the BAR or name of the map, as in `Driver.register_maps`; None to log
                offsets only.
            file: also write them to this file, with the interrupts that are read and the buffers for DMA, until the
                device is closed: `pyuio.model.Replay` makes a card of it. Start it before `interrupt` is used.

        Raises:
            OSError: the file cannot be written.
            ValueError: `bar` or `map` was called already, and accesses through that object would not be logged.
            ClosedError: the device is closed.
        """
        with self._guard:
            self._require_open()
            if self._regions or self._maps:
                raise ValueError(f"{self.name}: its registers are traced from the start or not; call it before bar()")
            self._traced = {} if names is None else dict(names.items())
            if file is not None:
                from pyuio.region.tracing import Recording

                self._recording = Recording(file)
                self._recording.line(f"device {self.ids} class {self.class_code or 0:#08x}")
                for bar in self.config.bars() if self.address else ():
                    self._recording.line(f"bar{bar.index} {bar.kind} {bar.size:#x}")
                for one in self.maps:
                    self._recording.line(f"{one.label} memory {one.size:#x}")
                if self._dma is not None:
                    self._dma.on_buffer = self._recording.buffer

    def _close_parts(self) -> None:
        self._forget_programs()
        try:
            if self._dma is not None:
                self._dma.close()
        finally:  # even if the kernel refuses to end bus mastering
            for region in (*self._regions.values(), *self._maps.values()):
                region.close()
            if self._recording is not None:
                self._recording.close()

    def close(self) -> None:
        """Free DMA memory, unmap BARs and maps, mask the interrupt, and give the device back if `pyuio.open` took it.

        From then on, everything that came from the device raises `ClosedError`. A second call does nothing.

        Raises:
            BindingError: the previous kernel driver did not take the device back.
            DeviceBusyError: another process is binding the device, and did not finish in time; or, over VFIO, something
                of it is still open elsewhere, which the message names. Then it stays bound: ``pyuio unbind`` gives it
                back later.
        """
        with self._guard, postponed_signals():
            self._closed = True
            self._backend.close()  # continues where an exception, or a signal handler that closes, stopped it

    def forget(self) -> None:
        """Close it in a forked child; the device itself belongs to the parent."""
        super().forget()
        self._guard = threading.RLock()
        self._closed = True
        self._forget_programs()
        self._backend.forget()
        # Last: while a child pins the memory and has /dev/uioN open, the kernel cannot end the parent's bus mastering.
        if self._dma is not None:
            self._dma.unpin()

    def __del__(self) -> None:
        """Close a device that the program has not closed, with a `ResourceWarning`."""
        if not getattr(self, "_closed", True):
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __enter__(self) -> Device:
        """Return itself; leaving the block closes it. ClosedError: it is closed."""
        self._require_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what it is, and its BARs or maps; no register is accessed."""
        from pyuio.process.html import table

        title = repr(self).strip("<>")
        if self._closed or self.removed:
            return table(title, [("state", "closed" if self._closed else "removed")])
        rows: list[tuple[str, object]] = [("kernel driver", self.driver)]
        if self.class_code is not None:
            rows.append(("class", f"{self.class_code:#08x}"))
        rows.append(("interrupt", "not used yet" if self._interrupt is None else self._interrupt.kind or "yes"))
        rows.append(("vectors", f"up to {self.most_vectors}"))
        if self._backend.config is not None:
            rows += [(f"BAR {one.index}", str(one).partition(": ")[2]) for one in self._backend.config.bars()]
        if self._backend.node is not None:
            rows += [(f"map {one.index}", one) for one in self.maps]
        return table(title, rows)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._backend.node.name if self._backend.node else self.driver
        return f"<pyuio.Device {self.name} {self.ids or ''} {state}>"


def open(which: str | os.PathLike[str] | FoundDevice, *, bind: bool | str = False) -> Device:
    """Open a device exclusively: a second opener gets `DeviceBusyError` until this process closes the device or ends.

    Args:
        which: a PCI address (``0000:00:04.0`` or ``00:04.0``), an id pair (``1234:11e8``), ``uio0``, ``/dev/uio0`` or a
            link to it, the name of a node (``/sys/class/uio/uioN/name``), or an entry of `devices`.
        bind: True keeps a driver that serves user space, and otherwise binds ``vfio-pci`` where an IOMMU translates for
            the device or the kernel is locked down, and VFIO can have it; else ``uio_pci_generic``. The name of one of
            them, of ``"igb_uio"``, or of another UIO driver that is loaded already, binds that. This takes the device
            from any other kernel driver, unless the machine is using it (`pyuio.claim.in_use`). Closing gives it back.

    Raises:
        DeviceNotFoundError: there is no such device.
        AmbiguousDeviceError: `which` names more than one device, or one that has several UIO nodes and none of them.
        DeviceBusyError: the device is open already; or another kernel driver has it and `bind` is False; or the
            machine is using it.
        DriverNotBoundError: no kernel driver has the device and `bind` is False.
        BindingError: the kernel refused to bind; or `bind` names a driver that hands nothing on to user space.
        KernelSupportError: this kernel does not have the driver.
        PermissionDeniedError: this user may not open or bind the device.
        ValueError: `which` does not have the form of a device's name.
        TypeError: `which` is of a wrong type.
    """
    return Device(find(which), bind=bind)


@atexit.register
def _close_all() -> None:
    """Close open devices when the interpreter ends, while everything that closing needs still exists."""
    for device in [thing for thing in list(owned) if isinstance(thing, Device)]:
        try:
            device.close()
        except PyuioError as error:
            _log.warning("%s: cannot close it at the end of the program: %s", device.name, error)


# These hooks run after the hook of `pyuio.dma`, which is registered earlier. A child does not inherit DMA memory; that
# hook fills the holes in the address space before anything else runs.
os.register_at_fork(after_in_child=forget_all)
os.register_at_fork(after_in_child=renew_locks)
# It is taken before the locks of other modules, which an opening takes.
_release_opening = partial(release_after_fork, _opening)
os.register_at_fork(before=_opening.acquire, after_in_parent=_release_opening, after_in_child=_release_opening)


def _finish_late_imports() -> None:
    """Before a fork: import what pyuio imports late.

    Another thread may be in the middle of such an import. A child that imports the same would wait for that thread for
    ever, because Python does not release the locks of imports in a child.
    """
    for name in _LATE_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


# Hooks that run before a fork run in reverse order: this one comes before those that take locks.
os.register_at_fork(before=_finish_late_imports)
