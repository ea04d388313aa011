# SPDX-License-Identifier: MIT
"""A native service of a card in this process: the same program, in virtual time, without a thread."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, cast

from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.errors import DeviceRemovedError
from pyuio.interrupt.interrupt import Interrupt
from pyuio.model.clock import clock
from pyuio.program import Operation
from pyuio.program.run import Interpreter
from pyuio.service import Event, Service

LATENCY = 5e-6
"""Virtual seconds from an interrupt to the first operation of the program."""

_NANOSECONDS = 1e9


class ModelService(Service):
    """A service that runs its program when the card's time passes; see `pyuio.Service`.

    A handler in C is refused, because it cannot reach a card in Python. `around` is not entered: there is no thread.
    """

    def __init__(
        self,
        interrupt: Interrupt,
        program: Sequence[Operation] = (),
        *,
        handler: Any = None,
        context: Any = None,
        names: Sequence[str] = (),
        capacity: int = 1024,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        if handler is not None or context is not None or names:
            raise TypeError(f"{interrupt.name} is a card in Python, which a handler in C cannot reach: give a program")
        self._begin(interrupt, capacity, program)
        self._card_interrupt = cast("Any", interrupt)  # a ModelInterrupt, which makes this class
        self._interpreter = Interpreter(program, clock, interrupt.unmask)
        self._lost = 0
        self._result = 0
        self._is_closed = False
        self._planned = False
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # readable when `read` need not wait
        self._close_descriptor = weakref.finalize(self, os.close, self._descriptor)
        try:
            interrupt.begin_service()
        except BaseException:
            self._close_descriptor()
            raise
        self.own()
        with clock.lock:
            self._card_interrupt.on_come = self._plan
            interrupt.unmask()
            self._plan()

    def _plan(self) -> None:
        """Serve soon, if an interrupt is pending; serve no more, if none will come."""
        if not self._ended() and not self._planned and self._pending() == _lib.PYUIO_READY:
            self._planned = True
            clock.after(LATENCY, self._serve)

    def _pending(self) -> int:
        return int(_lib.pyuio_interrupt_is_pending(self._interrupt.native))

    def _serve(self) -> None:
        self._planned = False
        native = self._interrupt.native
        if self._result or self._pending() != _lib.PYUIO_READY:
            return
        time = _ffi.new("int64_t *")
        count = int(_lib.pyuio_service_wait_next(native, time))  # does not wait: one is pending
        if count < 0:
            self._end(count)
            return
        at, run = int(clock.monotonic() * _NANOSECONDS), self._interpreter.begin()
        try:
            self._interpreter.run(run, count)
        except DeviceRemovedError:
            self._end(-errno.EIO)
        if len(self._queue) < self._capacity:
            self._note_lost(self._lost)
            event = Event(at, count, run.late, run.values)
            self._queue.append(event._replace(lists=run.lists) if run.lists else event)
        else:
            self._lost += 1
        if not self._result:
            self._card_interrupt.unmask()
            self._plan()
        self._show()
        clock.changed()

    def _show(self) -> None:
        """Let the descriptor be readable if there are events, or an error, to `read`."""
        if self._close_descriptor.alive:
            with suppress(BlockingIOError):
                os.eventfd_read(self._descriptor)
            if self._queue or self._result or self._lost > self._reported:
                os.eventfd_write(self._descriptor, 1)

    def _next_events(self, most: int | None) -> list[Event]:
        with clock.lock:
            return super()._next_events(most)

    def _ended(self) -> int:
        if not self._result:
            pending = self._pending()
            if pending < 0:  # closed, or gone
                self._end(pending)
        return self._result

    def _fill(self, most: int | None) -> None:
        with clock.lock:
            clock.access()  # a look takes its time, as that of `Clock.wait` does
        if not self._queue:
            self._note_lost(self._lost)

    def _sleep(self, seconds: float | None) -> None:
        clock.wait(seconds, lambda: bool(self._queue) or bool(self._ended()) or self._is_closed)

    def _end(self, result: int) -> None:
        if not self._result:
            self._result = result
            self._card_interrupt.on_come = None
            _lib.pyuio_service_wait_end(self._interrupt.native)
            self._show()
            clock.changed()

    @property
    def lost(self) -> int:
        """How many events found no room since the start."""
        return self._lost

    @property
    def counters(self) -> dict[str, int]:
        """The present values of the program's counters (`Count`), by name."""
        return dict(self._interpreter.counters)

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are events to `read`, for `pyuio.wait`.

        Nothing else that polls it lets the card's time pass. ClosedError: the service is closed.
        """
        self._require_open()
        return self._descriptor

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    def stop(self) -> None:
        """Serve no more; see `Service.stop`."""
        with clock.lock:
            self._stopped = True
            self._end(_lib.PYUIO_CLOSED)

    def close(self) -> None:
        """Serve no more, mask the interrupt and let others read it. A second close does nothing."""
        with clock.lock:
            self._is_closed = True
            self._end(_lib.PYUIO_CLOSED)
            self._close_descriptor()

    def forget(self) -> None:
        """Close it in a forked child."""
        self.inherited = self._is_closed = True
        self._result = int(_lib.PYUIO_CLOSED)
        self._close_descriptor()
