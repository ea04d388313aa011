# SPDX-License-Identifier: MIT
"""Cards that appear and disappear, and errors on their links: events to read, iterate over, await, or get by a call.

A card is a PCI function, or a UIO node of a device that is not one.

pyudev's Monitor receives the events from udev. Where udev does not run, as in some containers and small systems, it
receives the kernel's own (``lib/kobject_uevent.c``).

The kernel counts errors on links, and any user may read the counters (`pyuio.pci.aer`). It sends no event of a
correctable error, and of others only where a kernel driver has an error handler, as ``vfio-pci`` has
(``drivers/pci/pcie/err.c``, pci_uevent_ers). So the counters are read each second, and at once after such an event.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pyuio.errors import ClosedError, DeviceNotFoundError, DeviceRemovedError, DeviceTimeoutError
from pyuio.kernel.sysfs import PCI_DEVICES, link_name, read_optional
from pyuio.pci.address import is_id_pair, parse_address
from pyuio.pci.aer import LinkErrors, read_link_errors
from pyuio.pci.discovery import FoundDevice, find
from pyuio.process.asyncio_waiters import Waiters
from pyuio.process.fork import Owned
from pyuio.process.signals import poll_with_signals
from pyuio.process.timeouts import timeout_error, timeout_nanoseconds

if TYPE_CHECKING:
    import pyudev

# The kernel announces a new card before it has set it up: seconds between checks, and until it is reported anyway.
_LOOK_AGAIN = 0.005
_LONGEST_SETUP = 2.0
_COUNTERS_EVERY = 1.0  # seconds between looks at the counters of errors


@dataclass(frozen=True)
class HotplugEvent:
    """A PCI function, or a UIO node of another device, appeared, disappeared or reported errors; or events were lost.

    Attributes:
        action: "add" or "remove"; "error" if the function reported errors on its link; "lost" if the kernel dropped
            events at this place, because its queue was full. Then `devices` tells which devices there are now.
        device: the function; after "remove" it has neither driver nor node. Or the device with the node, which
            `FoundDevice.uio` names, after "remove", too. None if events were lost.
        errors: those that came since the last event of this kind; None unless the action is "error".
    """

    action: Literal["add", "remove", "error", "lost"]
    device: FoundDevice | None
    errors: LinkErrors | None = None

    def __str__(self) -> str:
        if self.device is None:
            return "lost: events were dropped; pyuio.devices() tells what there is now"
        if self.device.address is None:
            named = f" {self.device.uio_name}" if self.device.uio_name else ""
            return f"{self.action} {self.device.uio}{named} of {self.device.device_name}"
        errors = "" if self.errors is None else f": {self.errors}"
        return f"{self.action} {self.device.name} {self.device.ids}{errors}"


class Hotplug(Owned):
    """Reports the PCI functions, and the UIO nodes of other devices, that appear and disappear from now on.

    It does not report those that were present before: make it first, then call `devices`, to miss none. It is a
    context manager. Several threads and asyncio tasks may use it; each event goes to one of them. An "add" comes when
    the function is set up and can be opened; its usual kernel driver may have it by then. Events wait in a queue of
    the kernel, which has room for some hundreds. If it was full, one event "lost" comes after those that were in it,
    whatever the ids asked for, and later events come as before.

    Args:
        ids: report only PCI functions with these id pairs: one, ``1234:11e8``, or several, as in `Driver.ids`; None
            for all.
        errors: report the errors on links, too, within about a second: those that the functions themselves have
            reported, and those that the port above them has.

    Raises:
        ValueError: an id pair does not have that form.
        OSError: the kernel or udev refused.
    """

    def __init__(self, ids: str | Iterable[str] | None = None, *, errors: bool = False) -> None:
        import socket

        import pyudev

        pairs = None if ids is None else {ids} if isinstance(ids, str) else set(ids)
        for pair in pairs or ():
            if not is_id_pair(pair):
                raise ValueError(f"{pair!r} is no id pair such as 1234:11e8")
        self._ids = None if pairs is None else {pair.lower() for pair in pairs}
        self._guard = threading.RLock()  # recursive: a signal handler that closes must not wait for itself
        self._queue: deque[tuple[HotplugEvent, float]] = deque()
        self._users = 0
        self._closed = False
        source = "udev" if Path("/run/udev/control").exists() else "kernel"
        self._monitor: pyudev.Monitor | None = pyudev.Monitor.from_netlink(pyudev.Context(), source)
        self._monitor.filter_by("pci")
        self._monitor.filter_by("uio")
        self._monitor.start()
        self._socket = socket.socket(fileno=os.dup(self._monitor.fileno()))  # for what pyudev does not offer
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waiters = Waiters(self._duplicate)
        self._counters = {one.name: errors for one, errors in self._reported()} if errors else None
        self._next_look = time.monotonic() + _COUNTERS_EVERY
        self.own()

    def _reported(self) -> Iterator[tuple[Path, LinkErrors]]:
        """Yield each function whose errors are to be told of, and how many it has reported."""
        for function in sorted(PCI_DEVICES.glob("*")):
            with suppress(DeviceRemovedError, FileNotFoundError):
                errors = read_link_errors(function)
                if errors is not None and (self._ids is None or self._ids & _ids_of(function)):
                    yield function, errors

    def _look_at_counters(self) -> None:
        """Queue an event for each function that has reported errors since the last look."""
        if self._counters is None or time.monotonic() < self._next_look:
            return
        for function, now in self._reported():
            # A function that came meanwhile began at 0.
            if came := now.since(self._counters.get(function.name, LinkErrors())):
                with suppress(DeviceNotFoundError):
                    self._queue.append((HotplugEvent("error", find(function.name), came), 0.0))
            self._counters[function.name] = now
        self._next_look = time.monotonic() + _COUNTERS_EVERY

    def _duplicate(self) -> int:
        with self._guard:
            return os.dup(self._open_monitor().fileno())

    def _open_monitor(self) -> pyudev.Monitor:
        if self._closed or self._monitor is None:
            raise self.closed_error("this Hotplug")
        return self._monitor

    @contextmanager
    def _in_use(self) -> Iterator[int]:
        """Keep the descriptors open in a ``with`` block, which gets the descriptor of the events."""
        with self._guard:
            descriptor: int = self._open_monitor().fileno()
            self._users += 1
        try:
            yield descriptor
        finally:
            with self._guard:
                self._users -= 1
                self._free()

    def _free(self) -> None:
        if self._closed and not self._users and self._monitor is not None:
            self._monitor = None  # closes its descriptor
            self._socket.close()
            os.close(self._wake)

    def _take(self) -> HotplugEvent | None:
        """Return the next event that can be reported now, or None."""
        with self._guard:
            self._receive()
            if not self._queue:
                return None
            event, latest = self._queue[0]
            if event.action == "add" and event.device is not None:
                if not _is_set_up(event.device) and time.monotonic() <= latest:
                    return None
                event = HotplugEvent("add", event.device.again())
            self._queue.popleft()
            return event

    def _receive(self) -> None:
        """Move what the kernel has queued to the queue of this object; the caller holds the guard."""
        monitor = self._open_monitor()
        lost = False
        while True:
            # After an overflow the socket has an error. pyudev's poll raises as long as it has, and never clears it.
            lost = self._take_error() or lost
            try:
                device = monitor.poll(timeout=0)
            except OSError as error:
                if error.errno == errno.ENOBUFS or self._take_error():
                    lost = True
                    continue
                raise
            if device is None:
                break
            if device.action == "change" and "ERROR_EVENT" in device.properties:
                self._next_look = 0.0
            if device.action not in ("add", "remove"):
                continue
            with suppress(DeviceRemovedError):  # only if the event tells nothing of the function
                found = _node(device) if device.subsystem == "uio" else FoundDevice.from_udev(device)
                if found is not None and (self._ids is None or found.ids in self._ids):
                    self._queue.append((HotplugEvent(device.action, found), time.monotonic() + _LONGEST_SETUP))
        if lost:  # the kernel drops until the queue has been empty (net/netlink/af_netlink.c: netlink_rcv_wake)
            self._queue.append((HotplugEvent("lost", None), 0.0))
        self._look_at_counters()

    def _take_error(self) -> bool:
        """Clear the socket's error, and return whether it was an overflow (netlink(7): ENOBUFS)."""
        import socket

        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error not in (0, errno.ENOBUFS):
            raise OSError(error, f"receiving events of devices: {os.strerror(error)}")
        return error == errno.ENOBUFS

    def _remaining(self, deadline: float | None) -> float | None:
        """Return the longest time to sleep, in seconds; None for no limit."""
        ends = [] if deadline is None else [deadline]
        if self._queue:
            ends.append(time.monotonic() + _LOOK_AGAIN)
        if self._counters is not None:
            ends.append(self._next_look)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def read(self, timeout: float | None = None) -> HotplugEvent:
        """Return the next event, "lost" included; wait for one if there is none.

        Args:
            timeout: seconds to wait; None for ever, 0 not at all.

        Raises:
            DeviceTimeoutError: a `TimeoutError`; no event came in time. If `timeout` is 0, it is its subclass
                `WouldBlockError`, also a `BlockingIOError`.
            ClosedError: this object was closed, before the call or during it, by this thread or another.
            TypeError: the timeout is not a number.
            ValueError: the timeout is negative or NaN.
        """
        deadline = _deadline(timeout)
        with self._in_use() as descriptor:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.register(self._wake, select.POLLIN)
            while True:
                if (event := self._take()) is not None:
                    return event
                if deadline is not None and time.monotonic() >= deadline:
                    raise _nothing_came(timeout)
                poll_with_signals(poller, self._remaining(deadline))

    async def read_async(self, timeout: float | None = None) -> HotplugEvent:
        """Return what `read` returns, while other asyncio tasks run. Arguments and errors are those of `read`."""
        deadline = _deadline(timeout)
        while True:
            if (event := self._take()) is not None:
                return event
            if deadline is not None and time.monotonic() >= deadline:
                raise _nothing_came(timeout)
            await self._waiters.readable(self._remaining(deadline))

    def events(self, timeout: float | None = None) -> Iterator[HotplugEvent]:
        """Yield events until none came for `timeout` seconds (None: no limit), or until this object is closed."""
        while True:
            try:
                event = self.read(timeout)
            except (DeviceTimeoutError, ClosedError):
                return
            yield event

    def call(self, function: Callable[[HotplugEvent], object]) -> None:
        """Start a thread that calls `function` with each event from now on, until this object is closed.

        If `function` raises, `threading.excepthook` gets the exception and the thread ends.

        Raises:
            ClosedError: this object is closed.
        """

        def call_with_each() -> None:
            for event in self.events():
                function(event)

        self._open_monitor()
        threading.Thread(target=call_with_each, name="pyuio hotplug", daemon=True).start()

    def __iter__(self) -> Iterator[HotplugEvent]:
        """Yield events until this object is closed."""
        return self.events()

    def __aiter__(self) -> Hotplug:
        """Return itself: ``async for event in hotplug`` yields events until this object is closed."""
        return self

    async def __anext__(self) -> HotplugEvent:
        """Return what `read_async` returns. StopAsyncIteration: it is closed."""
        try:
            return await self.read_async()
        except ClosedError:
            raise StopAsyncIteration from None

    def close(self) -> None:
        """Stop watching, and end every wait for events. Any thread may call it, and a second call does nothing."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            os.eventfd_write(self._wake, 1)
            self._free()
        self._waiters.wake_all()

    def forget(self) -> None:
        """Close it in a forked child, without waking the parent's waiters and without taking the parent's events."""
        super().forget()
        self._guard = threading.RLock()
        self._closed, self._users = True, 0
        self._free()
        self._waiters.forget()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def __enter__(self) -> Hotplug:
        """Return itself; leaving the block closes it. ClosedError: it is closed already."""
        self._open_monitor()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _deadline(timeout: float | None) -> float | None:
    nanoseconds = timeout_nanoseconds(timeout)
    return None if nanoseconds < 0 else time.monotonic() + nanoseconds / 1e9


def _nothing_came(timeout: float | None) -> Exception:
    return timeout_error(timeout, f"no event of a device came within {timeout} s")


def _ids_of(function: Path) -> set[str]:
    """Return the ids of a function and, as errors on its link may be counted there, of those directly behind it."""
    both = (function, *function.glob("*:*:*.*/"))
    pairs = ((read_optional(one / "vendor"), read_optional(one / "device")) for one in both)
    return {f"{vendor[2:]}:{device[2:]}".lower() for vendor, device in pairs if vendor and device}


def _node(device: pyudev.Device) -> FoundDevice | None:
    """Return the device behind a UIO node, with the node; None for a PCI function, which is reported by itself.

    The node is below it, in its directory ``uio`` (``drivers/base/core.c``: get_device_parent), and may be gone.
    """
    directory = Path(device.sys_path).parent.parent
    if parse_address(directory.name) is not None:
        return None
    name = device.sys_name
    return FoundDevice(directory, None, None, None, link_name(directory / "driver"), name, (name,))


def _is_set_up(device: FoundDevice) -> bool:
    """Return whether a new function can be opened, or is gone again.

    The kernel announces a function (pci_device_add in drivers/pci/probe.c) before it assigns addresses to the BARs and
    admits drivers. Just before it admits drivers, pci_bus_add_device (drivers/pci/bus.c) makes the function's file in
    ``/proc/bus/pci``.
    """
    if device.address is None or not device.directory.exists() or not Path("/proc/bus/pci").is_dir():
        return True
    domain, bus, rest = device.address.split(":")
    return any(Path("/proc/bus/pci", name, rest).exists() for name in (f"{domain}:{bus}", bus))
