# SPDX-License-Identifier: MIT
"""Interrupts: reading and waiting, and the ways of masking."""

from pyuio.interrupt.interrupt import Interrupt

__all__ = ["Interrupt"]
