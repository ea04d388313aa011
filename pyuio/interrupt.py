# SPDX-License-Identifier: MIT
"""The interrupt of a device as a thing to read: each read returns how many came since the last one.

The line is masked by the interrupt itself and unmasked while someone waits, as in Peter Chubb's user-mode driver patch
of 2005. The waiting is in ``_native/waiting.c``; here are the ways of masking and what Python sees.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Iterator
from typing import Any, Protocol

from pyuio._native._waiting import ffi as _ffi
from pyuio._native._waiting import lib as _lib
from pyuio.errors import (
    ClosedError,
    DeviceRemovedError,
    DeviceTimeoutError,
    InterruptUnavailableError,
    WouldBlockError,
)
from pyuio.pci import Command, ConfigSpace
from pyuio.sysfs import translated
from pyuio.uio import UioNode


_NANOSECONDS = 1_000_000_000
_FOR_EVER = -1
# ppoll takes more, but this is 292 years.
_LONGEST = (1 << 63) - 1


def timeout_nanoseconds(timeout: float | None) -> int:
    """Return a timeout in seconds as nanoseconds, -1 for None, which waits for ever.

    Raises:
        TypeError: it is neither a number nor None.
        ValueError: it is negative or not a number (NaN).
    """
    if timeout is None:
        return _FOR_EVER
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds or None, not {type(timeout).__name__}")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"a timeout is 0 or more seconds, not {timeout}")
    return _LONGEST if timeout * _NANOSECONDS >= _LONGEST else int(timeout * _NANOSECONDS)


class Masking(Protocol):
    """One way of keeping a device's interrupt from the processor."""

    def install(self, native: Any) -> None:
        """Tell the native part how it masks."""

    def is_masked(self, native: Any) -> bool:
        """Return whether the interrupt is masked now."""


class NoMasking:
    """The kernel driver offers no way: the interrupt is never masked from here."""

    def install(self, native: Any) -> None:
        """Nothing to tell: so the native part starts."""

    def is_masked(self, native: Any) -> bool:
        """Return False."""
        return False


class IrqControlMasking:
    """By writing 1 or 0 to ``/dev/uioN``, which calls the kernel driver's irqcontrol."""

    def install(self, native: Any) -> None:
        """Tell the native part to write."""
        _lib.pyuio_mask_by_write(native)

    def is_masked(self, native: Any) -> bool:
        """Return whether it was masked from here, or by an interrupt that was read or waits to be read."""
        return bool(_lib.pyuio_is_masked(native)) or _lib.pyuio_is_pending(native) == _lib.PYUIO_READY


class CommandRegisterMasking:
    """By the Interrupt Disable bit of the command register, as ``uio_pci_generic`` does in its handler.

    Args:
        config: the owner of the command register.
    """

    def __init__(self, config: ConfigSpace) -> None:
        self._config = config
        self._enabled = _ffi.from_buffer("uint8_t[2]", config.enabled_command)

    def install(self, native: Any) -> None:
        """Tell the native part where the command register is and what to write to it."""
        result = _lib.pyuio_mask_by_command(native, self._config.fileno(), self._enabled)
        if result < 0:
            raise OSError(-result, f"keeping the {self._config.name}: {os.strerror(-result)}")

    def is_masked(self, native: Any) -> bool:
        """Return the Interrupt Disable bit, read from the device now."""
        return Command.INTERRUPT_DISABLE in self._config.command


def _find_masking(node: UioNode, device: int, config: ConfigSpace | None) -> Masking:
    try:
        os.write(device, bytes(4))  # irqcontrol(0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise translated(error, f"masking the interrupt of {node.path}") from error
    else:
        return IrqControlMasking()
    if config is not None and node.driver_name == "uio_pci_generic":
        return CommandRegisterMasking(config)
    return NoMasking()


class Interrupt:
    """The interrupt of an open device.

    It starts masked, with nothing pending. Methods may be called from several threads; each interrupt is counted in
    one read only.

    Args:
        node: the device's UIO node.
        device: a descriptor of it, non-blocking, which stays the caller's.
        config: its configuration space, or None for what is not a PCI function.
        name: what error messages call the device.

    Raises:
        InterruptUnavailableError: the device has no interrupt that its UIO driver could deliver.
        DeviceRemovedError: the device is gone.
        PermissionDeniedError: this user may not open the node or write the configuration space.
    """

    def __init__(self, node: UioNode, device: int, config: ConfigSpace | None, name: str) -> None:
        self.name = name
        # A duplicate is the same open file to the kernel: one listener, released once.
        device = os.dup(device)
        try:
            pending = self._kernel_total(node, device)
            self._masking = _find_masking(node, device, config)
            if isinstance(self._masking, CommandRegisterMasking) and config is not None:
                config.change_command(set=Command.INTERRUPT_DISABLE)
            # What came before is nobody's: it is read and forgotten.
            pending = self._kernel_total(node, device, pending)
            native = _lib.pyuio_new(device, pending)
            if native == _ffi.NULL:
                raise OSError(_ffi.errno, f"{name}: no memory or descriptor for its interrupt")
        except BaseException:
            os.close(device)
            raise
        self._device = device
        self._native = _ffi.gc(native, _lib.pyuio_free)
        self._masking.install(self._native)
        self._checked(_lib.pyuio_mask(self._native), "masking the interrupt")
        self._first = pending

    def _kernel_total(self, node: UioNode, device: int, otherwise: int | None = None) -> int:
        try:
            return int.from_bytes(os.read(device, 4), "little")
        except BlockingIOError:
            return node.event_count if otherwise is None else otherwise
        except OSError as error:
            if error.errno != errno.EIO:
                raise translated(error, f"reading {node.path}") from error
            reason = (
                f"{self.name} has no interrupt: {node.driver_name} serves INTx only, and the device has no INTx pin or "
                f"the firmware routed it nowhere"
            )
            raise InterruptUnavailableError(errno.ENXIO, reason) from error

    def _checked(self, result: int, doing: str) -> int:
        if result >= 0:
            return result
        if result == _lib.PYUIO_CLOSED:
            raise ClosedError(f"{self.name}: its interrupt is closed")
        if -result in (errno.EIO, errno.EBADF):
            reason = f"{self.name}: {doing}: {os.strerror(-result)}; the device was removed or unbound"
            raise DeviceRemovedError(errno.ENODEV, reason)
        raise translated(OSError(-result, os.strerror(-result)), f"{self.name}: {doing}")

    def _wait(self, function: Any, timeout: float | None) -> int:
        """Call a waiting function until it has a result other than a signal, and return that."""
        remaining = timeout_nanoseconds(timeout)
        deadline = None if remaining <= 0 else time.monotonic_ns() + remaining
        while (result := function(self._native, remaining)) == _lib.PYUIO_SIGNAL:
            # Python's signal handlers run here, between two bytecodes.
            if deadline is not None:
                remaining = max(0, deadline - time.monotonic_ns())
        return self._checked(result, "waiting for an interrupt")

    def read(self, timeout: float | None = None) -> int:
        """Return how many interrupts came since the last read, waiting for one if there is none.

        If some are pending, they are returned at once, and the interrupt stays masked. Otherwise it is unmasked and
        waited for; the next interrupt masks it again.

        Args:
            timeout: seconds to wait, None for ever, 0 not at all.

        Returns:
            1 to 2^32 - 1; the kernel's own count wraps there.

        Raises:
            WouldBlockError: a `BlockingIOError`; `timeout` is 0 and none is pending. The interrupt is unmasked.
            DeviceTimeoutError: a `TimeoutError`; none came in time. The interrupt is unmasked.
            ClosedError: it is closed, before or meanwhile.
            DeviceRemovedError: the device was removed or unbound, before or meanwhile.
            TypeError: the timeout is not a number.
            ValueError: the timeout is negative or NaN.
        """
        count = self._wait(_lib.pyuio_read, timeout)
        if count:
            return count
        if timeout == 0:
            raise WouldBlockError(errno.EAGAIN, f"{self.name}: no interrupt is pending; it is unmasked now")
        raise DeviceTimeoutError(errno.ETIMEDOUT, f"{self.name}: no interrupt came within {timeout} s")

    def poll(self, timeout: float | None = 0) -> bool:
        """Return whether an interrupt is pending, after waiting for one up to `timeout` seconds, unmasked meanwhile.

        None waits for ever. The interrupt is left for `read`, whose errors this has, too, but for the first two.
        """
        return self._wait(_lib.pyuio_wait, timeout) == _lib.PYUIO_READY

    @property
    def pending(self) -> bool:
        """Whether an interrupt waits to be read; asking changes nothing. ClosedError: it is closed."""
        return self._checked(_lib.pyuio_is_pending(self._native), "looking for an interrupt") == _lib.PYUIO_READY

    @property
    def total(self) -> int:
        """Interrupts read since it was opened, modulo 2^32."""
        return (int(_lib.pyuio_total(self._native)) - self._first) & 0xFFFFFFFF

    @property
    def masked(self) -> bool:
        """Whether the interrupt is masked now. ClosedError: it is closed."""
        self._checked(_lib.pyuio_is_pending(self._native), "looking for an interrupt")
        return self._masking.is_masked(self._native)

    def mask(self) -> None:
        """Mask the interrupt; nothing where the kernel driver offers no way. Raises what `read` raises."""
        self._checked(_lib.pyuio_mask(self._native), "masking the interrupt")

    def unmask(self) -> None:
        """Unmask the interrupt; the next one masks it again. Raises what `read` raises."""
        self._checked(_lib.pyuio_unmask(self._native), "unmasking the interrupt")

    def fileno(self) -> int:
        """Return the descriptor of ``/dev/uioN``, for select and its kin. ClosedError: it is closed.

        Once `read` with a timeout of 0 has raised `BlockingIOError`, the interrupt is armed: the descriptor becomes
        readable with the next one.
        """
        self._checked(_lib.pyuio_is_pending(self._native), "looking for an interrupt")
        return self._device

    def __iter__(self) -> Iterator[int]:
        """Yield what `read` returns, for ever."""
        while True:
            yield self.read()

    def close(self) -> None:
        """Mask the interrupt, end every wait for it with `ClosedError`, and free it; again is harmless."""
        # The answer does not matter: closed already, or a device that is gone.
        _lib.pyuio_mask(self._native)
        _lib.pyuio_close(self._native)

    def __enter__(self) -> Interrupt:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
