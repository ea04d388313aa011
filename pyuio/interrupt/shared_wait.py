# SPDX-License-Identifier: MIT
"""Several that wait for different things which one interrupt announces, such as the ports of one card.

One of the waiters leads: it reads the interrupt, and calls ``serve``, which acknowledges the card and notes what
happened for all of them. Then every waiter looks whether its own condition holds. A waiter that has what it wanted
leaves, and if it led, one of the others leads from then on. So there is no thread that does nothing else, and no
interrupt is served while nobody waits: it stays pending, masked.

Threads and asyncio tasks wait for the same interrupt, and each of them may lead. A waiter that sleeps has a function
that wakes it, from any thread. What wakes it stays set until it looks again, so a wake-up between its look and its
sleep is not lost. For the same reason a waiter takes the lead before it looks: else the leader could serve what it
waits for, and leave, between its look and its own first read, which would then wait for another interrupt.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from pyuio.errors import DeviceBusyError, DeviceTimeoutError
from pyuio.process.timeouts import TimeSource, timeout_error, timeout_nanoseconds

Result = TypeVar("Result")

_NANOSECONDS = 1_000_000_000


class _Interrupt(Protocol):
    """What is used of an `Interrupt`."""

    name: str
    clock: TimeSource

    def read(self, timeout: float | None) -> int: ...
    async def read_async(self, timeout: float | None) -> int: ...
    def timed_out(self, timeout: float | None) -> DeviceTimeoutError: ...


class _Waiter:
    """One that waits, made in its own thread. `wake` ends its sleep, from any thread."""

    def __init__(self, wake: Callable[[], object], timeout: float | None, clock: TimeSource) -> None:
        self.wake = wake
        self.timeout = timeout
        self._clock = clock
        nanoseconds = timeout_nanoseconds(timeout)
        self._deadline = None if nanoseconds < 0 else clock.monotonic() + nanoseconds / _NANOSECONDS
        self.is_late = False  # its last read was at the deadline
        self.served = 0
        self.thread = threading.get_ident()

    def left(self) -> float | None:
        """Return the seconds until the deadline, 0 if it has passed; None for ever."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.monotonic())

    def left_to_read(self) -> float | None:
        """Return what `left` does, or -1 if a read came at the deadline already.

        Without that, a line that stays asserted, whatever is served, would keep the waiter for ever.
        """
        left = self.left()
        if self.is_late:
            return -1
        self.is_late = left == 0
        return left


class SharedWait:
    """Those that wait for one interrupt by `Interrupt.wait_until`, in threads and in tasks."""

    def __init__(self) -> None:
        self._guard = threading.RLock()  # reentrant, for a signal handler
        self._waiters: list[_Waiter] = []
        self._leader: _Waiter | None = None

    def forget(self) -> None:
        """In a forked child: nobody waits there."""
        self._guard = threading.RLock()
        self._waiters.clear()
        self._leader = None

    @contextlib.contextmanager
    def _among_the_waiters(self, waiter: _Waiter) -> Iterator[None]:
        with self._guard:
            self._waiters.append(waiter)
        try:
            yield
        finally:
            with self._guard:
                with contextlib.suppress(ValueError):  # a condition or serve forked, and `forget` emptied it there
                    self._waiters.remove(waiter)
                if self._leader is waiter:
                    self._leader = None
                    self._wake_others(waiter)

    def _refuse_below_the_leader(self, interrupt: _Interrupt) -> None:
        """Raise DeviceBusyError in the thread that leads: it would sleep until it leads on itself, for ever."""
        leader = self._leader
        if leader is not None and leader.thread == threading.get_ident():
            reason = (
                f"{interrupt.name}: this thread waits for its interrupt already; a condition, serve or a signal "
                "handler cannot wait for it again: note what happened, and return"
            )
            raise DeviceBusyError(errno.EBUSY, reason)

    def _wake_others(self, waiter: _Waiter) -> None:
        with self._guard:
            for other in self._waiters:
                if other is not waiter:
                    other.wake()

    def _leads(self, waiter: _Waiter) -> bool:
        with self._guard:
            if self._leader is None:
                self._leader = waiter
            return self._leader is waiter

    def _serve(self, waiter: _Waiter, serve: Callable[[int], object], count: int) -> None:
        waiter.served += count
        try:
            serve(count)
        finally:
            self._wake_others(waiter)

    def wait(
        self,
        interrupt: _Interrupt,
        condition: Callable[[], Result],
        serve: Callable[[int], object],
        timeout: float | None,
    ) -> Result:
        """Do what `Interrupt.wait_until` says."""
        _require_functions(condition, serve)
        self._refuse_below_the_leader(interrupt)
        asleep = threading.Lock()  # held unless somebody woke this waiter; an Event takes ten times as long

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # it is awake already
                asleep.release()

        waiter = _Waiter(wake, timeout, interrupt.clock)
        with self._among_the_waiters(waiter):
            while True:
                asleep.acquire(blocking=False)
                leads = self._leads(waiter)
                if result := condition():
                    return result
                left = waiter.left_to_read() if leads else waiter.left()
                if left == -1:
                    raise _too_late(interrupt, waiter, leads=True)
                if leads:
                    try:
                        count = interrupt.read(left)
                    except DeviceTimeoutError:
                        if result := condition():
                            return result
                        raise _too_late(interrupt, waiter, leads=True) from None
                    self._serve(waiter, serve, count)
                elif not asleep.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
                    if result := condition():
                        return result
                    raise _too_late(interrupt, waiter, leads=False)

    async def wait_async(
        self,
        interrupt: _Interrupt,
        condition: Callable[[], Result],
        serve: Callable[[int], object],
        timeout: float | None,
    ) -> Result:
        """Do what `Interrupt.wait_until_async` says."""
        import asyncio  # here, because it would take a quarter of the time of `import pyuio`

        _require_functions(condition, serve)
        awake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(awake.set)

        waiter = _Waiter(wake, timeout, interrupt.clock)
        with self._among_the_waiters(waiter):
            while True:
                awake.clear()
                leads = self._leads(waiter)
                if result := condition():
                    return result
                left = waiter.left_to_read() if leads else waiter.left()
                if left == -1:
                    raise _too_late(interrupt, waiter, leads=True)
                if leads:
                    try:
                        count = await interrupt.read_async(left)
                    except DeviceTimeoutError:
                        if result := condition():
                            return result
                        raise _too_late(interrupt, waiter, leads=True) from None
                    self._serve(waiter, serve, count)
                    continue
                timer = None if left is None else loop.call_later(left, awake.set)
                try:
                    await awake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()
                if waiter.left() == 0 and not self._leads(waiter):
                    if result := condition():
                        return result
                    raise _too_late(interrupt, waiter, leads=False)


def _require_functions(*functions: object) -> None:
    import inspect  # takes long

    for function in functions:
        if not callable(function):
            raise TypeError(f"condition and serve are functions, not {type(function).__name__}")
        if inspect.iscoroutinefunction(function):
            raise TypeError("condition and serve are ordinary functions, not coroutines: they must not wait")


def _too_late(interrupt: _Interrupt, waiter: _Waiter, *, leads: bool) -> OSError:
    if waiter.timeout == 0 and not waiter.served:
        reason = f"{interrupt.name}: the condition does not hold, and no interrupt is pending; it is unmasked now"
        return timeout_error(waiter.timeout, reason)
    if not waiter.served and leads:
        return interrupt.timed_out(waiter.timeout)
    who = f"this waiter served {waiter.served} interrupts" if leads else "another waiter serves the interrupts"
    reason = f"{interrupt.name}: the condition did not hold within {waiter.timeout} s; {who}"
    return timeout_error(waiter.timeout, reason)
