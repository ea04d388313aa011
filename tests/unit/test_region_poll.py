# SPDX-License-Identifier: MIT
"""How a region waits for a register."""

from __future__ import annotations

import errno
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyuio import errors
from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE


def test_poll_returns_the_value_at_once(bar: Region | PortRegion) -> None:
    assert bar.poll32(4, 0xFF, 0x04, 0) == 0x07060504
    assert bar.poll32(4, 0, 0, 0) == 0x07060504
    assert bar.poll32(4, 0xFF, 0x04, None) == 0x07060504


def test_poll_waits_for_another_thread(bar: Region | PortRegion) -> None:
    timer = threading.Timer(0.05, bar.write32, (4, 0x80))
    timer.start()
    assert bar.poll32(4, 0xFF, 0x80, 60) == 0x80
    timer.join()


def test_poll_times_out(bar: Region | PortRegion) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        bar.poll32(4, 0xFF, 0x80, 0.02)
    assert time.monotonic() - start >= 0.02
    assert isinstance(caught.value, errors.DeviceTimeoutError)
    assert caught.value.errno == errno.ETIMEDOUT
    for part in (NAME, "offset 0x4", "0x07060504", "waited for 0x80 under mask 0xff"):
        assert part in str(caught.value)
    assert re.search(r" after 0\.\d+ s; ", str(caught.value))


class Slow(Region):
    """A region that stops its caller until after the deadline, and is then ready."""

    __slots__ = ("looks",)
    looks: int

    def read32(self, offset: Any, /, *, endian: Any = None) -> int:
        self.looks += 1
        if self.looks == 1:
            time.sleep(0.05)
            return 0
        return super().read32(offset, endian=endian)


def test_poll_looks_once_more_after_the_deadline(path: Path) -> None:
    with Slow(path, SIZE) as bar:
        bar.looks = 0
        assert bar.poll32(4, 0xFF, 0x04, 0.01) == 0x07060504
        assert bar.looks == 2


def test_poll_refuses(bar: Region | PortRegion) -> None:
    wrong: Any
    for wrong in (-1, -0.001, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="timeout must be"):
            bar.poll32(4, 1, 1, wrong)
    for wrong in ("1", b"", [1], 1j):
        with pytest.raises(TypeError, match="timeout must be"):
            bar.poll32(4, 1, 1, wrong)
    for mask, value in ((1, 2), (-1, 0), (1 << 32, 0), (1, -1), (0, 1 << 32)):
        with pytest.raises(ValueError, match="cannot be found"):
            bar.poll32(4, mask, value, 0)
    for wrong in ("1", 1.0, None):
        with pytest.raises(TypeError):
            bar.poll32(4, wrong, 1, 0)
        with pytest.raises(TypeError):
            bar.poll32(4, 1, wrong, 0)
    with pytest.raises(ValueError, match="not a multiple of 4"):
        bar.poll32(5, 1, 1, 0)
    bar.poll32(4, 0, 0, float("inf"))


def test_poll_ends_when_another_thread_closes(bar: Region | PortRegion) -> None:
    timer = threading.Timer(0.05, bar.close)
    timer.start()
    with pytest.raises(errors.ClosedError):
        bar.poll32(4, 0xFF, 0x80, None)
    timer.join()
