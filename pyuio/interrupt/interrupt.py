# SPDX-License-Identifier: MIT
"""The interrupt of a device as a thing to read: each read returns how many came since the last one.

The semantics are those of Peter Chubb's user-mode driver patch of 2005. The interrupt itself masks the line, in the
kernel's handler. A thread that waits unmasks it. So the line is masked unless someone waits, and a driver has all the
time that it needs between reading an interrupt and waiting for the next one.

Who does what:

- ``_native/interrupt.c`` unmasks, sleeps and takes the count, in one call without the GIL. The kernel counts in 32
  bits; the difference modulo 2^32 is taken there.
- `pyuio.interrupt.masking` finds out how a device's interrupt is masked.
- ``_native/_reader.c`` is `Interrupt.read` and `Interrupt.poll`: one call, with no Python frame where it succeeds.
- This module turns results into exceptions, lets Python's signal handlers run, and serves asyncio.

A function in C that waits returns when a signal may have come. The reader then calls a method in Python and waits
again: Python runs its signal handlers between two bytecodes, as PEP 475 asks, and a handler that raises ends the wait.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyuio._native._access import Presence
from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio._native._reader import Reader
from pyuio.errors import (
    BusError,
    ClosedError,
    DeviceBusyError,
    DeviceRemovedError,
    DeviceTimeoutError,
    InterruptUnavailableError,
    ShortBufferError,
)
from pyuio.interrupt.masking import Masking, find_masking
from pyuio.interrupt.shared_wait import Result, SharedWait
from pyuio.kernel.sysfs import translated
from pyuio.kernel.uio import UioNode
from pyuio.pci.config_space import ConfigSpace
from pyuio.process.asyncio_waiters import Waiters
from pyuio.process.fork import Owned
from pyuio.process.timeouts import TimeSource, timeout_error, timeout_nanoseconds

if TYPE_CHECKING:
    from typing_extensions import Buffer

_log = logging.getLogger("pyuio.interrupt")

# Keeps what open interrupts use in C. The garbage collector finalizes in any order, and a device that was forgotten
# uses these objects when its finalizer closes it.
_in_use: dict[int, tuple[Any, Masking]] = {}


def _address(thing: Any) -> int:
    return int(_ffi.cast("uintptr_t", thing))


_READ = _address(_ffi.addressof(_lib, "pyuio_interrupt_read"))
_WAIT = _address(_ffi.addressof(_lib, "pyuio_interrupt_wait"))
_NANOSECONDS = 1_000_000_000
# The kernel's answers for a device that is gone.
_GONE = (errno.EIO, errno.ENODEV, errno.ENXIO)
# An INTx interrupt that was read so often in a row, while nothing was written to the card, is suspicious: from then on
# each read begins with a look at the line. So many looks that find it asserted are enough.
_PATIENCE = _LOOKS = 8
_MOST_PATIENCE = 1 << 20
_NEVER = (1 << 32) - 1


def open_uio_interrupt(
    node: UioNode,
    device: int,
    config: ConfigSpace | None,
    name: str,
    presence: Presence | None = None,
    kind: str | None = None,
) -> Interrupt:
    """Return the interrupt of a UIO device, masked, and with no interrupt pending.

    Args:
        node: the device's UIO node.
        device: a non-blocking descriptor of the node, which stays the caller's.
        config: the device's configuration space; None if it is not a PCI function.
        name: the device's name, for error messages.
        presence: the device's presence; it learns when the device is found to be gone.
        kind: what the interrupt is; see `Interrupt.kind`.

    Raises:
        InterruptUnavailableError: the device has no interrupt that its UIO driver could deliver.
        DeviceRemovedError: the device is gone.
        PermissionDeniedError: this user may not write the configuration space.
    """
    # A duplicate is the same open file to the kernel: it has one listener, and is released once.
    device = os.dup(device)
    try:
        pending = _kernel_total(node, device, name, config is not None)
        masking = find_masking(node, device, config)
        # Interrupts that came before the opening are read and forgotten.
        total = _kernel_total(node, device, name, config is not None, pending)
        native = _lib.pyuio_interrupt_new(device, total)
        if native == _ffi.NULL:
            raise OSError(_ffi.errno, f"{name}: no memory or descriptor for its interrupt")
    except BaseException:
        os.close(device)
        raise

    def free(pointer: Any, _kept: Masking = masking) -> None:
        # Freeing masks, and masking may use the command register: so the default argument keeps that, in whatever order
        # the garbage is collected.
        _lib.pyuio_interrupt_free(pointer)

    _log.debug("%s: its interrupt is masked %s", name, masking.description)
    return Interrupt(_ffi.gc(native, free), masking, name, presence, kind)


def _kernel_total(node: UioNode, device: int, name: str, is_pci: bool, otherwise: int | None = None) -> int:
    try:
        return int.from_bytes(os.read(device, 4), sys.byteorder)
    except BlockingIOError:
        return node.event_count if otherwise is None else otherwise
    except OSError as error:
        if error.errno != errno.EIO:
            raise translated(error, f"reading {node.path}") from error
        why = "its kernel driver was given none (in a device tree: interrupts)"
        if is_pci:
            why = "it has no INTx pin, or the firmware routed that nowhere"
        reason = (
            f"{name} has no interrupt that {node.driver_name} could deliver: {why}; poll a status register of the "
            f"device instead"
        )
        raise InterruptUnavailableError(errno.ENXIO, reason) from error


class Interrupt(Owned, Reader):
    """The interrupt of an open device, masked unless someone waits.

    `read` and `poll` come from the compiled `Reader`; ``pyuio/_native/_reader.pyi`` says what they do and raise.

    Several threads and asyncio tasks may call its methods; each interrupt is counted in one read only. A device has one
    interrupt, `Device.interrupt`.

    Args:
        native: the object in C, which this one owns from then on.
        masking: the way in which it is masked.
        name: the device's name, for error messages.
        presence: the device's presence; it learns when the device is found to be gone.
        kind: see below.

    Attributes:
        name: the device's name.
        kind: "INTx", "MSI" or "MSI-X"; None if the device is not a PCI function.
        clock: the time of the device, as `Device.clock`.
    """

    clock: TimeSource = time
    _nanoseconds = staticmethod(timeout_nanoseconds)  # for `Reader`

    def __init__(
        self, native: Any, masking: Masking, name: str, presence: Presence | None = None, kind: str | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self._presence = presence
        self._native = native
        self._descriptor = int(_lib.pyuio_interrupt_descriptor(native))
        self._masking = masking
        self._waiters = Waiters(self._duplicate)
        self._shared_wait = SharedWait()
        self._first = int(_lib.pyuio_interrupt_total(native))
        patience = _PATIENCE if kind == "INTx" else _NEVER
        self._connect(_address(native), _READ, _WAIT, native, presence, self._waiters.loops, patience)
        masking.install(native)
        self.checked(_lib.pyuio_interrupt_mask(native), "masking the interrupt")
        _in_use[id(native)] = native, masking

    @property
    def native(self) -> Any:
        """The object in C, for `pyuio.service`."""
        return self._native

    def begin_service(self) -> None:
        """Make a `pyuio.Service` the only reader, until ``pyuio_service_wait_end``.

        Raises:
            DeviceBusyError: a service has the interrupt, or somebody waits for it.
            ClosedError: the interrupt is closed.
        """
        self._require_there()
        busy = bool(self._waiters.loops)
        self.checked(-errno.EBUSY if busy else _lib.pyuio_service_wait_begin(self._native), "serving it")

    def notice(self, result: int) -> None:
        """Tell all parts of the device if `result`, which a function in C returned, means that the device is gone."""
        if self._presence is not None and -result in _GONE:
            self._presence.note_gone()

    def _require_there(self) -> None:
        # Another part of the device may have noticed before the kernel does.
        if self._presence is not None and self._presence.gone and not self.closed:
            self._presence.require()

    def require_open(self) -> None:
        """Ask the kernel. ClosedError: the interrupt is closed. DeviceRemovedError: the device is gone."""
        self.checked(_lib.pyuio_interrupt_is_pending(self._native), "looking for an interrupt")

    def checked(self, result: int, doing: str) -> int:
        """Return what a function in C returned, or raise the error that it means; `doing` is for the message."""
        if result >= 0:
            return result
        self.notice(result)
        if result == _lib.PYUIO_CLOSED:
            raise self.closed_error(f"the interrupt of {self.name}")
        if -result == errno.EBADF:
            raise ClosedError(f"{self.name}: the descriptor of its interrupt was closed by something else")
        if -result == errno.EBUSY:
            raise DeviceBusyError(errno.EBUSY, f"{self.name}: a native service has its interrupt, or somebody waits")
        if -result == errno.EIO:
            reason = f"{self.name}: {doing}: {os.strerror(-result)}; the device was removed or unbound"
            raise DeviceRemovedError(errno.ENODEV, reason)
        if -result == errno.EFAULT:
            if self._presence is not None:
                self._presence.require()
            why = "no register is there, or none of this width; or the device has no power or no clock"
            raise BusError(errno.EFAULT, f"{self.name}: {doing}: the bus answered an access with an error: {why}")
        raise translated(OSError(-result, os.strerror(-result)), f"{self.name}: {doing}")

    def _failed(self, result: int) -> None:
        """Raise the error that a result of a waiting function in C means; for `Reader`."""
        self.checked(result, "waiting for an interrupt")

    def _look_for_signals(self) -> None:
        """Let Python run its signal handlers, which it does between two bytecodes; for `Reader`."""

    def _look_at_line(self) -> None:
        """Warn once if nobody acknowledges the interrupt; for `Reader`, before a read.

        By then the driver has had its turn with the interrupts that were read. If the line is still asserted, and that
        again and again, while the driver has written to no register, then each unmasking lets the same interrupt fire
        again. A line that is not asserted, as of a card that clears a cause when it is read, earns twice the patience.
        """
        if not self._asserts():
            self._unwritten = 0
            self._patience = min(2 * self._patience, _MOST_PATIENCE)
        elif self._unwritten >= self._patience + _LOOKS:
            _log.warning(
                "%s: its interrupt was still asserted after each of the last %d reads, and this process wrote to no "
                "register in between: acknowledge it, or it fires again at each wait (docs/interrupts.md)",
                self.name,
                _LOOKS,
            )
            self._patience = _NEVER

    def _asserts(self) -> bool:
        """Return whether the device asserts its INTx line, masked or not."""
        return self._presence is not None and self._presence.asserts_interrupt()

    def _took_one(self) -> None:
        """Have the tasks that wait arm the interrupt, which was taken and is masked; for `Reader`."""
        self._waiters.call_on_all(self._rearm)

    def readinto(self, buffer: Buffer, timeout: float | None = None) -> int:
        """Read the count into a buffer, as the patch's read did: an unsigned 32-bit integer in native byte order.

        Args:
            buffer: writable, 4 bytes or more; the count goes into the first 4.
            timeout: as for `read`.

        Returns:
            4, the number of bytes written.

        Raises:
            ShortBufferError: an `OSError` with EINVAL; the buffer has fewer than 4 bytes. Nothing was read.
            TypeError: `buffer` is not a writable buffer.
        Other errors are those of `read`.
        """
        with memoryview(buffer) as view, view.cast("B") as octets:
            if view.readonly:
                raise TypeError(f"{self.name}: the buffer cannot be written to")
            if len(octets) < 4:
                raise ShortBufferError(errno.EINVAL, f"{self.name}: {len(octets)} bytes are too short for its 4")
            octets[:4] = self.read(timeout).to_bytes(4, sys.byteorder)
        return 4

    async def read_async(self, timeout: float | None = None) -> int:
        """Return what `read` returns, while other asyncio tasks run.

        Any number of tasks may wait, on any event loops. A task that is cancelled takes no interrupt with it.

        Args:
            timeout: seconds to wait; None waits for ever, 0 does not wait.

        It raises the errors of `read`.
        """
        remaining = timeout_nanoseconds(timeout)
        deadline = None if remaining < 0 else time.monotonic() + remaining / _NANOSECONDS
        in_time = True
        self._require_there()
        if self._unwritten >= self._patience:
            self._look_at_line()
        while True:
            count = self.checked(_lib.pyuio_interrupt_read(self._native, 0), "waiting for an interrupt")
            if count:
                self._note_read()
                self._took_one()  # the loop rearms soon, not now: this task acknowledges the interrupt first
                return count
            if not in_time:
                raise self.timed_out(timeout)
            in_time = await self._waiters.readable(None if deadline is None else deadline - time.monotonic())

    def wait_until(
        self, condition: Callable[[], Result], serve: Callable[[int], object], timeout: float | None = None
    ) -> Result:
        """Wait until `condition` holds, and serve the interrupts that come until then.

        Any number of threads and tasks may wait with different conditions, such as drivers of two ports behind one
        interrupt. One of them reads the interrupt and calls its `serve`, for all; then each looks whether its condition
        holds. Nobody serves an interrupt that comes while nobody waits: it stays pending.

        Args:
            condition: returns what the caller waits for, or something false. It is called first, before any waiting,
                and again after each interrupt.
            serve: is called with the number of interrupts, by one waiter at a time. It acknowledges them and notes what
                happened, for all waiters: so it is the same function, or does the same, in all of them.
            timeout: seconds to wait; None waits for ever, 0 serves what is pending.

        Returns:
            What `condition` returned.

        Raises:
            DeviceTimeoutError: a `TimeoutError`; the condition did not hold in time. If `timeout` is 0, it is its
                subclass `WouldBlockError`.
            DeviceBusyError: a native service has the interrupt; it reads for all. Or this thread waits already, and
                `condition`, `serve` or a signal handler calls it again.
            TypeError: `condition` or `serve` is no function, or a coroutine function.
        Other errors are those of `read`, and what `condition` and `serve` raise.
        """
        self._require_there()
        return self._shared_wait.wait(self, condition, serve, timeout)

    async def wait_until_async(
        self, condition: Callable[[], Result], serve: Callable[[int], object], timeout: float | None = None
    ) -> Result:
        """Do what `wait_until` does, while other asyncio tasks run. Threads may wait at the same time."""
        self._require_there()
        return await self._shared_wait.wait_async(self, condition, serve, timeout)

    def _rearm(self) -> None:
        """Unmask for the tasks that still wait: the waiter that took an interrupt left it masked."""
        if self._waiters.loops:
            _lib.pyuio_interrupt_arm(self._native)

    def _duplicate(self) -> int:
        self.checked(_lib.pyuio_interrupt_hold(self._native), "waiting for an interrupt")
        try:
            return os.dup(self._descriptor)
        finally:
            _lib.pyuio_interrupt_release(self._native)

    def timed_out(self, timeout: float | None) -> DeviceTimeoutError:
        """Return the error that says that no interrupt came within `timeout` seconds, and what may be the cause."""
        if timeout == 0:
            return timeout_error(timeout, f"{self.name}: no interrupt is pending; it is unmasked now")
        return timeout_error(timeout, f"{self.name}: no interrupt came within {timeout} s{self._masking.advice}")

    @property
    def pending(self) -> bool:
        """Whether an interrupt is pending, for `read`; asking changes nothing. ClosedError: the interrupt is closed."""
        result = self.checked(_lib.pyuio_interrupt_is_pending(self._native), "looking for an interrupt")
        return result == _lib.PYUIO_READY

    @property
    def total(self) -> int:
        """How many interrupts were read since the opening, modulo 2^32."""
        now = _lib.pyuio_interrupt_total(self._native)
        return int(_lib.pyuio_difference_modulo_2_32(now, self._first))

    @property
    def masked(self) -> bool:
        """Whether the interrupt is masked now. ClosedError: the interrupt is closed."""
        self.require_open()
        return self._masking.is_masked(self._native)

    def mask(self) -> None:
        """Mask the interrupt; do nothing where the kernel driver offers no way. The errors are those of `read`."""
        self.checked(_lib.pyuio_interrupt_mask(self._native), "masking the interrupt")

    def unmask(self) -> None:
        """Unmask the interrupt; the next one masks it again. The errors are those of `read`."""
        self.checked(_lib.pyuio_interrupt_unmask(self._native), "unmasking the interrupt")

    def fileno(self) -> int:
        """Return a descriptor for select and the like; it is readable, too, once the device is gone.

        A `read` with a timeout of 0 that raises `BlockingIOError` has armed the interrupt: the descriptor becomes
        readable with the next one. ClosedError: the interrupt is closed.
        """
        self.require_open()
        return self._descriptor

    @contextmanager
    def armed(self) -> Iterator[tuple[int, int, bool]]:
        """Unmask the interrupt and keep it open in a ``with`` block, for a caller that does its own waiting.

        Yields the descriptor that becomes readable with an interrupt, the descriptor that becomes readable when the
        interrupt is closed, and whether an interrupt is pending already. The errors are those of `read`.
        """
        self._require_there()
        self.checked(_lib.pyuio_interrupt_hold(self._native), "waiting for an interrupt")
        _lib.pyuio_interrupt_count_sleeper(self._native, 1)
        try:
            ready = self.checked(_lib.pyuio_interrupt_arm(self._native), "unmasking the interrupt") == _lib.PYUIO_READY
            yield self._descriptor, _lib.pyuio_interrupt_wake_descriptor(self._native), ready
        finally:
            _lib.pyuio_interrupt_count_sleeper(self._native, -1)
            _lib.pyuio_interrupt_release(self._native)

    @contextmanager
    def lent(self) -> Iterator[int]:
        """Leave the interrupt to another process in a ``with`` block; it is masked at the end.

        Yields the descriptor, which blocks meanwhile, of the node or eventfd that the process reads. `read` and the
        like raise DeviceBusyError.

        Raises:
            DeviceBusyError: a service has the interrupt, or somebody waits for it.
            ClosedError: the interrupt is closed.
        """
        self.begin_service()
        try:
            yield int(_lib.pyuio_interrupt_source(self._native))
        finally:
            _lib.pyuio_service_wait_end(self._native)

    def __iter__(self) -> Iterator[int]:
        """Yield the results of `read`, for ever."""
        while True:
            yield self.read()

    def __aiter__(self) -> Interrupt:
        """Return itself: ``async for count in interrupt`` gives the results of `read_async`, for ever."""
        return self

    async def __anext__(self) -> int:
        """Return what `read_async` returns."""
        return await self.read_async()

    def let_go(self) -> None:
        """End every wait for the interrupt of a device that is gone with `DeviceRemovedError`, now and later."""
        _lib.pyuio_interrupt_note_gone(self._native)

    def close(self) -> None:
        """Mask the interrupt, end every wait for it with `ClosedError`, and free it. A second close does nothing."""
        _lib.pyuio_interrupt_close(self._native)
        _in_use.pop(id(self._native), None)
        self._waiters.wake_all()

    def forget(self) -> None:
        """In a forked child: close it there. This neither masks it nor wakes the parent's threads that wait for it."""
        super().forget()
        _lib.pyuio_interrupt_forget(self._native)
        self._waiters.forget()
        self._shared_wait.forget()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(_lib.pyuio_interrupt_is_pending(self._native) == _lib.PYUIO_CLOSED)

    def __enter__(self) -> Interrupt:
        """Return itself; leaving the block closes it. ClosedError: the interrupt is closed."""
        self.require_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"masked {self._masking.description}, {self.total} read"
        return f"<pyuio.Interrupt of {self.name}: {state}>"
