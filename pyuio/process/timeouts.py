# SPDX-License-Identifier: MIT
"""Timeouts as pyuio's callers give them: a number of seconds, or None for ever."""

from __future__ import annotations

import errno
import math
from typing import Protocol

from pyuio.errors import DeviceTimeoutError, WouldBlockError

_NANOSECONDS = 1_000_000_000
_FOR_EVER = -1
# 292 years; ppoll accepts more.
_LONGEST = (1 << 63) - 1


class TimeSource(Protocol):
    """What tells the time of a device and sleeps: the module `time`, or the virtual time of a card in Python."""

    def monotonic(self) -> float:
        """Return the seconds since some start."""

    def sleep(self, seconds: float, /) -> None:
        """Return after so many seconds."""


def timeout_nanoseconds(timeout: float | None) -> int:
    """Return a timeout in seconds as nanoseconds; -1 for None, which waits for ever.

    Raises:
        TypeError: the timeout is neither a number nor None.
        ValueError: the timeout is negative or NaN.
    """
    if timeout is None:
        return _FOR_EVER
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds or None, not {type(timeout).__name__}")
    if (isinstance(timeout, float) and math.isnan(timeout)) or timeout < 0:
        raise ValueError(f"a timeout is 0 or more seconds, not {timeout}")
    # Compared before it is multiplied: an int may be larger than any float.
    return _LONGEST if timeout >= _LONGEST // _NANOSECONDS else int(timeout * _NANOSECONDS)


def timeout_error(timeout: float | None, reason: str) -> DeviceTimeoutError:
    """Return the error of a wait whose time limit is over: a `WouldBlockError` if the limit was 0."""
    if timeout == 0:
        return WouldBlockError(errno.EAGAIN, reason)
    return DeviceTimeoutError(errno.ETIMEDOUT, reason)
