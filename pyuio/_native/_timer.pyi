# SPDX-License-Identifier: MIT
"""Waking up at a time. ``timer.c`` says what each function does."""

from typing import Any

class _Library:
    def pyuio_timer_run(self, first: int, interval: int, count: int, latencies: Any, late: Any, stop: Any) -> int: ...
    def pyuio_timer_wait(self, when: int, in_time: Any) -> int: ...
    def pyuio_time_stamp_counter(self) -> int: ...

ffi: Any
lib: _Library
