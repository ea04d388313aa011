# SPDX-License-Identifier: MIT
"""Keeping Ctrl-C, and whatever else a Python signal handler may raise, out of what must not be left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Have Python's signal handlers run at the end of a ``with`` block, and not inside it.

    The block must not be one that waits for long. Elsewhere than in the main thread there is nothing to postpone:
    Python runs its handlers in that one only. The handlers that run at the end may raise, as `KeyboardInterrupt` does;
    whatever the block made must be safe by then.
    """
    received: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if signal.Signals(number) not in received:
            received.append(signal.Signals(number))

    with ExitStack() as at_the_end:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if not callable(handler) or isinstance(handler, signal.Handlers):
                continue
            at_the_end.callback(signal.signal, number, handler)
            try:
                signal.signal(number, note)
            except ValueError:  # another thread, or a subinterpreter
                at_the_end.pop_all()
                break
        try:
            yield
        finally:
            at_the_end.close()
            with ExitStack() as late:  # runs every one, whatever another raises
                for number in received:
                    late.callback(signal.raise_signal, number)
