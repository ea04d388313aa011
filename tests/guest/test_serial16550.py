# SPDX-License-Identifier: MIT
"""The serial port's driver on QEMU's pci-serial, which receives what it sends where it has nobody at the other end."""

from __future__ import annotations

import functools
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from pyuio_drivers import serial16550
from pyuio_drivers.serial16550 import Serial16550, WriteTimeoutError
from pyuio_drivers.serial16550_registers import DivisorLatch
from pyuio_drivers.serial_received import OVERRUN, LineError

import pyuio
from tests.guest.support import PATIENCE, Later, wait_until

# In make test these run on a model only: tests/model/test_serial16550.py.
on_a_model_too = pytest.mark.long


@pytest.fixture
def port(serial: str) -> Iterator[Serial16550]:
    """An open port that receives what it sends."""
    with Serial16550.open(serial) as opened:
        opened.loopback = True
        opened.timeout = opened.write_timeout = 30
        yield opened


def test_all_that_is_written_is_read(port: Serial16550) -> None:
    data = random.randbytes(2_000)
    assert port.write(data) == len(data)
    assert port.read(len(data)) == data
    port.timeout = 0
    assert port.read(1) == b""


@on_a_model_too
def test_both_at_once_from_two_threads(port: Serial16550, later: Later) -> None:
    data = random.randbytes(2_000)
    later(lambda: port.write(data))
    received = port.read(len(data))
    assert len(received) == len(data)
    assert received == data


def test_timeouts(port: Serial16550) -> None:
    port.timeout = 0.05
    start = time.monotonic()
    assert port.read(4) == b""
    assert time.monotonic() - start >= 0.05
    port.write(b"ab")
    assert port.read(4) == b"ab"
    port.timeout = 0
    assert port.read(4) == b""
    assert port.read(0) == b""
    with pytest.raises(ValueError, match="not -1"):
        port.read(-1)


@on_a_model_too
def test_reading_up_to_what_is_expected(port: Serial16550) -> None:
    port.write(b"one\ntwo\r\nthree")
    assert port.read_until() == b"one\n"
    assert port.read_until(b"\r\n") == b"two\r\n"
    assert port.read_until(size=2) == b"th"
    port.timeout = 0.05
    assert port.read_until(b"!") == b"ree"
    for expected, size in ((b"", None), (b"a", -1)):
        with pytest.raises(ValueError, match="a byte to expect"):
            port.read_until(expected, size)


def test_a_read_is_cancelled(port: Serial16550, later: Later) -> None:
    port.timeout = None
    found: queue.Queue[bytes] = queue.Queue()
    ways: list[Callable[[], bytes]] = [lambda: port.read(100), lambda: port.read_until(b"!")]
    for way in ways:
        port.write(b"ab")
        wait_until(lambda: port.in_waiting == 2)
        later(functools.partial(lambda read: found.put(read()), way))
        wait_until(lambda: port._reader is not None and port._received.waiting == 0)
        assert found.empty()
        port.cancel_read()
        assert found.get(timeout=PATIENCE) == b"ab"
    port.cancel_read()  # nobody reads
    port.timeout = 30
    port.write(b"c")
    assert port.read(1) == b"c", "the next read is another one"


@on_a_model_too
def test_what_waits(port: Serial16550) -> None:
    port.write(b"one\ntwo\nthree")
    port.flush()
    assert port.out_waiting == 0
    deadline = time.monotonic() + PATIENCE
    while port.in_waiting < 13:
        assert time.monotonic() < deadline
    assert port.readline() == b"one\n"
    assert port.in_waiting == 9
    buffer = bytearray(3)
    assert port.readinto(buffer) == 3
    assert buffer == b"two"
    assert port.read_all() == b"\nthree"
    assert port.in_waiting == 0
    port.timeout = 0.05
    assert port.readline() == b""


@on_a_model_too
def test_as_a_file(port: Serial16550) -> None:
    port.write(b"a\nb\n")
    port.timeout = 0.5
    assert list(port) == [b"a\n", b"b\n"]
    assert port.readable()
    assert port.writable()
    assert not port.seekable()
    assert port.is_open
    with pytest.raises(TypeError):
        port.write("text")  # type: ignore[arg-type]


@on_a_model_too
def test_settings(port: Serial16550) -> None:
    assert (port.baudrate, port.bytesize, port.parity, port.stopbits) == (9600, 8, "N", 1)
    for baudrate in (115200, 50, 300):
        port.baudrate = baudrate
        assert port.baudrate == baudrate
        latch = DivisorLatch(port.bar)
        port.registers.lcr.dlab = True
        divisor = latch.dll.read() + (latch.dlm.read() << 8)
        port.registers.lcr.dlab = False
        assert divisor == 115200 // baudrate
    for parity in "EOMSN":
        port.parity = parity
        assert port.parity == parity
    for bytesize, stopbits in ((5, 1.5), (6, 2), (7, 1), (8, 2), (8, 1)):
        port.bytesize = bytesize
        port.stopbits = stopbits
        assert (port.bytesize, port.stopbits) == (bytesize, stopbits)
    assert port.registers.lcr.read() == 3
    for name, value in (("baudrate", 230400), ("baudrate", 0), ("bytesize", 9), ("parity", "X"), ("stopbits", 1.5)):
        before = getattr(port, name)
        with pytest.raises(ValueError, match=str(value)):
            setattr(port, name, value)
        assert getattr(port, name) == before
    port.write(b"still there")
    assert port.read(11) == b"still there"


@on_a_model_too
def test_what_came_before_a_change_of_speed_is_not_lost(port: Serial16550) -> None:
    port.write(b"before")
    port.baudrate = 115200
    port.write(b"after")
    assert port.read(11) == b"beforeafter"


@on_a_model_too
def test_wires(port: Serial16550) -> None:
    """In loopback the outputs are the inputs, section 8.8."""
    assert (port.rts, port.dtr, port.cts, port.dsr, port.cd, port.ri) == (True, True, True, True, True, False)
    port.rts = False
    assert (port.rts, port.cts, port.dsr) == (False, False, True)
    port.dtr = False
    assert (port.dtr, port.dsr) == (False, False)
    port.loopback = False
    assert not port.loopback


@on_a_model_too
def test_break_on_the_line(port: Serial16550) -> None:
    assert not port.break_condition
    port.break_condition = True
    assert port.registers.lcr.set_break
    port.send_break(0.01)
    assert not port.break_condition


@on_a_model_too
def test_nobody_is_ready_at_the_other_end(port: Serial16550) -> None:
    port.rtscts = True
    port.rts = False  # and so is CTS
    port.write_timeout = 0.1
    with pytest.raises(WriteTimeoutError, match=r"0 of 3 bytes written in 0\.1 s: CTS is off") as info:
        port.write(b"abc")
    assert info.value.written == 0
    assert isinstance(info.value, TimeoutError)
    port.rts = True
    assert port.write(b"abc") == 3
    assert port.read(3) == b"abc"


def overrun(port: Serial16550) -> None:
    """Send more than the receiver's FIFO holds, while nobody takes anything out of it."""
    port.flush()  # or the service may still serve the first interrupt, and take bytes out
    enabled = port.registers.ier.read()
    port.registers.ier.write(0)
    for byte in range(20):
        port.registers.thr.write(byte)
    port.registers.ier.write(enabled)


def test_an_overrun_is_an_error_after_what_came_before_it(port: Serial16550) -> None:
    overrun(port)
    assert port.read(100) == bytes(range(16))
    with pytest.raises(LineError, match="overrun: bytes came that the port had no room for") as info:
        port.read(100)
    assert info.value.status == OVERRUN
    port.write(b"goes on")
    assert port.read(7) == b"goes on"


def test_reset_drops_what_was_received_and_its_errors(port: Serial16550) -> None:
    overrun(port)
    port.write(b"more")
    port.flush()
    port.reset_input_buffer()
    port.timeout = 0.1
    assert port.in_waiting == 0
    assert port.read(1) == b""
    port.reset_output_buffer()
    port.write(b"new")
    assert port.read(3) == b"new"


def test_bytes_that_python_never_took(port: Serial16550, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial16550, "RECEIVED_INTERRUPTS", 4)
    port.reset_input_buffer()  # begins another service
    for byte in range(30):
        port.registers.thr.write(byte)
        time.sleep(0.01)  # an interrupt of its own
    port.timeout = 1
    kept = port.read(100)  # on a busy machine an interrupt comes without a byte of its own
    assert kept
    assert bytes(range(30)).startswith(kept)
    with pytest.raises(LineError, match="lost: the ring was full"):
        port.read(1)
    port.timeout = 0.2
    port.read(100)
    port.write(b"goes on")
    assert port.read(7) == b"goes on"


def close_device(port: Serial16550) -> None:
    port.device.close()


ENDS: list[Callable[[Serial16550], object]] = [Serial16550.close, Serial16550.quiet, close_device]


@pytest.mark.parametrize("end", ENDS)
def test_a_blocked_read_ends(port: Serial16550, later: Later, end: Callable[[Serial16550], object]) -> None:
    port.timeout = None
    errors: list[BaseException] = []

    def read() -> None:
        try:
            port.read(1)
        except BaseException as error:
            errors.append(error)

    thread = later(read)
    time.sleep(0.1)
    end(port)
    thread.join(PATIENCE)
    assert [type(error) for error in errors] == [pyuio.ClosedError]


def test_closed(serial: str) -> None:
    port = Serial16550.open(serial)
    port.close()
    port.close()
    assert port.closed
    assert not port.is_open
    uses: list[Callable[[], object]] = [port.flush, port.reset_input_buffer, lambda: port.read(1)]
    uses += [lambda: port.write(b"x"), lambda: port.in_waiting]
    for use in uses:
        with pytest.raises(pyuio.ClosedError):
            use()
    with Serial16550.open(serial) as again:
        assert again.registers.mcr.rts
        again.quiet()
        assert again.registers.ier.read() == 0
        assert again.registers.mcr.read() == 0


def test_a_signal_handler_may_close(port: Serial16550) -> None:
    port.timeout = None
    before = signal.signal(signal.SIGUSR1, lambda *_: port.close())
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGUSR1])
    timer.start()
    try:
        with pytest.raises(pyuio.ClosedError):
            port.read(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
        timer.join()


def test_the_next_one_takes_over_from_one_that_was_killed(serial: str) -> None:
    told, tell = os.pipe()
    running = os.fork()
    if running == 0:
        try:
            port = Serial16550.open(serial)
            port.loopback = True
            port.baudrate = 115200
            os.write(tell, b"ready")
            while True:
                port.write(bytes(range(256)))
        finally:
            os._exit(1)
    os.close(tell)
    with os.fdopen(told, "rb", buffering=0) as file:
        assert file.read(5) == b"ready"
    time.sleep(0.3)
    os.kill(running, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(running, 0)[1]) == -signal.SIGKILL
    with Serial16550.open(serial) as port:
        port.loopback = True
        port.timeout = 10
        port.write(b"mine")
        assert port.read(4) == b"mine"
        port.timeout = 0.1
        assert port.read(1) == b""


def test_another_card(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device, pytest.raises(ValueError, match="Serial16550 serves 1b36:0002"):
        Serial16550(device)


def test_a_port_that_is_forgotten_gives_the_card_back(serial: str) -> None:
    port: Serial16550 | None = Serial16550.open(serial)
    del port
    with Serial16550.open(serial) as again:
        assert again.is_open
