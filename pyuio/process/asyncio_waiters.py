# SPDX-License-Identifier: MIT
"""Waiting in asyncio for a descriptor, by any number of tasks, on any event loops, until it is closed.

A loop has one reader for each descriptor, so the tasks that wait on the same loop share it. When the reader fires, all
of these tasks look, and those that find nothing wait again. The reader exists only while a task waits, so a task that
is cancelled leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class _LoopWaiters:
    """The tasks of one loop that wait. Only that loop's thread uses it.

    Args:
        loop: the loop.
        descriptor: a descriptor of its own, which it closes. So that stays open until the loop no longer uses it, even
            if the interrupt is closed meanwhile.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self.futures: set[asyncio.Future[bool]] = set()
        loop.add_reader(descriptor, self.wake)

    def wake(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(True)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def forget(self) -> None:
        # The loop keeps its reader: the parent uses the loop's list of descriptors (epoll), too.
        os.close(self._descriptor)
        self._descriptor = -1


class Waiters:
    """The tasks that wait for one descriptor, on any loops.

    Args:
        duplicate: returns a new descriptor of the same file, or raises.
    """

    def __init__(self, duplicate: Callable[[], int]) -> None:
        self._duplicate = duplicate
        self._guard = threading.RLock()  # reentrant, for a signal handler that closes
        self.loops: dict[asyncio.AbstractEventLoop, _LoopWaiters] = {}
        """The loops on which a task waits now."""

    async def readable(self, timeout: float | None) -> bool:
        """Return True when the descriptor became readable, or `wake_all` was called; False after `timeout` seconds.

        It raises the errors of `duplicate`.
        """
        import asyncio  # here, because it would take a quarter of the time of `import pyuio`

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        with self._guard:
            waiters = self.loops.get(loop)
            if waiters is None:
                waiters = self.loops[loop] = _LoopWaiters(loop, self._duplicate())
        waiters.futures.add(future)
        # Not asyncio.wait_for: in Python 3.11 it swallows a cancellation that comes together with the result.
        timer = None if timeout is None else loop.call_later(timeout, _expire, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            waiters.futures.discard(future)
            if not waiters.futures:
                with self._guard:
                    self.loops.pop(loop, None)
                waiters.close()

    def call_on_all(self, function: Callable[[], object]) -> None:
        """Make every loop on which a task waits call `function` soon. Any thread may call this."""
        with self._guard:
            loops = list(self.loops)
        for loop in loops:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(function)

    def forget(self) -> None:
        """In a forked child: close the descriptors."""
        self._guard = threading.RLock()
        while self.loops:
            self.loops.popitem()[1].forget()

    def wake_all(self) -> None:
        """Make every `readable` return True, on every loop. Any thread may call this."""
        with self._guard:
            waiting = list(self.loops.items())
        for loop, waiters in waiting:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(waiters.wake)


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
