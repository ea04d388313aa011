# SPDX-License-Identifier: MIT
"""Virtual time: it passes only while a driver accesses a card or waits for one, and then takes no time at all.

Each access to a card takes `ACCESS` of virtual time, so a driver that polls a register sees the card get on. A wait
lets time jump to the next thing that a card has planned, or to the end of the wait, whichever is first. So a run is
deterministic, and a wait of a second is over at once.

Several threads share the clock. Time jumps only when every thread waits for a card: one that does something else, or
the handler of a signal that a timer is about to send, may be about to do what the others wait for. As long as there is
such a thread, waits take real time, and no longer than they should. Tasks of asyncio are treated alike. When something
has happened, time stands still until each that waits has looked whether it was for it.

There is one clock for all cards of the process, so that a program can wait for several.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pyuio.model.host import LONGEST, check_seconds
from pyuio.process.late import release_after_fork

ACCESS = 1e-6
"""Virtual seconds that each access takes; a read of a PCI Express card takes about as long."""

_SOON = 1.0  # real seconds
_MOST_AT_ONCE = 100_000  # calls that are due without time passing; beyond it, a card plans calls for now without end
_SLICE = 2e-3  # real seconds after which a waiting thread looks again whether the others wait, too


class Clock:
    """The time of all cards, in seconds; 0 when the process starts.

    Attributes:
        lock: whoever holds it is alone with all cards. Reentrant.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._time = 0.0
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._is_anew = False
        self._numbers = itertools.count()
        self._deadlines: dict[object, float | None] = {}  # of those who wait: threads and tasks
        self._waiting_threads: set[int] = set()
        self._tasks: set[object] = set()  # those of asyncio that wait
        self._happened = 0  # how often something happened that may be for one who waits
        self._looked: dict[object, int] = {}  # that number when each who waits last looked

    def monotonic(self) -> float:
        """Return the virtual time in seconds."""
        return self._time

    def sleep(self, seconds: float, /) -> None:
        """Return after so many virtual seconds. ValueError: they are negative, or beyond `LONGEST`."""
        check_seconds(seconds, "sleep()")
        self.wait(seconds, lambda: False)

    def require_more(self) -> None:
        """Raise NothingPlannedError if no card has planned anything, and no other thread runs."""
        with self.lock:
            if self.idle and not self._others_run():
                raise NothingPlannedError(_NOTHING)

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds` from now. What is planned for one moment comes in the order of planning."""
        with self.lock:
            heapq.heappush(self._planned, (self._time + seconds, next(self._numbers), call))
            self._changed.notify_all()

    def access(self) -> None:
        """Let the time of one access pass, and what is due by then happen. The caller has the lock."""
        self._time += ACCESS
        if self._planned and self._planned[0][0] <= self._time:
            self._run_due()

    def changed(self) -> None:
        """Wake all threads that wait: something may have come for them."""
        with self.lock:
            self._happened += 1
            self._changed.notify_all()

    def _run_due(self) -> None:
        begin, calls = self._time, 0
        while self._planned and self._planned[0][0] <= self._time:
            call = heapq.heappop(self._planned)[2]
            call()
            self._happened += 1
            calls = calls + 1 if self._time == begin else 0
            begin = self._time
            if calls == _MOST_AT_ONCE:
                raise RuntimeError(
                    f"{calls} calls were due at {self._time:g} s, and more are: a card plans calls for now without "
                    "end; let after() wait for longer than 0 s"
                )

    def step(self, who: object, deadline: float | None, *, alone: bool) -> bool | None:
        """Let time pass for one who waits, if it may; wait for nothing.

        Args:
            who: the one; `leave` ends its waiting.
            deadline: the virtual time at which its wait ends; None for never.
            alone: whether everybody waits, and has looked, so that only time can bring something.

        Returns:
            True: something happened. False: the deadline is over. None: nothing may happen before others do something.
        """
        with self.lock:
            self._deadlines[who] = deadline
            if deadline is not None and self._time >= deadline:
                return False
            first = min((one for one in self._deadlines.values() if one is not None), default=None)
            if not alone:
                return None
            if self._planned and (first is None or self._planned[0][0] <= first):
                self._time = max(self._time, self._planned[0][0])
                self._run_due()
                self._changed.notify_all()
                return True
            if first is None:
                return None
            self._time = first
            self._changed.notify_all()
            return None if deadline is None or deadline > first else False

    def leave(self, who: object) -> None:
        """End the waiting of `who`."""
        with self.lock:
            self._deadlines.pop(who, None)
            self._looked.pop(who, None)

    def _all_have_looked(self) -> bool:
        return all(self._looked.get(one) == self._happened for one in self._deadlines)

    @property
    def idle(self) -> bool:
        """Whether nothing is planned, and nobody's wait has an end."""
        return not self._planned and all(one is None for one in self._deadlines.values())

    def wait(self, timeout: float | None, ready: Callable[[], bool]) -> bool:
        """Wait in this thread until `ready`, and return True; or return False after `timeout` virtual seconds.

        Raises:
            NothingPlannedError: `timeout` is None, no card has planned anything, and no other thread runs.
        """
        me = threading.get_ident()
        start = time.monotonic()
        with self.lock:
            if timeout == 0:  # a look takes its time, too, so that who looks again and again sees the card get on
                self.access()
            begin = self._time
            deadline = self._deadlines[me] = self._deadline(timeout)
            self._waiting_threads.add(me)
            try:
                while not ready():
                    self._looked[me] = self._happened
                    alone = not self._others_run()
                    only_time = alone and self._all_have_looked()
                    passed = self.step(me, deadline, alone=only_time)
                    if passed is False:
                        return ready()
                    if passed:
                        continue
                    if only_time and self.idle:
                        if ready():  # a signal's handler, which ran since the last look, did it
                            return True
                        raise NothingPlannedError(_NOTHING)
                    self._changed.wait(_SLICE)
                    if not alone:  # real time passes
                        self._time = max(self._time, begin + time.monotonic() - start)
                        self._run_due()
                return True
            finally:
                self._waiting_threads.discard(me)
                self.leave(me)

    def poll(self, poller: select.poll, timeout: float | None) -> list[tuple[int, int]]:
        """Return what `poller` finds within `timeout` virtual seconds. The errors are those of `wait`."""
        events: list[tuple[int, int]] = []

        def ready() -> bool:
            events[:] = poller.poll(0)
            return bool(events)

        self.wait(timeout, ready)
        return events

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Let time begin at 0 in a ``with`` block, with nothing planned; after it, all is as it was before.

        What runs in the block runs in the same way each time; no timer of signals is waited for. RuntimeError: somebody
        waits.
        """
        with self.lock:
            if self._deadlines:
                raise RuntimeError("time cannot begin anew while a thread or a task waits for a card")
            before = self._time, self._planned, self._is_anew
            self._time, self._planned, self._is_anew = 0.0, [], True
        try:
            yield
        finally:
            with self.lock:
                self._time, self._planned, self._is_anew = before

    def _deadline(self, timeout: float | None) -> float | None:
        """Return when a wait ends: never, if its time is so long that all times after it would be the same."""
        return None if timeout is None or timeout > LONGEST else self._time + timeout

    def _others_run(self) -> bool:
        idle = {threading.get_ident(), *self._waiting_threads}
        if any(thread.ident not in idle and thread.is_alive() for thread in threading.enumerate()):
            return True
        # A handler that is to run soon may do something, too. Timers of test programs run for longer.
        return not self._is_anew and 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= _SOON

    async def wait_async(self, timeout: float | None, ready: Callable[[], bool]) -> bool:
        """Do what `wait` does, while other tasks of asyncio run."""
        import asyncio  # here, because it takes long to import

        me = object()
        start, begin = time.monotonic(), self._time
        deadline = self._deadline(timeout)
        loop: Any = asyncio.get_running_loop()
        self._tasks.add(me)
        self._deadlines[me] = deadline  # before others, which wait, too, let time pass
        try:
            while True:
                with self.lock:
                    if ready():
                        return True
                await asyncio.sleep(0)  # tasks that can go on come first
                with self.lock:
                    if ready():
                        return True
                    self._looked[me] = self._happened
                    alone = self._plans(loop) < len(self._tasks) and not self._others_run()
                    only_time = alone and self._all_have_looked()
                    passed = self.step(me, deadline, alone=only_time)
                    if passed is False:
                        return ready()
                    if passed is None and only_time and self.idle:
                        raise NothingPlannedError(_NOTHING)
                if not alone:
                    await asyncio.sleep(_SLICE)
                    with self.lock:  # real time passes
                        self._time = max(self._time, begin + time.monotonic() - start)
                        self._run_due()
        finally:
            self._tasks.discard(me)
            self.leave(me)

    @staticmethod
    def _plans(loop: Any) -> int:
        """Return how many things a loop has to do, now or later; asyncio's own loops tell. Each waiting task is one."""
        timers = [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled()]
        return len(timers) + len(getattr(loop, "_ready", ()))


_NOTHING = (
    "this would wait for ever: no card has planned anything, the wait has no timeout, and no other thread or task runs "
    "that could make a card do something"
)


class NothingPlannedError(AssertionError):
    """A driver waits without a timeout for something that can never come."""


clock = Clock()
"""The clock of all cards in this process."""
# A child inherits the lock as it is at the fork.
_release = partial(release_after_fork, clock.lock)
os.register_at_fork(before=clock.lock.acquire, after_in_parent=_release, after_in_child=_release)
