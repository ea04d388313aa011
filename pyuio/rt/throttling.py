# SPDX-License-Identifier: MIT
"""RT throttling: the kernel keeps real-time threads from taking all of a processor's time, and reports it nowhere.

Documentation/scheduler/sched-rt-group.rst, section 2.1. ``_native/throttling.c`` says how pyuio notices it.
"""

from __future__ import annotations

from typing import Any

from pyuio._native._realtime import ffi as _ffi
from pyuio._native._realtime import lib as _lib
from pyuio.kernel.scheduling import Thread, kernel_number
from pyuio.process.signals import postponed_signals
from pyuio.rt.report import Throttling


class ThrottlingWatch:
    """Watches one thread from another thread, which sleeps except for a moment in every period.

    Args:
        thread: the thread to watch, of this process.
    """

    def __init__(self, thread: Thread) -> None:
        self._thread = thread
        self._native: Any = None
        self._last = Throttling(_limit("sched_rt_runtime_us"), _limit("sched_rt_period_us"))

    def write(self, watching: bool) -> None:
        """Start watching, if there is a limit, or stop. OSError: the thread is gone, or none can start to watch it."""
        if not watching:
            if self._native is not None:
                _lib.pyuio_throttling_stop(self._native)
                self._last = self._counted(self._native)
                self._native = None
        elif 0 <= self._last.runtime < self._last.period:
            runtime, period = self._last.runtime * 1000, self._last.period * 1000
            # Ctrl-C in between would leave a thread that nothing refers to.
            with postponed_signals():
                native = _lib.pyuio_throttling_start(self._thread.id, runtime, period)
                if native == _ffi.NULL:
                    raise OSError(_ffi.errno, f"watching thread {self._thread.id} for RT throttling")
                self._native = _ffi.gc(native, _lib.pyuio_throttling_free)

    def forget(self, _before: object) -> None:
        """Drop the watch in a forked child: it has no watching thread, and the lock may stay locked for ever there."""
        self._native = None

    def _counted(self, native: Any) -> Throttling:
        times, longest = _lib.pyuio_throttling_times(native), _lib.pyuio_throttling_longest(native)
        return Throttling(self._last.runtime, self._last.period, True, int(times), int(longest))

    def result(self) -> Throttling:
        """Return the throttling seen until now, or until the watch stopped."""
        native = self._native  # another thread may close it meanwhile
        if native is None:
            return self._last
        _lib.pyuio_throttling_look(native)
        return self._counted(native)


def _limit(name: str) -> int:
    value = kernel_number(name)
    return -1 if value is None else value
