# SPDX-License-Identifier: MIT
"""The warning about an INTx interrupt that nobody acknowledges: on an eventfd, with a file for configuration space."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyuio._native._access import Presence
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import NominalMasking
from pyuio.interrupt.vfio_interrupt import eventfd_interrupt
from pyuio.program import Write
from pyuio.program.run import run_once
from pyuio.region import PortRegion, Region
from pyuio.registers import Field, Register, RegisterMap

STATUS, INTERRUPT_STATUS = 6, 1 << 3
SIZE = 4096


class Control(Register):
    go = Field(0)


class Registers(RegisterMap):
    control = Control(0x10)


class Line:
    """An INTx interrupt of a card with registers in memory and in ports."""

    def __init__(self, directory: Path) -> None:
        files = [directory / name for name in ("config", "memory", "ports")]
        for file in files:
            file.write_bytes(bytes(SIZE))
        self.config = os.open(files[0], os.O_RDWR)
        self.presence = Presence("card")
        self.presence.ask_config(self.config)
        os.pwrite(self.config, b"\x34\x12", 0)
        self.memory = Region(files[1], SIZE, presence=self.presence)
        self.ports = PortRegion(files[2], SIZE, presence=self.presence)
        self.registers = Registers(self.memory)
        self.asserts(True)
        self._request = os.eventfd(0, os.EFD_NONBLOCK)
        self._eventfd, native = eventfd_interrupt(self._request)
        self.interrupt = Interrupt(native, NominalMasking(), "card", self.presence, "INTx")

    def asserts(self, asserted: bool) -> None:
        os.pwrite(self.config, bytes([INTERRUPT_STATUS * asserted]), STATUS)

    def come(self, times: int = 1, after_each: Callable[[], object] = lambda: None) -> None:
        for _ in range(times):
            os.eventfd_write(self._eventfd, 1)
            assert self.interrupt.read(0) == 1
            after_each()

    def close(self) -> None:
        self.interrupt.close()
        self.memory.close()
        self.ports.close()
        self.presence.close()
        os.close(self._request)
        os.close(self.config)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path)
    yield made
    made.close()


def test_it_warns_once(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.come(16)
    assert caplog.records == []
    line.come(100)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "card: its interrupt was still asserted after each of the last 8 reads" in record.getMessage()


def test_reading_registers_is_no_acknowledgement(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    def look() -> None:
        line.memory.read32(0)
        line.memory.read(0, 64)
        line.ports.read32(0)
        assert not line.registers.control.go

    line.come(20, look)
    assert len(caplog.records) == 1


WRITES: dict[str, Callable[[Line], object]] = {
    "write8": lambda line: line.memory.write8(0, 1),
    "write16": lambda line: line.memory.write16(0, 1),
    "write32": lambda line: line.memory.write32(0, 1),
    "write64": lambda line: line.memory.write64(0, 1),
    "update32": lambda line: line.memory.update32(0, 3, 1),
    "set8": lambda line: line.memory.set8(0, 1),
    "clear16": lambda line: line.memory.clear16(0, 1),
    "a run of writes": lambda line: line.memory.write(0, bytes(8)),
    "a register": lambda line: line.registers.control.write(1),
    "a field": lambda line: setattr(line.registers.control, "go", True),
    "ports": lambda line: line.ports.write8(0, 1),
    "ports, set": lambda line: line.ports.set32(0, 1),
    "a run of writes to ports": lambda line: line.ports.write(0, bytes(8)),
    "Device.run": lambda line: run_once([Write(line.registers.control, 1)], line.presence, line.interrupt.clock),
}


@pytest.mark.parametrize("way", WRITES)
def test_each_way_of_writing_counts(line: Line, caplog: pytest.LogCaptureFixture, way: str) -> None:
    for _ in range(5):
        line.come(15)
        WRITES[way](line)
    line.come(15)
    assert caplog.records == []
    line.come(5)
    assert len(caplog.records) == 1


def test_writes_of_a_region_that_was_closed_count(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.come(15)
    line.memory.write32(0, 1)
    line.memory.close()
    line.come(15)
    assert caplog.records == []


def test_a_line_that_is_not_asserted_earns_patience(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """As of a card that clears its causes when a register is read."""
    line.asserts(False)
    line.come(1000)  # it has looked after 8, 16 and so on to 256
    assert line.interrupt._patience == 512
    line.asserts(True)
    line.come(20)
    assert caplog.records == []
    line.come(20)
    assert len(caplog.records) == 1


def test_a_card_that_was_pulled_out_asserts_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    os.pwrite(line.config, b"\xff" * 64, 0)
    assert not line.presence.asserts_interrupt()
    line.come(20)
    line.presence.close()
    assert not line.presence.asserts_interrupt()
    assert caplog.records == []


def test_tasks(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    async def reads() -> None:
        for _ in range(20):
            os.eventfd_write(line._eventfd, 1)
            assert await line.interrupt.read_async(1) == 1

    asyncio.run(reads())
    assert len(caplog.records) == 1
