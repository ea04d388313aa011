# SPDX-License-Identifier: MIT
"""The serial port's driver on the port in Python: what its guest tests test, and what QEMU's port does not show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from pyuio_drivers import serial16550
from pyuio_drivers.models.serial16550 import BREAK, Serial16550Card
from pyuio_drivers.serial16550 import Serial16550, WriteTimeoutError
from pyuio_drivers.serial16550_registers import FIFO_SIZE, InterruptId, LineStatus, Serial16550Registers
from pyuio_drivers.serial_received import BREAK as RECEIVED_BREAK
from pyuio_drivers.serial_received import OVERRUN, PARITY_ERROR, LineError

import pyuio
import pyuio.model
from pyuio.model import Complaint, clock
from tests.guest import test_serial16550 as guest

IN_LOOPBACK: list[Callable[[Serial16550], object]] = [
    guest.test_all_that_is_written_is_read,
    guest.test_reading_up_to_what_is_expected,
    guest.test_what_waits,
    guest.test_as_a_file,
    guest.test_settings,
    guest.test_what_came_before_a_change_of_speed_is_not_lost,
    guest.test_wires,
    guest.test_break_on_the_line,
    guest.test_nobody_is_ready_at_the_other_end,
]


@pytest.fixture
def model() -> Serial16550Card:
    return Serial16550Card()


@pytest.fixture
def port(model: Serial16550Card) -> Iterator[Serial16550]:
    with Serial16550(pyuio.model.open(model)) as opened:
        opened.timeout = opened.write_timeout = 30
        yield opened


@pytest.mark.parametrize("test", IN_LOOPBACK)
def test_as_in_the_guest(port: Serial16550, test: Callable[[Serial16550], object]) -> None:
    port.loopback = True
    test(port)


def test_the_line(model: Serial16550Card, port: Serial16550) -> None:
    data = bytes(range(256)) * 2
    start = clock.monotonic()
    assert port.write(data) == len(data)
    port.flush()
    assert model.sent == data
    took = clock.monotonic() - start
    assert len(data) * 10 / 9600 <= took < len(data) * 10 / 9600 * 1.05
    model.feed(data)
    assert port.read(len(data)) == data
    port.bytesize, port.parity, port.stopbits = 7, "E", 2
    assert model.character_time == port.character_time() == pytest.approx(11 / 9600)
    port.write(b"\xff")
    model.feed(b"\xff")
    assert port.read(1) == b"\x7f"
    port.baudrate = 115200
    assert model.divisor == 1
    port.write(b"fast")
    port.flush()
    assert model.sent == data + b"\xfffast"


def test_two_threads(model: Serial16550Card, port: Serial16550) -> None:
    port.loopback = True
    data = bytes(range(250))
    writer = threading.Thread(target=port.write, args=[data])
    writer.start()
    assert port.read(len(data)) == data
    writer.join()


def test_a_few_bytes_come_after_four_characters(model: Serial16550Card, port: Serial16550) -> None:
    """Fewer than the FIFO's trigger: section 8.11."""
    model.feed(b"ab")
    start = clock.monotonic()
    assert port.read(2) == b"ab"
    assert clock.monotonic() - start == pytest.approx(6 * model.character_time, rel=0.05)
    model.feed(bytes(14))
    start = clock.monotonic()
    assert port.read(14) == bytes(14)
    assert clock.monotonic() - start == pytest.approx(14 * model.character_time, rel=0.05)


def test_errors_of_the_line(model: Serial16550Card, port: Serial16550) -> None:
    model.feed(b"ab")
    model.feed(b"?", LineStatus.pe.mask)
    model.feed(b"cd")
    model.feed(b"\0", BREAK)
    model.feed(b"e")
    assert port.read(100) == b"ab"
    with pytest.raises(LineError, match="parity") as parity:
        port.read(100)
    assert (parity.value.status, parity.value.data) == (PARITY_ERROR, b"?")
    assert port.read(100) == b"cd"
    with pytest.raises(LineError, match="break") as held:
        port.read(100)
    assert (held.value.status, held.value.data) == (RECEIVED_BREAK, b"")
    port.timeout = 0.1
    assert port.read(100) == b"e"


def test_an_overrun(model: Serial16550Card, port: Serial16550) -> None:
    port.registers.ier.write(0)
    model.feed(bytes(range(20)))
    clock.sleep(0.1)
    port.registers.ier.write(0x0F)
    assert port.read(100) == bytes(range(FIFO_SIZE))
    with pytest.raises(LineError, match="overrun") as overrun:
        port.read(100)
    assert overrun.value.status == OVERRUN
    model.feed(b"goes on")
    assert port.read(7) == b"goes on"


def test_writing_goes_on_after_a_full_ring(model: Serial16550Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is lost, received bytes are told, and the interrupt of the empty transmitter comes again."""
    monkeypatch.setattr(serial16550, "RECEIVED_INTERRUPTS", 4)
    with Serial16550(pyuio.model.open(model)) as port:
        port.timeout = port.write_timeout = 5
        port.write(b"first ")
        port.flush()
        for number in range(3):
            model.feed(bytes(20 * FIFO_SIZE))  # more interrupts than the ring holds
            while model._incoming:
                clock.sleep(0.01)
            port.write(b"then ") if number else port.write(bytes(range(65, 65 + FIFO_SIZE)))
            clock.sleep(0.1)
            assert port._service is not None
            assert port._service.lost
            port.write(b"more ")
            port.flush()
            assert port.read(1000)
            with pytest.raises(LineError, match="lost: the ring was full"):
                port.read(1000)
            port.reset_input_buffer()
        assert model.sent == b"first " + bytes(range(65, 65 + FIFO_SIZE)) + b"more " + b"then more " * 2
        assert model.complaints == []


def test_a_write_that_is_broken_off(model: Serial16550Card, port: Serial16550, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C, at any byte: what follows does not wait for ever."""

    class Stop(BaseException):
        pass

    write = port.bar.write8
    port.write(b"before ")
    for number in range(3):
        port.flush()
        left = number

        def write8(offset: int, value: int) -> None:
            nonlocal left
            if not left:
                raise Stop
            left -= 1
            write(offset, value)

        with monkeypatch.context() as patched:
            patched.setattr(port, "bar", SimpleNamespace(write8=write8))
            with pytest.raises(Stop):
                port.write(b"abc")
        port.write(b" ")
    port.flush()
    assert model.sent == b"before  a ab "


def test_the_modem(model: Serial16550Card, port: Serial16550) -> None:
    assert (port.cts, port.dsr, port.ri, port.cd) == (False, False, False, False)
    model.set_wires(cts=True, ri=True, cd=True)
    assert (port.cts, port.dsr, port.ri, port.cd) == (True, False, True, True)
    model.set_wires(cts=False)
    port.rtscts = True
    port.write_timeout = 0.5
    with pytest.raises(WriteTimeoutError, match="CTS is off"):
        port.write(b"x")
    port.write_timeout = 30
    clock.after(3, lambda: model.set_wires(cts=True))
    port.write(b"x")
    port.flush()
    assert model.sent == b"x"


def test_interrupts_by_priority(model: Serial16550Card) -> None:
    """Section 8.6, table IV, and how each is acknowledged."""
    with pyuio.model.open(model) as device:
        registers = Serial16550Registers(device.bar(0))

        def next_one() -> tuple[InterruptId, bool]:
            return registers.iir.snapshot().interrupt_id, bool(model.raised)

        assert next_one() == (InterruptId.NONE, False)
        registers.lcr.write(3)
        registers.fcr.write(1)
        model.feed(b"a")
        model.feed(b"b", LineStatus.fe.mask)
        clock.sleep(0.02)
        model.set_wires(cts=True)
        registers.ier.write(0x0F)
        assert next_one() == (InterruptId.RECEIVED_DATA_AVAILABLE, True)
        assert registers.lsr.read() == 0xE1  # an error is in the FIFO, and not at its top
        assert registers.rbr.read() == ord("a")
        assert next_one() == (InterruptId.RECEIVER_LINE_STATUS, True)
        assert registers.lsr.read() == 0xE9
        assert next_one() == (InterruptId.RECEIVED_DATA_AVAILABLE, True)
        assert registers.rbr.read() == ord("b")
        assert next_one() == (InterruptId.THR_EMPTY, True)
        assert next_one() == (InterruptId.MODEM_STATUS, True)
        assert registers.msr.read() == 0x11
        assert next_one() == (InterruptId.NONE, False)
        registers.thr.write(1)
        assert registers.lsr.read() & 0x60 == 0x20  # it is in the shift register
        assert next_one() == (InterruptId.THR_EMPTY, False)  # to read it acknowledges it
        for _ in range(FIFO_SIZE):
            registers.thr.write(2)
        with pytest.raises(Complaint, match="0x03 is written to THR while the transmitter is full"):
            registers.thr.write(3)
        registers.fcr.write(0)  # which empties both
        assert registers.lsr.read() & 0x20
        assert registers.iir.read() & 0xC0 == 0


def test_the_divisor_is_in_place_of_other_registers(model: Serial16550Card, port: Serial16550) -> None:
    port.registers.ier.write(5)
    port.registers.lcr.dlab = True
    port.registers.thr.write(0x34)
    port.registers.ier.write(0x12)
    assert (port.registers.rbr.read(), port.registers.ier.read(), model.divisor) == (0x34, 0x12, 0x1234)
    port.registers.lcr.dlab = False
    assert port.registers.ier.read() == 5
    clock.sleep(1)
    assert model.sent == b""


def test_a_port_that_interrupts_for_ever_is_a_timeout(model: Serial16550Card, port: Serial16550) -> None:
    """Its status says that there is no byte, so nothing is read and the line stays asserted."""
    model.faults.stick("lsr", 0, 0)
    model.feed(b"never seen")
    port.timeout = 0.05
    start = clock.monotonic()
    assert port.read(1) == b""
    assert clock.monotonic() - start < 0.06
    model.faults.clear()


def test_no_fifos(model: Serial16550Card) -> None:
    model.faults.stick("iir", 6, 0)
    with pyuio.model.open(model) as device, pytest.raises(pyuio.UnsupportedDeviceError, match="no FIFOs that work"):
        Serial16550(device)


def test_a_read_ends_with_the_card(model: Serial16550Card, port: Serial16550) -> None:
    port.timeout = None
    clock.after(5, model.remove)
    with pytest.raises(pyuio.DeviceRemovedError):
        port.read(1)
