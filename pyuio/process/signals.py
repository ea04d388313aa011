# SPDX-License-Identifier: MIT
"""Python's signal handlers: postponed while something must not be left half done, and run while something waits."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

_NUMBERS = tuple(map(int, signal.valid_signals()))
_LONGEST_SLEEP = 0.25  # seconds between two looks for signals, as in _native/interrupt.c


@contextmanager
def postponed_signals() -> Iterator[None]:
    """Make Python's signal handlers run at the end of a ``with`` block, and not inside it.

    The block must not wait for long. Only the main thread has anything to postpone, because only there Python runs its
    handlers. The handlers that run at the end may raise, as that of Ctrl-C raises `KeyboardInterrupt`; what the block
    made must be safe by then.
    """
    received: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if signal.Signals(number) not in received:
            received.append(signal.Signals(number))

    with ExitStack() as at_the_end:
        for number in _NUMBERS:
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
            with ExitStack() as late:  # runs every handler, even if another one raises
                for number in received:
                    late.callback(signal.raise_signal, number)


def poll_with_signals(poller: select.poll, timeout: float | None) -> list[tuple[int, int]]:
    """Return the result of ``poller.poll``; every signal's handler runs soon, meanwhile.

    Python's handlers run in the main thread, between two bytecodes. A single long poll would not end for a signal that
    comes just before it begins, or that another thread receives. So this polls again and again.

    Args:
        poller: has the descriptors to wait for.
        timeout: seconds; None waits for ever, a negative one counts as 0.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _LONGEST_SLEEP if deadline is None else min(_LONGEST_SLEEP, max(0.0, deadline - time.monotonic()))
        events = poller.poll(left * 1000)
        if events or (deadline is not None and time.monotonic() >= deadline):
            return events
