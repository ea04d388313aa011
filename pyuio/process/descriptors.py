# SPDX-License-Identifier: MIT
"""Descriptors of this process that others may still use when their file has to be closed."""

from __future__ import annotations

import os
from contextlib import suppress

_NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt
_nothing = -1


def reserve_nothing() -> int:
    """Return a descriptor of ``/dev/null``, which is kept: when it is needed, there may be no descriptor left."""
    global _nothing
    with suppress(OSError):  # the program may have closed it, as daemons close all
        if os.fstat(_nothing).st_rdev == _NULL_DEVICE:
            return _nothing
    _nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return _nothing


def replace_descriptor(number: int) -> None:
    """Close the file of a descriptor, and keep its number occupied, so that no other file gets it.

    Other threads that use the number finish what they are at, or find ``/dev/null``. After `reserve_nothing` it needs
    no further descriptor.
    """
    os.dup2(reserve_nothing(), number, inheritable=False)
