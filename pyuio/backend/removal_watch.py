# SPDX-License-Identifier: MIT
"""Watches for the kernel's requests to give devices back, for all devices that this process has open by VFIO.

A program that computes, or waits for something else, must let a device go, too: the one who unbinds it waits for that,
in a call that cannot be killed. So a thread does it. It sleeps until an eventfd is readable, by which VFIO asks for a
device (VFIO_PCI_REQ_IRQ_INDEX), and then calls the function that lets that device go.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable
from weakref import WeakMethod

_log = logging.getLogger("pyuio.device")

# The thread needs little; mlockall would lock all of the usual 8 MiB.
_STACK_BYTES = 256 << 10


class _Watch:
    """The watch of one process; it has a thread from the first `begin` on."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._lock = threading.RLock()  # a signal handler, or a finalizer, may close a device amid `begin`
        self._watched: dict[int, WeakMethod[Callable[[], None]]] = {}

    def begin(self, eventfd: int, let_go: WeakMethod[Callable[[], None]]) -> None:
        with self._lock:
            if self._epoll is None:
                epoll = select.epoll()
                try:
                    self._start_thread(epoll)
                except BaseException:
                    epoll.close()
                    raise
                self._epoll = epoll
            self._watched[eventfd] = let_go
            try:
                self._epoll.register(eventfd, select.EPOLLIN | select.EPOLLONESHOT)
            except BaseException:
                del self._watched[eventfd]
                raise

    def end(self, eventfd: int) -> None:
        with self._lock:
            if self._watched.pop(eventfd, None) is not None and self._epoll is not None:
                self._epoll.unregister(eventfd)

    def _start_thread(self, epoll: select.epoll) -> None:
        before = threading.stack_size(_STACK_BYTES)
        try:
            threading.Thread(target=self._run, args=(epoll,), name="pyuio removal watch", daemon=True).start()
        except RuntimeError as error:  # that is all that Python says
            raise OSError(errno.EAGAIN, f"{error}, which would let it go (ulimit -u)") from error
        finally:
            threading.stack_size(before)

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for eventfd, _ in epoll.poll():
                # Without the lock: its holder may wait for a lock that this thread, or a finalizer in it, has.
                method = self._watched.get(eventfd)
                let_go = method() if method is not None else None
                if let_go is not None:
                    try:
                        let_go()
                    except Exception:
                        _log.exception("a device that the kernel wants back could not be let go")
                del let_go  # it keeps the backend

    def forget(self) -> None:
        """In a forked child, which has no thread, and whose devices are the parent's."""
        if self._epoll is not None:
            self._epoll.close()
        self.__init__()  # type: ignore[misc]


_watch = _Watch()


def begin(eventfd: int, let_go: WeakMethod[Callable[[], None]]) -> None:
    """Call `let_go` in another thread, once, when `eventfd` becomes readable.

    It may be called without cause, if its eventfd has the number of an earlier one.

    Args:
        eventfd: it stays open until `end`.
        let_go: a method, which does not keep its object.

    Raises:
        OSError: the kernel's answer; EAGAIN: this user may have no more threads.
    """
    _watch.begin(eventfd, let_go)


def end(eventfd: int) -> None:
    """Watch an eventfd no longer; does nothing if it is not watched."""
    _watch.end(eventfd)


os.register_at_fork(after_in_child=_watch.forget)
