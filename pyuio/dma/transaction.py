# SPDX-License-Identifier: MIT
"""Changes of several steps that an exception, Ctrl-C, may break off between any two of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType


class Unbroken:
    """A ``with`` block that makes such a change. After one that was broken off, the next one first mends what is left.

    A signal handler may enter it again in the middle of another. Nothing is mended then: the other goes on afterwards.
    It is not a lock; it is used with one held.

    Args:
        mend: makes everything consistent, from what is known for sure.
    """

    def __init__(self, mend: Callable[[], None]) -> None:
        self._mend = mend
        self._running: FrameType | None = None  # whose block it is; that of a broken one may be left here
        self._broken = False

    def __enter__(self) -> bool:
        """Mend, if need be; return whether this is in the middle of another, some of whose steps are still to come."""
        frame = sys._getframe(1)
        if self._running is not None and _is_below(self._running, frame):
            return True
        self._running = frame
        if self._broken:
            self._mend()
        self._broken = True  # until the end is reached
        return False

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._running is sys._getframe(1):
            self._running = None
            self._broken = kind is not None


def _is_below(frame: FrameType, top: FrameType | None) -> bool:
    while top is not None and top is not frame:
        top = top.f_back
    return top is frame
