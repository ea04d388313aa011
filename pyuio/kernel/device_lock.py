# SPDX-License-Identifier: MIT
"""The lock that the kernel takes of a device for a moment, for instance while a process reads its `uevent`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

_PATIENCE = 1.0  # seconds; who has the lock longer than that has a reason
_PAUSE = 0.001  # seconds


def when_free(request: Callable[[], _T]) -> _T:
    """Return what a request of VFIO returns; repeat it for a second while the kernel answers EAGAIN.

    VFIO resets a function when it hands it out. It does not wait for the function's lock then, but gives EAGAIN
    (``drivers/pci/pci.c``, pci_dev_trylock).

    Raises:
        OSError: the kernel's answer; BlockingIOError if the function was locked for all of the second.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return request()
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                reason = "the kernel had the function locked for a second: something binds, resets or reads it"
                raise BlockingIOError(error.errno, reason) from error
        time.sleep(_PAUSE)
