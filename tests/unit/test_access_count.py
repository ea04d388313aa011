# SPDX-License-Identifier: MIT
"""Each call makes exactly the accesses it promises, of exactly the width, and keeps the global interpreter lock.

The accesses are counted by the processor, not by the code under test: see tests/access_trap.c.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyuio._native._access import Window
from pyuio.region import Region
from tests.access_trap import PAGE, Access, Trap, build, needs_trap

WIDTHS = (8, 16, 32, 64)


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    return Trap(mmap.mmap(-1, PAGE), build(tmp_path_factory.mktemp("trap")))


@pytest.fixture(params=[Window, Region])
def bar(request: pytest.FixtureRequest, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield the compiled type, and Region, on the trapped page."""
    if request.param is Window:
        window = Window(trap.memory, offset=0, size=PAGE, name="window", endian="little")
        yield window
        window.close()
        return

    class Stub:
        """A substitute for periphery's object, which can only map a file."""

        mapping = trap.memory

        def __init__(self, *arguments: Any, **keywords: Any) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr("pyuio.region.mapping.Mapping", Stub)
    with Region("/dev/null", PAGE) as region:
        yield region


# ---- The trap can tell: these ways are known to make other accesses than the one asked for. ----


class Bits(ctypes.Structure):
    _fields_ = (("low", ctypes.c_uint32, 4),)


@needs_trap
def test_the_trap_sees_what_others_do(trap: Trap) -> None:
    memory = trap.memory
    view = memoryview(memory).cast("I")
    bits = Bits.from_buffer(memory, 64)
    read, write = Access("read", 64, 32), Access("write", 64, 32)
    data = bytes(4)

    assert trap.record(lambda: None) == []
    assert trap.record(lambda: view[16]) == [read]
    assert trap.record(view.__setitem__, 16, 7) == [write]
    assert trap.record(setattr, bits, "low", 7) == [read, write], "ctypes reads the bits beside a field"
    assert len(trap.record(struct.pack_into, "<I", memory, 64, 7)) > 1, "struct stores a zero first"
    assert len(trap.record(memory.__setitem__, slice(64, 68), data)) > 1, "memmove of 4 bytes stores twice"
    assert trap.record(memory.__getitem__, slice(64, 128)) != [read] * 16
    assert trap.record(lambda: memory[64]) == [Access("read", 64, 8)]
    # A string instruction makes one access for each repetition, if the C library uses one.
    assert len(trap.record(memory.__getitem__, slice(0, 1024))) > 1


# ---- The accesses ----


@needs_trap
@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("endian", [None, "little", "big"])
def test_one_access_of_the_width(trap: Trap, bar: Any, bits: int, endian: str | None) -> None:
    keywords = {} if endian is None else {"endian": endian}
    full = (1 << bits) - 1
    for offset in (0, 64 + bits // 8, PAGE - bits // 8):
        read, write = Access("read", offset, bits), Access("write", offset, bits)

        def calls(verb: str, *arguments: int, at: int = offset) -> list[Access]:
            return trap.record(lambda: getattr(bar, f"{verb}{bits}")(at, *arguments, **keywords))

        for value in (0, 1, full, full >> 1):
            assert calls("write", value) == [write]
            assert calls("read") == [read]
            for mask in (0, 1, full):
                assert calls("update", mask, mask & value) == [read, write]
                assert calls("set", mask) == [read, write]
                assert calls("clear", mask) == [read, write]


@needs_trap
@pytest.mark.parametrize("bits", WIDTHS)
def test_runs_are_ascending_accesses_of_the_width(trap: Trap, bar: Any, bits: int) -> None:
    width = bits // 8
    for length in (0, width, 2 * width, 3 * width, 64, 1000):
        length -= length % width
        offsets = range(128, 128 + length, width)
        assert trap.record(bar.read, 128, length, width) == [Access("read", offset, bits) for offset in offsets]
        for skew in (0, 1):  # the data itself is aligned and misaligned
            data = memoryview(bytes(length + skew))[skew:]
            written = trap.record(bar.write, 128, data, width)
            assert written == [Access("write", offset, bits) for offset in offsets]


@needs_trap
def test_polling_reads(trap: Trap, bar: Any) -> None:
    if isinstance(bar, Region):
        assert trap.record(bar.poll32, 64, 0, 0, 0) == [Access("read", 64, 32)]


@needs_trap
def test_what_is_refused_touches_nothing(trap: Trap, bar: Any) -> None:
    def refused(*calls: Callable[[], object]) -> None:
        for call in calls:
            with pytest.raises((ValueError, TypeError)):
                call()

    assert not trap.record(
        refused,
        lambda: bar.read32(2),
        lambda: bar.read32(PAGE),
        lambda: bar.read32(-4),
        lambda: bar.read32("0"),
        lambda: bar.read32(0, endian="middle"),
        lambda: bar.write32(0, 1 << 32),
        lambda: bar.write32(0, -1),
        lambda: bar.write32(0, None),
        lambda: bar.write32(0, 1, 2),
        lambda: bar.update32(0, 1, 2),
        lambda: bar.update32(0, 1 << 32, 0),
        lambda: bar.set32(0, 1 << 32),
        lambda: bar.clear32(0, -1),
        lambda: bar.read(0, PAGE + 4),
        lambda: bar.read(0, 6),
        lambda: bar.read(0, 4, 3),
        lambda: bar.write(PAGE - 4, bytes(8)),
        lambda: bar.write(1, bytes(8)),
    )


# ---- The global interpreter lock ----


class Turns:
    """Run another Python thread, which requests the lock all the time and counts how often it gets it.

    It can count only if the lock is released: Python would take the lock away only after 1000 s.
    """

    def __init__(self) -> None:
        self.count = 0
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop:
            self.count += 1
            time.sleep(1e-6)

    def __enter__(self) -> Turns:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)
        self._thread.start()
        time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop = True
        sys.setswitchinterval(self._interval)
        self._thread.join()

    def during(self, call: Callable[..., object], *arguments: object, times: int) -> int:
        before = self.count
        for _ in range(times):
            call(*arguments)
        return self.count - before


def test_accesses_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "registers"
    path.write_bytes(bytes(PAGE))
    data = bytes(PAGE)
    with Region(path, PAGE) as bar, path.open("rb") as file, Turns() as turns:
        # The check can fail: it notices a call that releases the lock.
        deadline = time.monotonic() + 60
        while not turns.during(os.pread, file.fileno(), 4, 0, times=1000):
            assert time.monotonic() < deadline, "the other thread never ran"
        for bits in WIDTHS:
            assert turns.during(getattr(bar, f"read{bits}"), 64, times=20_000) == 0
            assert turns.during(getattr(bar, f"write{bits}"), 64, 1, times=20_000) == 0
            assert turns.during(getattr(bar, f"update{bits}"), 64, 1, 1, times=20_000) == 0
            assert turns.during(bar.read, 0, PAGE, bits // 8, times=200) == 0
            assert turns.during(bar.write, 0, data, bits // 8, times=200) == 0
        while not turns.during(os.pread, file.fileno(), 4, 0, times=1000):
            assert time.monotonic() < deadline, "the other thread had ended"
