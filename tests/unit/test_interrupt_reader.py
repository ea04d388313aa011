# SPDX-License-Identifier: MIT
"""`Interrupt.read` and `poll` in C: arguments, signals, results; on an eventfd, as VFIO's interrupts are."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

import pyuio
from pyuio._native._access import Presence
from pyuio._native._reader import Reader
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import NominalMasking
from pyuio.interrupt.vfio_interrupt import eventfd_interrupt


class Line:
    """An interrupt, and the eventfd by which it comes."""

    def __init__(self) -> None:
        self.request = os.eventfd(0, os.EFD_NONBLOCK)
        self.presence = Presence("line")
        self.presence.ask_request(self.request)
        self.eventfd, native = eventfd_interrupt(self.request)
        self.interrupt = Interrupt(native, NominalMasking(), "line", self.presence, "MSI")

    def come(self, count: int = 1) -> None:
        os.eventfd_write(self.eventfd, count)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.interrupt.close()
    os.close(made.request)


def test_returns_the_count(line: Line) -> None:
    line.come(3)
    assert line.interrupt.read() == 3
    line.come((1 << 32) - 1)
    assert line.interrupt.read() == (1 << 32) - 1


@pytest.mark.parametrize("timeout", [None, 0, 0.0, 1, 1.5, True, 1e300, math.inf, 10**400, 1 << 62])
def test_any_number_is_a_timeout(line: Line, timeout: Any) -> None:
    for arguments, keywords in (((timeout,), {}), ((), {"timeout": timeout})):
        line.come(2)
        assert line.interrupt.poll(*arguments, **keywords) is True
        assert line.interrupt.read(*arguments, **keywords) == 2


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (-0.1, ValueError), (math.nan, ValueError), ("1", TypeError), (Decimal(1), TypeError)],
)
def test_refuses_other_timeouts_and_takes_nothing(line: Line, timeout: Any, error: type[Exception]) -> None:
    line.come()
    for function in (line.interrupt.read, line.interrupt.poll):
        with pytest.raises(error, match="a timeout is"):
            function(timeout)
    assert line.interrupt.read(0) == 1


def test_refuses_other_arguments(line: Line) -> None:
    line.come()
    function: Any
    for function in (line.interrupt.read, line.interrupt.poll):
        with pytest.raises(TypeError, match="one argument, timeout, not 2"):
            function(1, 2)
        with pytest.raises(TypeError, match="one argument, timeout, not 2"):
            function(1, timeout=1)
        with pytest.raises(TypeError, match="no keyword argument 'seconds'"):
            function(seconds=1)
    assert line.interrupt.read(0) == 1


def test_the_end_of_the_time(line: Line) -> None:
    with pytest.raises(pyuio.WouldBlockError, match="no interrupt is pending; it is unmasked now"):
        line.interrupt.read(0)
    start = time.monotonic()
    with pytest.raises(pyuio.DeviceTimeoutError, match=r"no interrupt came within 0\.31 s"):
        line.interrupt.read(0.31)  # longer than the C code sleeps at once
    assert time.monotonic() - start >= 0.31
    assert line.interrupt.poll(0.01) is False
    assert line.interrupt.poll() is False


def test_signal_handlers_run_and_the_wait_goes_on(line: Line) -> None:
    ran = []

    def handler(number: int, frame: object) -> None:
        ran.append(number)
        if len(ran) == 3:
            line.come()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        assert line.interrupt.read(60) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) >= 3


def test_a_signal_handler_that_raises_ends_the_wait(line: Line) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for function in (line.interrupt.read, line.interrupt.poll):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(KeyboardInterrupt):
                function(60)
    finally:
        signal.signal(signal.SIGALRM, before)
    line.come()
    assert line.interrupt.read(0) == 1


def test_an_exception_that_another_thread_sets_ends_the_wait(line: Line) -> None:
    ended = threading.Event()

    def wait() -> None:
        try:
            line.interrupt.read(60)
        except LookupError:
            ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(LookupError))
    thread.join(30)
    assert ended.is_set()


def test_closing_in_another_thread_ends_the_wait(line: Line) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            line.interrupt.read()
        except pyuio.ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    line.interrupt.close()
    thread.join(30)
    assert [str(error) for error in errors] == ["the interrupt of line is closed"]


def test_a_device_that_another_part_found_gone(line: Line) -> None:
    line.come()
    line.presence.note_gone()
    for function in (line.interrupt.read, line.interrupt.poll):
        with pytest.raises(pyuio.DeviceRemovedError):
            function(0)
    line.interrupt.close()
    with pytest.raises(pyuio.ClosedError):
        line.interrupt.read(0)


def test_the_kernel_wants_the_device_back(line: Line) -> None:
    os.eventfd_write(line.request, 1)
    with pytest.raises(pyuio.DeviceRemovedError):
        line.interrupt.read()
    assert line.presence.gone


def test_one_that_was_never_connected_is_refused() -> None:
    with pytest.raises(ValueError, match="not connected"):
        Reader().read()
    with pytest.raises(TypeError, match="a Presence or None is wanted, not int"):
        Reader()._connect(0, 0, 0, None, 1, {}, 8)  # type: ignore[arg-type]


def test_garbage_is_collected_in_a_cycle() -> None:
    line: Any = Line()
    line.interrupt.line = line
    os.close(line.request)
    gone = weakref.ref(line.interrupt)
    line.interrupt.close()
    del line
    gc.collect()
    assert gone() is None


def test_lent_to_another_process(line: Line) -> None:
    with line.interrupt.lent() as descriptor:
        assert os.get_blocking(descriptor)
        with pytest.raises(pyuio.DeviceBusyError):
            line.interrupt.read(0)
        with pytest.raises(pyuio.DeviceBusyError), line.interrupt.lent():
            pass
        line.come(2)
        assert os.eventfd_read(descriptor) == 2
    assert not os.get_blocking(descriptor)
    line.come()
    assert line.interrupt.read() == 1
    line.interrupt.close()
    with pytest.raises(pyuio.ClosedError), line.interrupt.lent():
        pass


def test_is_not_initialised_twice(line: Line) -> None:
    interrupt = line.interrupt
    with pytest.raises(TypeError, match="twice"):
        Interrupt.__init__(interrupt, interrupt.native, NominalMasking(), "another", None, "MSI")
    line.come()
    assert interrupt.read(0) == 1
