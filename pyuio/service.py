# SPDX-License-Identifier: MIT
"""A native service: C code serves an interrupt at once, without waiting for Python.

A thread of the service waits for the interrupt without the GIL. Right after the kernel's read it runs the program (see
`pyuio.program`), and puts an event into a ring in locked memory. Python takes the events when it has the time. The
thread's work is in ``_native/service.c``, ``service_wait.c`` and ``program.c``.
"""

from __future__ import annotations

import errno
import logging
import operator
import os
import select
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.errors import ClosedError, OverrunError, PermissionDeniedError
from pyuio.interrupt.interrupt import Interrupt
from pyuio.process.fork import Owned
from pyuio.process.signals import poll_with_signals, postponed_signals
from pyuio.process.timeouts import TimeSource, timeout_error, timeout_nanoseconds
from pyuio.program import NativeProgram, Operation, Write, WriteBack, flatten

HANDLER = """
typedef struct {
    int64_t time;     /* CLOCK_MONOTONIC in ns, when the interrupt was read */
    uint32_t count;   /* interrupts since the event before */
    uint32_t late;    /* the handler may set it to 1, for Event.late */
    uint64_t lost;    /* the handler must not change it */
    uint64_t values[]; /* as many as there are names; 0 at first */
} pyuio_event;
typedef void (*pyuio_handler)(pyuio_event *event, void *context);
"""
"""The C declarations of a handler, for ``ffi.cdef`` and for its source."""

_log = logging.getLogger("pyuio.service")
_EVENT = struct.Struct("=qIIQ")
_AT_ONCE = 256  # events copied out of the ring in one call
_MOST_EVENTS = 1 << 20
_NANOSECONDS = 1e9


class Event(NamedTuple):
    """One return of the kernel's read.

    Attributes:
        time: when it returned, CLOCK_MONOTONIC in ns, like `time.monotonic_ns`.
        count: interrupts since the event before, 1 or more.
        late: whether a `Poll` did not see its value in time.
        values: the values that the program kept, by name; 0 for those that it did not reach.
        lists: the values that the program appended, by name (`pyuio.program.Append`).
    """

    time: int
    count: int  # type: ignore[assignment]
    late: bool
    values: dict[str, int]
    lists: Mapping[str, tuple[int, ...]] = MappingProxyType({})


def _pointer(given: Any) -> int:
    if given is None:
        return 0
    if isinstance(given, (int, _ffi.CData)):
        return int(_ffi.cast("uintptr_t", given))
    raise TypeError(f"a pointer is cffi's or an int, not a {type(given).__name__}")


class _ServiceThread:
    """The thread, and the objects that C uses in it. It does not refer to its `Service`, which can be collected.

    Args:
        interrupt: the interrupt that the thread serves, as its only reader from then on.
        native: the service in C.
        around: returns a context manager in which the thread runs.
    """

    def __init__(self, interrupt: Interrupt, native: Any, around: Callable[[], AbstractContextManager[object]]) -> None:
        self._interrupt = interrupt
        self._native = native
        self._around = around
        self._owner = os.getpid()
        self._began = False
        self.entered = threading.Event()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name=f"service of {interrupt.name}", daemon=True)

    def _run(self) -> None:
        try:
            with self._around():
                self._began = True
                self.entered.set()
                self._interrupt.notice(_lib.pyuio_service_run(self._native))
        except BaseException as error:
            self.error = error
        finally:
            if not self._began:
                _lib.pyuio_service_wait_end(self._interrupt.native)
            self.entered.set()

    def stop(self) -> None:
        """End the thread. Does nothing if it has ended, or in a forked child, which does not have it."""
        if os.getpid() == self._owner and self.thread.is_alive():
            _lib.pyuio_service_stop(self._native)
            self.thread.join()
            _log.info("%s: native service ended", self._interrupt.name)


class Service(Owned):
    """A thread that serves an interrupt without the GIL; a context manager, running from the start.

    While it runs, nothing else reads the interrupt: `Interrupt.read` and the like raise `DeviceBusyError`. It ends, and
    masks the interrupt, when it or its device is closed, when the device is removed, and when it is garbage-collected.

    Args:
        interrupt: the interrupt of an open device.
        program: operations, as in `pyuio.program`.
        handler: in place of a program: a cffi function pointer of the type in `HANDLER`, or its address as an int. It
            runs without the GIL, and its library must stay loaded.
        context: the argument of the handler; a cffi pointer or an int.
        names: the names of the values that the handler sets.
        capacity: the size of the ring in events, 1 to 2^20; rounded up to a power of two.
        around: returns a context manager, such as `pyuio.realtime`, in which the thread runs.

    Raises:
        DeviceBusyError: another service has the interrupt, or a thread waits for it.
        ClosedError: the interrupt is closed, or a region in the program is.
        PermissionDeniedError: the ring may not be locked in memory.
        TypeError, ValueError: the program is not valid, or an argument is out of range.
        Exception: the error that `around` raises.
    """

    def __new__(cls, interrupt: Interrupt, *arguments: Any, **keywords: Any) -> Service:
        """Make the service that suits the interrupt: a card in Python has one in virtual time."""
        made: Service = super().__new__(getattr(interrupt, "service_class", cls))
        return made

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
        if handler is None and (names or context is not None):
            raise ValueError("names and context belong to a handler; a program names its values itself")
        if handler is not None and program:
            raise ValueError("a service has a program or a handler, not both")
        self._begin(interrupt, capacity, program if handler is None else None)
        with ExitStack() as stack:
            operations = NativeProgram(flatten(program), stack)
            self._names = operations.names if handler is None else list(names)
            self._counters = operations.counters
            self._lists = operations.lists
            self._values = struct.Struct(f"={operations.slots if handler is None else len(self._names)}Q")
            self._size = _EVENT.size + self._values.size
            self._buffer = _ffi.new("unsigned char[]", _AT_ONCE * self._size)
            self._native = self._made(operations, handler, context)
            with postponed_signals():
                interrupt.begin_service()
                thread = _ServiceThread(interrupt, self._native, around)
                try:
                    thread.thread.start()
                except BaseException:  # the system has no more threads
                    _lib.pyuio_service_wait_end(interrupt.native)
                    raise
                # The finalizer also runs at the end of the interpreter, before that takes away what the thread uses.
                self._finalizer = weakref.finalize(self, _finish, thread, stack.pop_all())
                self._thread = thread
                self.own()
        thread.entered.wait()
        if thread.error is not None:
            self.close()
            raise thread.error
        _log.info("%s: native service started", self.name)

    def _begin(self, interrupt: Interrupt, capacity: int, program: Sequence[Operation] | None) -> None:
        capacity = operator.index(capacity)
        if not 1 <= capacity <= _MOST_EVENTS:
            raise ValueError(f"the capacity of a service is 1 to {_MOST_EVENTS} events, not {capacity}")
        self.name = interrupt.name
        self._interrupt = interrupt
        self._guard = threading.Lock()
        self._capacity = 1 << (capacity - 1).bit_length()
        self._queue: deque[Event | int] = deque()  # an int N: N events were lost at this place
        self._reported = 0
        self._stopped = False
        self._advice = "take them sooner, or give it a larger capacity"
        writes = program is None or any(isinstance(step.operation, Write | WriteBack) for step in flatten(program))
        if interrupt.kind == "INTx" and not writes:
            self._advice += "; its program writes to no register: acknowledge the interrupt, or it fires at once"

    def _made(self, operations: NativeProgram, handler: Any, context: Any) -> Any:
        native = _lib.pyuio_service_new(
            self._interrupt.native,
            operations.array,
            operations.length,
            _ffi.cast("pyuio_handler", _pointer(handler)),
            _ffi.cast("void *", _pointer(context)),
            self._values.size // 8,
            len(self._counters),
            self._capacity,
        )
        if native != _ffi.NULL:
            return _ffi.gc(native, _lib.pyuio_service_free)
        number = _ffi.errno
        reason = f"{self.name}: a ring of {self._capacity} events for its native service: {os.strerror(number)}"
        if number in (errno.EPERM, errno.ENOMEM, errno.EAGAIN):
            advice = "the ring is locked in memory; raise the limit (ulimit -l, in KiB) or take a smaller capacity"
            raise PermissionDeniedError(number, f"{reason}; {advice}")
        raise OSError(number, reason)

    def read(self, timeout: float | None = None, most: int | None = None) -> list[Event]:
        """Return the events that came since the last call, oldest first, waiting for one if there is none.

        Args:
            timeout: seconds to wait; None waits for ever, 0 does not wait.
            most: the largest number to return, 1 or more; None returns all that there are.

        Raises:
            OverrunError: events were lost between those of the last call and those of the next; ``lost`` is their
                number. The service has served their interrupts all the same.
            DeviceTimeoutError: none came in time; if `timeout` is 0, its subclass `WouldBlockError`.
            ClosedError: the service or its device was closed, before or meanwhile.
            DeviceRemovedError: the device was removed or unbound; the events before that have been returned.
            PermissionDeniedError: this process may have no more timers, or has handlers for all real-time signals.
            TypeError, ValueError: an argument has a wrong type or is out of range.
        """
        nanoseconds = timeout_nanoseconds(timeout)
        if most is not None and most < 1:
            raise ValueError(f"most is 1 or more events, not {most}")
        clock = self.clock
        deadline = None if nanoseconds < 0 else clock.monotonic() + nanoseconds / _NANOSECONDS
        while True:
            with self._guard:
                self._require_open()
                ended = self._ended()
                self._fill(most)
                events = self._next_events(most)
            if events:
                return events
            if ended and self._stopped:
                raise ClosedError(f"{self.name}: its native service was stopped, and all its events were read")
            if ended:
                if ended == -errno.EAGAIN:
                    reason = f"{self.name}: its native service needs a timer and a real-time signal without a handler"
                    advice = "raise the limit (ulimit -i), or leave it a signal"
                    raise PermissionDeniedError(errno.EAGAIN, f"{reason}, and one of them is not available; {advice}")
                self._interrupt.checked(ended, "serving its interrupt")
            left = None if deadline is None else max(0.0, deadline - clock.monotonic())
            if left == 0:
                raise timeout_error(timeout, f"{self.name}: no event came within {timeout} s")
            self._sleep(left)

    @property
    def clock(self) -> TimeSource:
        """The time of the device, as `Device.clock`."""
        return self._interrupt.clock

    def _ended(self) -> int:
        """Return the result that ended the service; 0 while it runs."""
        return int(_lib.pyuio_service_ended(self._native))

    def _sleep(self, seconds: float | None) -> None:
        """Return when there may be events, or after so many seconds."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        poll_with_signals(poller, seconds)

    def _fill(self, most: int | None) -> None:
        """Move events from the ring to the queue: at most one full ring, because more may come all the time."""
        for _ in range(self._capacity // _AT_ONCE + 1):
            if most is not None and len(self._queue) >= most:
                break
            number = _lib.pyuio_service_take(self._native, self._buffer, _AT_ONCE)
            view = _ffi.buffer(self._buffer, number * self._size)
            for at in range(0, number * self._size, self._size):
                when, count, late, lost = _EVENT.unpack_from(view, at)
                self._note_lost(lost)
                values = self._values.unpack_from(view, at + _EVENT.size)
                event = Event(when, count, bool(late), dict(zip(self._names, values, strict=False)))
                if self._lists:
                    event = event._replace(lists={name: _list(values, slot) for name, (slot, _) in self._lists.items()})
                self._queue.append(event)
            if number < _AT_ONCE:
                break
        if not self._queue:
            self._note_lost(self.lost)

    def _note_lost(self, lost: int) -> None:
        if lost > self._reported:
            self._queue.append(lost - self._reported)
            self._reported = lost

    def _overrun(self, lost: int) -> OverrunError:
        reason = f"{self.name}: {lost} events of its native service were lost: the ring was full"
        error = OverrunError(errno.EOVERFLOW, f"{reason}; {self._advice}")
        error.lost = lost
        return error

    def _next_events(self, most: int | None) -> list[Event]:
        events: list[Event] = []
        try:
            while self._queue and (most is None or len(events) < most):
                item = self._queue[0]
                if isinstance(item, int):
                    if not events:
                        self._queue.popleft()
                        raise self._overrun(item)
                    break
                events.append(item)
                self._queue.popleft()
        finally:
            self._show()
        return events

    def _show(self) -> None:
        """Let the descriptor be readable if there is something to `read`, in the ring or taken out of it."""
        _lib.pyuio_service_take(self._native, self._buffer, 0)  # not readable, unless the ring has more or it ended
        if self._queue or self.lost > self._reported:
            os.eventfd_write(_lib.pyuio_service_descriptor(self._native), 1)

    @property
    def lost(self) -> int:
        """How many events found no room in the ring since the start."""
        return int(_lib.pyuio_service_lost(self._native))

    @property
    def counters(self) -> dict[str, int]:
        """The present values of the program's counters (`Count`), by name."""
        return {name: int(_lib.pyuio_service_counter(self._native, slot)) for slot, name in enumerate(self._counters)}

    def fileno(self) -> int:
        """Return a descriptor that is readable when there are events to `read`. ClosedError: the service is closed."""
        self._require_open()
        return int(_lib.pyuio_service_descriptor(self._native))

    def __iter__(self) -> Iterator[Event]:
        """Yield the events that `read` returns, for ever."""
        while True:
            yield from self.read(most=1)  # whoever stops here leaves the others to the next `read`

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._finalizer.alive

    def _require_open(self) -> None:
        if self.closed:
            raise self.closed_error(f"the native service of {self.name}")

    def stop(self) -> None:
        """End the thread, mask the interrupt and let others read it. A second call does nothing.

        Unlike after `close`, the events that came can still be read; a `read` after the last one raises `ClosedError`.
        """
        with postponed_signals():
            self._stopped = True
            self._thread.stop()

    def close(self) -> None:
        """End the thread, mask the interrupt and let others read it. A second close does nothing."""
        with postponed_signals():
            self._finalizer()

    def forget(self) -> None:
        """Close the service in a forked child, which has neither the thread nor its timer."""
        super().forget()
        self._guard = threading.Lock()
        self._finalizer()

    def __enter__(self) -> Service:
        """Return itself; leaving the block closes it. ClosedError: the service is closed."""
        self._require_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<pyuio.Service of {self.name}: {'closed' if self.closed else f'running, {self.lost} lost'}>"


def _list(values: tuple[int, ...], slot: int) -> tuple[int, ...]:
    return values[slot + 1 : slot + 1 + values[slot]]


def _finish(thread: _ServiceThread, regions: ExitStack) -> None:
    thread.stop()
    regions.close()
