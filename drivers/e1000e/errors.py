# SPDX-License-Identifier: MIT
"""The errors of the driver of the Intel 82574L."""

from __future__ import annotations

import errno

from pyuio import PyuioError


class E1000eError(PyuioError, OSError):
    """The base class of the driver's errors (errno EIO)."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class EepromError(E1000eError):
    """The EEPROM is damaged, or does not answer: data sheet 317694, section 6.1.

    Attributes:
        checksum: the sum of its words, which should be BABAh; None if it does not answer.
    """

    def __init__(self, message: str, checksum: int | None = None) -> None:
        super().__init__(message)
        self.checksum = checksum


class PhyError(E1000eError):
    """The PHY does not answer, or has no such register."""
