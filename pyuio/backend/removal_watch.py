# SPDX-License-Identifier: MIT
"""Watches for the kernel's requests to give devices back, and its word of errors on links, for all devices by VFIO.

A program that computes, or waits for something else, must let a device go, too: the one who unbinds it waits for that,
in a call that cannot be killed. So a thread does it. It sleeps until an eventfd is readable, by which VFIO asks for a
device (VFIO_PCI_REQ_IRQ_INDEX), and then calls the function that lets that device go. Of errors on its link VFIO tells
by another one (VFIO_PCI_ERR_IRQ_INDEX).
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakMethod

_log = logging.getLogger("pyuio.device")

# The thread needs little; mlockall would lock all of the usual 8 MiB.
_STACK_BYTES = 256 << 10


class _Watch:
    """The watch of one process; it has a thread from the first `begin` on."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._lock = threading.RLock()  # a signal handler, or a finalizer, may close a device amid `begin`
        self._watched: dict[int, WeakMethod[Callable[[], object]]] = {}

    def begin(self, eventfd: int, call: WeakMethod[Callable[[], object]]) -> None:
        with self._lock:
            if self._epoll is None:
                epoll = select.epoll()
                try:
                    self._start_thread(epoll)
                except BaseException:
                    epoll.close()
                    raise
                self._epoll = epoll
            self._watched[eventfd] = call
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
                call = method() if method is not None else None
                if call is not None:
                    try:
                        if call():
                            self._again(epoll, eventfd)
                    except Exception:
                        _log.exception("what the kernel told of a device could not be done")
                del call  # it keeps the backend

    def _again(self, epoll: select.epoll, eventfd: int) -> None:
        with suppress(OSError):  # it was closed meanwhile
            epoll.modify(eventfd, select.EPOLLIN | select.EPOLLONESHOT)

    def forget(self) -> None:
        """In a forked child, which has no thread, and whose devices are the parent's."""
        if self._epoll is not None:
            self._epoll.close()
        self.__init__()  # type: ignore[misc]


_watch = _Watch()


def begin(eventfd: int, call: WeakMethod[Callable[[], object]]) -> None:
    """Call a method in another thread when `eventfd` becomes readable, and once more whenever it has returned True.

    It may be called without cause, if its eventfd has the number of an earlier one.

    Args:
        eventfd: it stays open until `end`.
        call: the method, which does not keep its object. True: watch on; the eventfd was read.

    Raises:
        OSError: the kernel's answer; EAGAIN: this user may have no more threads.
    """
    _watch.begin(eventfd, call)


def end(eventfd: int) -> None:
    """Watch an eventfd no longer; does nothing if it is not watched."""
    _watch.end(eventfd)


os.register_at_fork(after_in_child=_watch.forget)
