# SPDX-License-Identifier: MIT
"""Transactions: changes of several steps, which an exception, such as Ctrl-C's, may end between any two steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


class Transaction:
    """A ``with`` block that makes such a change. If an exception ended the last one early, the next one repairs first.

    A signal handler may enter it again in the middle of another block. The inner block repairs nothing, because the
    outer one goes on afterwards. A transaction is not a lock; its caller holds one.

    Args:
        repair: makes everything consistent, from what is known for sure.
    """

    def __init__(self, repair: Callable[[], None]) -> None:
        self._repair = repair
        self._running: FrameType | None = None  # whose block it is; the frame of a block that failed may stay here
        self._incomplete = False

    def __enter__(self) -> bool:
        """Repair, if need be. Return whether this block is inside another one, which has steps still to come."""
        frame = sys._getframe(1)
        if self._running is not None and _is_below(self._running, frame):
            return True
        self._running = frame
        if self._incomplete:
            self._repair()
        self._incomplete = True  # until the end is reached
        return False

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._running is sys._getframe(1):
            self._running = None
            self._incomplete = kind is not None


def _is_below(frame: FrameType, top: FrameType | None) -> bool:
    while top is not None and top is not frame:
        top = top.f_back
    return top is frame
