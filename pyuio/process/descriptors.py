# SPDX-License-Identifier: MIT
"""Descriptors of this process that others may still use when their file has to be closed."""

from __future__ import annotations

import os


def replace_descriptor(number: int) -> None:
    """Close the file of a descriptor, and keep its number occupied, so that no other file gets it.

    Other threads that use the number finish what they are at, or find ``/dev/null``.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nothing, number, inheritable=False)
    finally:
        os.close(nothing)
