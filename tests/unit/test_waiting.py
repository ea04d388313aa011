# SPDX-License-Identifier: MIT
"""`pyuio.wait` without a device, and the arithmetic of the count. What needs a device is in tests/guest."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio._native._interrupt import ffi, lib


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_returns_those_that_are_ready_in_their_order(pipe: tuple[int, int]) -> None:
    near, far = socket.socketpair()
    with near, far:
        things: list[Any] = [near, pipe[0]]
        assert pyuio.wait(things, 0) == []
        os.write(pipe[1], b"x")
        assert pyuio.wait(things) == [pipe[0]]
        far.send(b"x")
        assert pyuio.wait(things) == things
        assert pyuio.wait([pipe[0], pipe[0]]) == [pipe[0], pipe[0]]


def test_a_socket_whose_other_end_has_gone_is_ready() -> None:
    near, far = socket.socketpair()
    far.close()
    with near:
        assert pyuio.wait([near], 5) == [near]


def test_waits_no_shorter_than_asked(pipe: tuple[int, int]) -> None:
    start = time.monotonic()
    assert pyuio.wait([pipe[0]], 0.0501) == []
    assert time.monotonic() - start >= 0.0501


def test_a_timeout_beyond_what_poll_takes(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    for timeout in (1e7, 1e300, float("inf")):
        assert pyuio.wait([pipe[0]], timeout) == [pipe[0]]


def test_bad_input(pipe: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="nothing to wait for"):
        pyuio.wait([])
    assert pyuio.wait([], 0) == []
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more seconds"):
            pyuio.wait([pipe[0]], wrong)
    with pytest.raises(TypeError, match="number of seconds"):
        pyuio.wait([pipe[0]], "1")  # type: ignore[arg-type]
    for thing in ("x", 1.5, None):
        with pytest.raises(TypeError, match="has no descriptor"):
            pyuio.wait([thing], 0)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="is not open"):
        pyuio.wait([-1], 0)
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="is not open"):
        pyuio.wait([closed], 0)
    gone = os.dup(pipe[0])
    os.close(gone)
    with pytest.raises(ValueError, match=f"descriptor {gone} is not open"):
        pyuio.wait([gone], 0)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 2**32 - 1), max_size=20))
def test_the_count_is_the_difference_modulo_2_to_the_32(first: int, counts: list[int]) -> None:
    """The C that reads totals, given totals: the kernel's wraps at 2^32, and no count may be lost or invented there."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    native = ffi.gc(lib.pyuio_interrupt_new(reader, first), lib.pyuio_interrupt_free)  # owns the reader from here on
    total = first
    try:
        for count in counts:
            total = (total + count) % 2**32
            os.write(writer, total.to_bytes(4, sys.byteorder))
            assert lib.pyuio_interrupt_read(native, 0) == count
            assert lib.pyuio_interrupt_total(native) == total
        assert lib.pyuio_interrupt_read(native, 0) == lib.PYUIO_NONE
    finally:
        os.close(writer)
        lib.pyuio_interrupt_close(native)
    assert lib.pyuio_interrupt_read(native, 0) == lib.PYUIO_CLOSED


def test_a_signal_that_wakes_nobody_is_handled_soon(pipe: tuple[int, int]) -> None:
    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    def take_the_signal() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    thread = threading.Thread(target=take_the_signal)
    try:
        thread.start()
        with pytest.raises(Enough):
            pyuio.wait([pipe[0]])
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.signal(signal.SIGUSR1, before)
