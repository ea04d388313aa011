# SPDX-License-Identifier: MIT
"""The parts that the two kinds of region share, whether they access by a load or by a system call."""

from __future__ import annotations

import errno
import operator
import os
import time
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, SupportsIndex, TypeVar, cast

from pyuio.errors import ClosedError, DeviceRemovedError, MappingError
from pyuio.kernel.sysfs import translated
from pyuio.process.timeouts import TimeSource, timeout_error

if TYPE_CHECKING:
    from types import TracebackType

    from pyuio._native._access import Endian, Presence

# All in seconds. poll32 first looks as often as it can for _SPIN, as most registers answer within microseconds. Then it
# sleeps between two looks, so that a long wait takes no processor time; each pause is twice as long as the one before.
_SPIN = 50e-6
_FIRST_PAUSE = 20e-6
_LAST_PAUSE = 1e-3
# Seconds after which a wait asks again whether the device is still there, whatever the register reads as.
_ASK_AGAIN = 5e-3
_FOR_EVER = 1e18  # seconds: longer than anything runs
# Seconds; only virtual time gets there, which tells if nothing can come any more.
_LONG = 1e6
_CENTURIES = 1e9


class _Readable(Protocol):
    """The part of a region that the shared methods use."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def address(self) -> int | None: ...
    @property
    def endian(self) -> Endian: ...
    @property
    def closed(self) -> bool: ...
    @property
    def presence(self) -> Presence | None: ...
    def close(self) -> None: ...
    def read32(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int: ...


_Self = TypeVar("_Self", bound=_Readable)


class Pace:
    """Decides when to look at a register again, with the pauses of `Common.poll32`.

    Args:
        timeout: seconds from 0 on, or None for ever.
        presence: checked now and then, and at the end, for whether the device is still there; None if it cannot go.
        clock: tells the time and sleeps, as `Device.clock` does.

    Raises:
        ValueError: the timeout is negative or not a number.
        TypeError: the timeout is of a wrong type.
    """

    __slots__ = ("_asked", "_clock", "_pause", "_presence", "_start", "_timeout", "elapsed")

    def __init__(self, timeout: float | None, presence: Presence | None = None, clock: TimeSource = time) -> None:
        if timeout is not None and not isinstance(timeout, Real):
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds from 0, not {timeout}")
        # An int may be larger than any float.
        self._timeout = None if timeout is None else float(min(timeout, _FOR_EVER))
        self._pause = _FIRST_PAUSE
        self._presence = presence
        self._asked = 0.0
        self._clock = clock
        self._start = clock.monotonic()
        self.elapsed = 0.0
        """Seconds from the start to just before the last look."""

    def goes_on(self) -> bool:
        """Return, after a look, whether to look again; sleep first if it is time to.

        Raises:
            DeviceRemovedError: the device is gone.
        """
        over = self._timeout is not None and self.elapsed >= self._timeout
        if self._presence is not None and (over or self.elapsed >= self._asked + _ASK_AGAIN):
            self._presence.require()
            self._asked = self.elapsed
        if over:
            return False
        if self.elapsed >= _SPIN:
            left = _FOR_EVER if self._timeout is None else self._timeout - self.elapsed
            if self.elapsed >= _LONG and left > _CENTURIES:
                cast("Any", self._clock).require_more()
            self._clock.sleep(min(self._pause, left, _LONG))
            # In virtual time nobody waits for the end of a pause.
            self._pause = min(2 * self._pause, _LAST_PAUSE) if self._clock is time else 2 * self._pause
        # Taken before the look, so that one look follows the deadline.
        self.elapsed = self._clock.monotonic() - self._start
        return True


class Common:
    """Methods that the two kinds of region share. The class has no state, so that it costs `Region` nothing."""

    __slots__ = ()

    def poll32(
        self: _Readable,
        offset: SupportsIndex,
        mask: int,
        value: int,
        timeout: float | None,
        *,
        endian: Endian | None = None,
    ) -> int:
        """Read a 32-bit register until its bits in `mask` are those of `value`.

        The method looks without a pause for 50 us, then with pauses that grow to 1 ms. Other threads and signal
        handlers run in the pauses. The last look follows the deadline: if the process could not run for a while, it
        does not time out although the device is ready. Every 5 ms the method checks that the device is still there.

        Args:
            offset: in bytes, a multiple of 4.
            mask: the bits to look at.
            value: the value to wait for; no bits outside `mask`.
            timeout: in seconds, at least 0; 0 looks once, None waits for ever.
            endian: byte order of the register, the region's if None.

        Returns:
            The value read, with all its bits.

        Raises:
            DeviceTimeoutError: the bits had another value at each look until the deadline; for a timeout of 0 it is
                its subclass `WouldBlockError`.
            ValueError: as `read32`; a mask or value beyond 32 bits, a value that cannot match, a timeout that is
                negative or not a number.
            TypeError: a wrong type.
            ClosedError: the region was closed, perhaps by another thread meanwhile.
            DeviceRemovedError: the device was removed or unbound, before or meanwhile.
        """
        mask, value = operator.index(mask), operator.index(value)
        if not 0 <= mask <= 0xFFFF_FFFF or not 0 <= value <= 0xFFFF_FFFF or value & ~mask:
            raise ValueError(
                f"{self.name}: a value of {value:#x} under mask {mask:#x} cannot be found in a 32-bit register"
            )
        pace = Pace(timeout, self.presence, getattr(self, "clock", time))
        while True:
            last = self.read32(offset, endian=endian)
            if last & mask == value:
                return last
            if not pace.goes_on():
                raise timeout_error(
                    timeout,
                    f"{self.name}: the register at offset {operator.index(offset):#x} was still {last:#010x} after "
                    f"{pace.elapsed:.6f} s; waited for {value:#x} under mask {mask:#x}",
                )

    def __enter__(self: _Self) -> _Self:
        if self.closed:
            raise ClosedError(f"{self.name} is closed")
        return self

    def __exit__(
        self: _Readable,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self: _Readable) -> str:
        address = "" if self.address is None else f" at {self.address:#x}"
        big = ", big-endian" if self.endian == "big" else ""
        return f"<{type(self).__name__} {self.name}: {self.size:#x} bytes{address}{big}{', closed' * self.closed}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: it is a part of this process's memory")


def checked_size(size: SupportsIndex, name: str) -> int:
    """Return the size of the region called `name`, in bytes, or raise TypeError or ValueError."""
    size = operator.index(size)
    if size < 1:
        raise ValueError(f"{name}: the size must be at least 1 byte, not {size}")
    return size


def checked_endian(endian: Endian) -> Endian:
    """Return `endian`, or raise TypeError or ValueError."""
    if not isinstance(endian, str):
        raise TypeError(f"endian must be a str, not {type(endian).__name__}")
    if endian not in ("little", "big"):
        raise ValueError(f"endian must be 'little' or 'big', not {endian!r}")
    return endian


def refused(error: OSError, doing: str, path: str) -> Exception:
    """Return pyuio's error for a `path` that could not be opened or mapped; `doing` says what was tried."""
    reason = f"{doing}: {os.strerror(error.errno or errno.EIO)}"
    if error.errno in (errno.ENOENT, errno.ENODEV) and not Path(path).parent.exists():
        return DeviceRemovedError(errno.ENODEV, f"{reason}; the device was removed")
    # Errors of drivers/pci/pci-sysfs.c, pci_mmap_resource(), and fs/kernfs/file.c, kernfs_fop_mmap().
    advice = {
        errno.ENOENT: "the device has no such BAR (only a prefetchable one has a file that ends in _wc)",
        errno.ENODEV: "this cannot be mapped; if it is a BAR of I/O ports, use PortRegion",
        errno.EINVAL: "a kernel driver keeps the BAR for itself, or it is smaller than was asked for",
    }
    if error.errno in advice:
        return MappingError(error.errno, f"{reason}; {advice[error.errno]}")
    return translated(error, doing, MappingError)
