# SPDX-License-Identifier: MIT
"""The frequency of this machine's time stamp counter, for the kernel of an emulated guest.

QEMU's emulation gives the guest the counter of the machine that it runs on. The guest's kernel measures the frequency
against emulated timers. On a busy machine it has found a fifth of the right one, and then the guest's clock ran five
times too fast, with all its time limits. So it is told the frequency (kernel parameter ``tsc_early_khz``).
"""

from __future__ import annotations

import functools
import statistics
import time

_TRIES = 5
_SPAN = 5_000_000  # ns between two looks
_LOOKS = 20  # at both clocks together; the quickest one counts


def _look() -> tuple[int, int]:
    """Return the monotonic time in ns, and the counter at that time."""
    from pyuio._native._timer import lib

    looks = [(time.monotonic_ns(), lib.pyuio_time_stamp_counter(), time.monotonic_ns()) for _ in range(_LOOKS)]
    before, counter, after = min(looks, key=lambda look: look[2] - look[0])
    return (before + after) // 2, counter


@functools.cache
def frequency() -> int:
    """Measure the frequency in kHz, in 25 ms; 0 where there is no such counter."""
    found = []
    for _ in range(_TRIES):
        time_before, before = _look()
        time.sleep(_SPAN / 1e9)
        time_after, after = _look()
        found.append((after - before) * 1_000_000 // (time_after - time_before))
    return int(statistics.median(found))
