# SPDX-License-Identifier: MIT
"""Real time for cards that another program drives: one thread does what is due, and takes what comes.

Whatever a card does ends soon, because its machine waits for it. What does not is broken off: see `Loop.run`.
"""

from __future__ import annotations

import heapq
import itertools
import select
import signal
import socket
import time
from collections.abc import Callable

CALL_LIMIT = 5
"""Seconds that one call of a card's method may take."""


class CardHangError(BaseException):
    """A method of a card did not return. No handler of ordinary errors in the card may take it for one of its own."""


class Loop:
    """Timers and sockets of one thread."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, Callable[[], object]] = {}
        self._poll = select.epoll()
        self._turns = 0
        self._busy = False

    def now(self) -> float:
        """Return the time in seconds."""
        return time.monotonic()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds`. What is planned for one moment comes in the order of planning."""
        heapq.heappush(self._planned, (time.monotonic() + seconds, next(self._numbers), call))

    def watch(self, source: socket.socket, call: Callable[[], object]) -> None:
        """Call `call` whenever there is something to read from a socket, or it has ended; until `leave`."""
        self._readers[source.fileno()] = call
        self._poll.register(source, select.EPOLLIN)

    def leave(self, source: socket.socket) -> None:
        """End what `watch` began, before the socket is closed."""
        if self._readers.pop(source.fileno(), None) is not None:
            self._poll.unregister(source)

    def run(self) -> None:
        """Run until there is no socket left.

        Raises:
            CardHangError: one call took `CALL_LIMIT`. It is raised in the call itself, where that executes Python or
                waits; code in C that does neither is beyond this.
        """
        before = signal.signal(signal.SIGALRM, self._watchdog())
        signal.setitimer(signal.ITIMER_REAL, 1, 1)
        try:
            while self._readers:
                self._turn()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _turn(self) -> None:
        if self._planned:  # epoll_wait counts in ms
            wait = max(0.0, self._planned[0][0] - time.monotonic())
            ready = self._poll.poll(0) if select.select([self._poll], (), (), wait)[0] else []
        else:
            ready = self._poll.poll()
        self._turns += 1
        self._busy = True
        if self._planned:
            now = time.monotonic()
            while self._planned and self._planned[0][0] <= now:
                heapq.heappop(self._planned)[2]()
        for source, _ in ready:
            if (call := self._readers.get(source)) is not None:  # another call may have ended it
                call()
        self._busy = False

    def _watchdog(self) -> Callable[[int, object], None]:
        """Return what is called every second. It counts seconds, so that a process that was stopped is not accused."""
        turn, seconds = -1, 0

        def look(*_: object) -> None:
            nonlocal turn, seconds
            seconds = seconds + 1 if self._busy and turn == self._turns else 0
            turn = self._turns
            if seconds >= CALL_LIMIT:
                raise CardHangError(f"a call of the card did not return within {CALL_LIMIT} s")

        return look
