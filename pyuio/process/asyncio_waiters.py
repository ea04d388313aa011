# SPDX-License-Identifier: MIT
"""Waiting for a descriptor in asyncio, by any number of tasks, on any loop, until it is closed.

A loop has one reader per descriptor, so the tasks that wait on the same loop share it; when it fires all of them look,
and those that find nothing wait on. The reader is there only while a task waits: one that is cancelled leaves nothing.
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
    """The tasks of one loop that wait. Used in that loop's thread only.

    Args:
        loop: the loop.
        descriptor: its own, which it closes: so it is open until the loop has let go of it, whoever closes meanwhile.
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

    def end(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def forget(self) -> None:
        # Not taken from the loop, whose list of descriptors (epoll) the parent uses, too.
        os.close(self._descriptor)
        self._descriptor = -1


class Waiters:
    """The tasks that wait for one descriptor, on whatever loops.

    Args:
        duplicate: gives a new descriptor of what is waited for, or raises.
    """

    def __init__(self, duplicate: Callable[[], int]) -> None:
        self._duplicate = duplicate
        self._guard = threading.RLock()  # a signal handler that closes does not wait for itself
        self.loops: dict[asyncio.AbstractEventLoop, _LoopWaiters] = {}
        """Those on which a task waits now."""

    async def readable(self, timeout: float | None) -> bool:
        """Return True when the descriptor became readable, or `wake_all` was called; False after `timeout` seconds.

        Raises what the duplicating raises.
        """
        import asyncio  # at the top it would be a quarter of the time that `import pyuio` takes

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        with self._guard:
            waiters = self.loops.get(loop)
            if waiters is None:
                waiters = self.loops[loop] = _LoopWaiters(loop, self._duplicate())
        waiters.futures.add(future)
        # Not asyncio.wait_for, which in Python 3.11 swallows a cancellation that comes together with the result.
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
                waiters.end()

    def call_on_all(self, function: Callable[[], object]) -> None:
        """Have every loop on which a task waits call `function` soon; from any thread."""
        with self._guard:
            loops = list(self.loops)
        for loop in loops:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(function)

    def forget(self) -> None:
        """In a forked child: let go of the descriptors."""
        self._guard = threading.RLock()
        while self.loops:
            self.loops.popitem()[1].forget()

    def wake_all(self) -> None:
        """Make every `readable` return True, on every loop; from any thread."""
        with self._guard:
            waiting = list(self.loops.items())
        for loop, waiters in waiting:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(waiters.wake)


def _expire(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
