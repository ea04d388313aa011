# SPDX-License-Identifier: MIT
"""Waiting for a descriptor in asyncio, by any number of tasks, on any loop, until it is closed.

A loop has one reader per descriptor, so the tasks that wait on the same loop share it; when it fires all of them look,
and those that find nothing wait on. The reader is there only while a task waits: one that is cancelled leaves nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable


class _LoopWaiters:
    """The tasks of one loop that wait. Used in that loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        self._loop = loop
        # Its own, so that it is open until the loop has let go of it, whoever closes the other meanwhile.
        self._descriptor = os.dup(descriptor)
        self.futures: set[asyncio.Future[None]] = set()
        loop.add_reader(self._descriptor, self.wake)

    def wake(self) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)


class Waiters:
    """The tasks that wait for one descriptor, on whatever loops."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopWaiters] = {}

    async def readable(self, descriptor: Callable[[], int]) -> None:
        """Return when the descriptor became readable, or when `wake_all` was called.

        Args:
            descriptor: gives it, or raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._guard:
            waiters = self._loops.get(loop)
            if waiters is None:
                waiters = self._loops[loop] = _LoopWaiters(loop, descriptor())
        waiters.futures.add(future)
        try:
            await future
        finally:
            waiters.futures.discard(future)
            if not waiters.futures:
                with self._guard:
                    self._loops.pop(loop, None)
                waiters.end()

    def wake_all(self) -> None:
        """Make every `readable` return, on every loop; from any thread."""
        with self._guard:
            loops = dict(self._loops)
        for loop, waiters in loops.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(waiters.wake)
