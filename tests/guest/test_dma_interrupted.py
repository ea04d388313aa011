# SPDX-License-Identifier: MIT
"""A signal before any line of what hands out memory for DMA: no memory is anyone else's, none is lost, transfers work.

Ctrl-C, or one whose handler itself allocates and closes.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.dma import (
    address_space,
    allocator,
    buffer,
    bus_addresses,
    free_ranges,
    iommu_memory,
    low_memory,
    ordinary_page,
    physical_memory,
    pinned_hugepages,
    pinned_page,
    sieve,
    transaction,
)
from pyuio.dma.lock import lock
from pyuio.kernel import hugepages
from pyuio.kernel.hugepages import hugepages as sizes
from pyuio.pci import command_register as command_register_module
from pyuio.pci import config_space
from tests.guest.support import BUS_MASTER, command_register, leaves_a_with, signals_come

FILES = {
    str(module.__file__)
    for module in (
        config_space,
        command_register_module,
        address_space,
        allocator,
        buffer,
        bus_addresses,
        hugepages,
        free_ranges,
        iommu_memory,
        low_memory,
        ordinary_page,
        physical_memory,
        pinned_hugepages,
        pinned_page,
        sieve,
        transaction,
    )
}


class Interrupter:
    """Runs something with SIGINT at one line of it, and counts the lines.

    Two lines do not count, because Python handles no signal there, and one that came all the same would leave what is
    entered, a lock:

    - The line of a `with` that is left, which is traced once more (https://bugs.python.org/issue29988).
    - A `try:`, which is a NOP from CPython 3.11 on. Python handles signals after calls, at the start of functions and
      in loops, never at a NOP. And for this one the compiler names no handler, not even that of the `with` around it.
    """

    def __init__(self) -> None:
        self.lines = 0

    def run(self, at: int, what: Any) -> bool:
        """Return whether the signal came before it was done; 0 for never."""
        self.lines = 0

        def trace(frame: FrameType, _event: str, _argument: object) -> Any:
            return self._trace_lines(at) if frame.f_code.co_filename in FILES else None

        sys.settrace(trace)
        try:
            what()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return 0 < at <= self.lines

    def _trace_lines(self, at: int) -> Any:
        """Return what traces one frame. It does not refer to the frame, and so keeps no variable of it alive."""
        entered: set[int] = set()

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            if event == "line" and signals_come(frame):
                if leaves_a_with(frame, entered):
                    return trace
                self.lines += 1
                if self.lines == at:
                    signal.raise_signal(signal.SIGINT)
            return trace

        return trace


def others_can_allocate() -> bool:
    """Whether nothing holds the lock of all memory for DMA."""
    taken = []

    def take() -> None:
        if lock.acquire(timeout=5):
            taken.append(True)
            lock.release()

    other = threading.Thread(target=take)
    other.start()
    other.join()
    return bool(taken)


def apart(buffers: list[pyuio.DmaBuffer]) -> bool:
    ordered = sorted((buffer.address, buffer.address + buffer.size) for buffer in buffers)
    return all(end <= start for (_, end), (start, _) in itertools.pairwise(ordered))


def given_back(total: int) -> bool:
    """Whether the kernel has as many hugepages as before.

    Where Ctrl-C ends a search, the garbage collector frees the page that was found: the frame of ExitStack's
    ``__exit__`` and the exception refer to each other.
    """
    if sizes()[0].total != total:
        gc.collect()
    return sizes()[0].total == total


@pytest.fixture
def ctrl_c() -> Any:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Interrupter()
    signal.signal(signal.SIGINT, before)


EVERY_LINE = pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(900)])  # the others take some of them


@pytest.mark.parametrize("step", [83, EVERY_LINE])
def test_it_leaves_memory_bus_mastering_and_hugepages_right(edu: str, ctrl_c: Interrupter, step: int) -> None:
    total = sizes()[0].total
    at, came = -step + 1, True
    while came:
        at += step
        with pyuio.open(edu, bind=True) as device:
            card = Edu(device)
            kept = device.dma.alloc(100, align=64)
            given = device.dma.alloc(200, align=64)

            def steps(device: pyuio.Device = device, given: pyuio.DmaBuffer = given) -> None:
                given.close()
                device.dma.alloc(100, align=64).close()
                device.dma.alloc(3 << 10, align=64)

            came = ctrl_c.run(at, steps)
            later = [device.dma.alloc(64, align=64) for _ in range(4)]
            others = [one for one in device.dma._live if one not in later and one is not kept]
            assert apart([kept, *later, *others]), at
            assert others_can_allocate(), at
            assert command_register(edu) & BUS_MASTER, at
            for buffer in (given, *others, *later, kept):
                buffer.close()  # given: again, where that was broken off
            assert not command_register(edu) & BUS_MASTER, at
            assert all(one.free.untouched for one in device.dma._pages), at
            if at % 20 == 1:  # a transfer takes 100 ms
                card.to_device(b"after Ctrl-C")
                assert card.from_device(12) == b"after Ctrl-C"
        assert not command_register(edu) & BUS_MASTER
        assert given_back(total), at
    assert at > 50


@pytest.mark.parametrize("step", [17, EVERY_LINE])
def test_a_handler_that_closes_and_allocates(edu: str, ctrl_c: Interrupter, step: int) -> None:
    total = sizes()[0].total
    at, came, refused = -step + 1, True, 0
    while came:
        at += step
        with pyuio.open(edu, bind=True) as device:
            kept, given, other = (device.dma.alloc(size, align=64) for size in (100, 200, 300))
            got: list[pyuio.DmaBuffer] = []

            def handler(_number: int, _frame: FrameType | None, other: Any = other, got: Any = got) -> None:
                nonlocal refused
                other.close()
                try:
                    got.append(device.dma.alloc(128, align=64))
                except pyuio.DmaMemoryError as error:
                    refused += "signal handler" in str(error)

            def steps(device: pyuio.Device = device, given: pyuio.DmaBuffer = given, got: Any = got) -> None:
                given.close()
                got.append(device.dma.alloc(100, align=64))
                got.append(device.dma.alloc(3 << 10, align=64))

            signal.signal(signal.SIGINT, handler)
            came = ctrl_c.run(at, steps)
            assert other.closed == came
            got += [device.dma.alloc(64, align=64) for _ in range(4)]
            assert apart([kept, *got]), at
            assert others_can_allocate(), at
            assert command_register(edu) & BUS_MASTER, at
            for buffer in (kept, other, *got):
                buffer.close()
            assert not command_register(edu) & BUS_MASTER, at
            assert all(one.free.untouched for one in device.dma._pages), at
        assert given_back(total), at
    assert at > 50
    assert refused > 5


def test_a_handler_that_closes_the_other_of_the_last_two(device: pyuio.Device, ctrl_c: Interrupter) -> None:
    at, came = 0, True
    while came:
        at += 1
        first, second = device.dma.alloc(100), device.dma.alloc(100)
        signal.signal(signal.SIGINT, lambda *_, second=second: second.close())
        came = ctrl_c.run(at, first.close)
        assert second.closed == came
        second.close()
        assert not command_register(str(device.address)) & BUS_MASTER, at
    assert at > 10


# Most of its lines are in loops over hugepages: at every one of them it would take six minutes.
@pytest.mark.parametrize("step", [613, pytest.param(11, marks=pytest.mark.long)])
def test_several_hugepages(device: pyuio.Device, ctrl_c: Interrupter, step: int) -> None:
    before = sizes()[0].total, sizes()[0].free, len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    at, came = -step + 1, True
    while came:
        at += step

        def steps() -> None:
            device.dma.alloc(3 << 20).close()
            device.dma.scatter(3 << 20).close()

        came = ctrl_c.run(at, steps)
        for live in list(device.dma._live):
            live.close()
        with device.dma.alloc(5 << 20) as whole:
            whole.verify()
        assert others_can_allocate(), at
        assert not device.dma._pages, at
    device.close()
    gc.collect()
    # The device's own files are closed, too.
    assert (sizes()[0].total, sizes()[0].free) == before[:2]
    assert len(os.listdir("/proc/self/fd")) <= before[2]  # noqa: PTH208
    assert at > 50


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", [1, 7])
def test_the_first_and_the_last_buffer(edu: str, ctrl_c: Interrupter, step: int) -> None:
    """Where bus mastering is switched on, and off."""
    total = sizes()[0].total
    at, came = -step + 1, True
    while came:
        at += step
        with pyuio.open(edu, bind=True) as device:

            def steps(device: pyuio.Device = device) -> None:
                device.dma.alloc(100).close()

            came = ctrl_c.run(at, steps)
            buffer = device.dma.alloc(100)
            assert command_register(edu) & BUS_MASTER, at
            buffer.verify()
        assert not command_register(edu) & BUS_MASTER, at
        assert given_back(total), at
    assert at > 50
