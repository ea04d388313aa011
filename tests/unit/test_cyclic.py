# SPDX-License-Identifier: MIT
"""A cyclic buffer: which periods are ready, which were lost, and merged interrupts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
import pyuio.model
from pyuio.registers import Register, RegisterMap

SIZE, PERIODS = 4096, 4
PERIOD = SIZE // PERIODS


class Registers(RegisterMap):
    address = Register(0x00)
    running = Register(0x04)
    position = Register(0x08, access="ro")
    acknowledge = Register(0x0C, access="wo")


class CaptureCard(pyuio.model.Card):
    """It writes the number of each period into all of its bytes, and interrupts after each, 1 ms apart."""

    vendor, device, bars = 0x1234, 0x0CAF, {0: 0x1000}
    registers = {0: Registers}  # noqa: RUF012

    def reset(self) -> None:
        super().reset()
        self.count = 0

    def on_write_running(self, value: int) -> None:
        if value:
            self.after(1e-3, self.capture)

    def capture(self) -> None:
        if self.regs.running.read():
            start = self.count % PERIODS * PERIOD
            self.memory.write(self.regs.address.read() + start, bytes([self.count % 256]) * PERIOD)
            self.count += 1
            self.regs.position.write(self.count % PERIODS * PERIOD)
            self.raise_interrupt()
            self.after(1e-3, self.capture)

    def on_write_acknowledge(self, value: int) -> None:
        self.lower_interrupt()


@pytest.fixture
def card() -> CaptureCard:
    return CaptureCard()


@pytest.fixture
def device(card: CaptureCard) -> Iterator[pyuio.Device]:
    with pyuio.model.open(card) as opened:
        yield opened


def started(device: pyuio.Device, *, position: bool = True) -> tuple[Registers, pyuio.CyclicBuffer]:
    registers = Registers(device.bar(0))
    buffer = device.dma.alloc(SIZE)
    cyclic = pyuio.CyclicBuffer(buffer, periods=PERIODS, position=registers.position.read if position else None)
    registers.address.write(buffer.address)
    registers.running.write(1)
    return registers, cyclic


def read_once(device: pyuio.Device, registers: Registers, cyclic: pyuio.CyclicBuffer) -> list[int]:
    count = device.interrupt.read(1)
    registers.acknowledge.write(1)
    cyclic.update(count)
    return [period[0] for period in cyclic.ready()]


@pytest.mark.parametrize("position", [False, True])
def test_in_time(device: pyuio.Device, position: bool) -> None:
    registers, cyclic = started(device, position=position)
    seen = []
    for _ in range(10):
        seen += read_once(device, registers, cyclic)
    assert seen == list(range(10))
    assert (cyclic.done, cyclic.handled, cyclic.lost) == (10, 10, 0)


def test_merged_interrupts_and_periods_that_were_lost(device: pyuio.Device) -> None:
    registers, cyclic = started(device)
    assert read_once(device, registers, cyclic) == [0]
    device.clock.sleep(2.5e-3)  # two more periods, and one interrupt for both
    assert read_once(device, registers, cyclic) == [1, 2]
    assert cyclic.lost == 0
    device.clock.sleep(3.1e-3)
    assert read_once(device, registers, cyclic) == [3, 4, 5]
    assert cyclic.lost == 0
    assert read_once(device, registers, cyclic) == [6]


def test_too_late_while_a_period_is_read(device: pyuio.Device) -> None:
    registers, cyclic = started(device)
    device.clock.sleep(3.5e-3)
    device.interrupt.read(1)
    registers.acknowledge.write(1)
    assert cyclic.update(1) == 3
    seen = []
    for period in cyclic.ready():
        seen.append(period[0])
        if len(seen) == 1:
            device.clock.sleep(2e-3)  # periods 3 and 4 end; 4 lay where 0 was, and 5 comes where 1 was
    assert cyclic.lost == 2
    assert seen == [0, 2, 3, 4]
    assert repr(cyclic) == "<CyclicBuffer of 4 periods of 1024 bytes: 5 done, 5 handled, 2 lost>"


def test_without_a_position_the_count_tells(device: pyuio.Device) -> None:
    _registers, cyclic = started(device, position=False)
    assert cyclic.update(6) == 3
    assert (cyclic.done, cyclic.handled, cyclic.lost) == (6, 3, 3)
    assert [period.address for period in cyclic.ready()] == [cyclic.periods[index].address for index in (3, 0, 1)]
    cyclic.restart()
    assert (cyclic.done, cyclic.handled, cyclic.lost, cyclic.update()) == (0, 0, 0, 0)


def test_whole_rounds_are_told_by_the_time(device: pyuio.Device) -> None:
    registers = Registers(device.bar(0))
    cyclic = pyuio.CyclicBuffer(
        device.dma.alloc(SIZE), periods=PERIODS, position=registers.position.read, period_time=1e-3, clock=device.clock
    )
    registers.address.write(cyclic.buffer.address)
    registers.running.write(1)
    assert read_once(device, registers, cyclic) == [0]
    device.clock.sleep(9.2e-3)  # periods 1 to 9 end, with one interrupt
    assert read_once(device, registers, cyclic) == [7, 8, 9]
    assert (cyclic.done, cyclic.lost) == (10, 6)
    device.clock.sleep(4.5e-3)  # just a round, and the position is the same
    cyclic.update()
    assert (cyclic.done, cyclic.lost) == (14, 7)
    device.clock.sleep(0.4e-3)  # within a period
    assert cyclic.update() == 3


@given(st.lists(st.integers(1, 3000), max_size=30), st.floats(0.97, 1.03))
def test_a_rate_that_is_a_little_wrong(pauses: list[int], error: float) -> None:
    """The position corrects the time at each update."""
    card = CaptureCard()
    with pyuio.model.open(card) as device:
        registers = Registers(device.bar(0))
        cyclic = pyuio.CyclicBuffer(
            device.dma.alloc(SIZE),
            periods=PERIODS,
            position=registers.position.read,
            period_time=error * 1e-3,
            clock=device.clock,
        )
        registers.address.write(cyclic.buffer.address)
        registers.running.write(1)
        for pause in pauses:
            device.clock.sleep(pause * 1e-5)
            cyclic.update()
            assert cyclic.done == card.count


def test_a_position_that_is_seen_before_its_interrupt_counts_once(device: pyuio.Device) -> None:
    place = 0
    cyclic = pyuio.CyclicBuffer(device.dma.alloc(SIZE), periods=PERIODS, position=lambda: place)
    place = PERIOD
    assert cyclic.update() == 1
    assert cyclic.update(1) == 1, "the interrupt of the same period"
    place = SIZE  # some cards say the end for the start
    assert (cyclic.update(3), cyclic.lost) == (3, 1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.booleans()), max_size=40), st.integers(2, 5))
def test_what_is_found_is_what_was(steps: list[tuple[int, int, bool]], periods: int) -> None:
    """Whatever merges: no period is handed out twice, out of order, or while the device is in it."""
    size, true, seen = periods * 16, 0, 0
    buffer: Any = pyuio.model.open(CaptureCard())
    with buffer as device:
        cyclic = pyuio.CyclicBuffer(
            device.dma.alloc(size), periods=periods, position=lambda: true % periods * 16 + true % 16
        )
        last = -1
        for ended, noticed, handle in steps:
            ended = min(ended, periods - 1)  # what one update can tell
            true += ended
            count = min(noticed, true - seen)
            seen += count
            cyclic.update(count)
            assert cyclic.done == true
            assert true - cyclic.handled < periods
            if handle:
                for period in cyclic.ready():
                    assert cyclic.handled > last
                    last = cyclic.handled
                    assert period is cyclic.periods[last % periods]
                    assert last % periods != true % periods
                assert cyclic.handled == true


def test_bad_arguments(device: pyuio.Device) -> None:
    buffer: Any = device.dma.alloc(SIZE)
    for wrong, error, reason in (
        ({"periods": 1}, ValueError, "at least 2 periods, not 1"),
        ({"periods": 3}, ValueError, "4096 bytes are not 3 equal periods"),
        ({"periods": 2, "position": 5}, TypeError, "position is a function"),
        ({"periods": "2"}, TypeError, "integer"),
        ({"periods": 2, "period_time": 1.0}, ValueError, "beside a position"),
        ({"periods": 2, "position": int, "period_time": 0}, ValueError, "seconds above 0"),
        ({"periods": 2, "position": int, "period_time": float("nan")}, ValueError, "seconds above 0"),
    ):
        arguments: Any = wrong
        with pytest.raises(error, match=reason):
            pyuio.CyclicBuffer(buffer, **arguments)
    buffer = bytearray(16)
    with pytest.raises(TypeError, match="in a DmaBuffer, not in a bytearray"):
        pyuio.CyclicBuffer(buffer, periods=2)
    cyclic = pyuio.CyclicBuffer(device.dma.alloc(SIZE), periods=2, position=lambda: SIZE + 1)
    with pytest.raises(ValueError, match="number of interrupts is from 0, not -1"):
        cyclic.update(-1)
    with pytest.raises(ValueError, match="the device says that it is at 0x1001 of a buffer of 0x1000 bytes"):
        cyclic.update(1)
