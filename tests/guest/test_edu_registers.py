# SPDX-License-Identifier: MIT
"""The edu card's registers by name: what the card sees of it, and that it is one access of the declared width."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from pyuio_drivers.edu import Direction, Edu, EduRegisters

from pyuio import BusError, RegisterAccessError, Service
from pyuio.program import Read
from pyuio.region import Region
from tests.access_trap import Access, Trap, build, needs_trap
from tests.guest.support import PATIENCE, PROCESSOR


@pytest.fixture
def trap(card: Edu, tmp_path: Path) -> Trap:
    """Records each access to the first page of the BAR, which has all registers, and lets the card have it."""
    assert isinstance(card.bar, Region)
    return Trap(card.bar._mmio.mapping, build(tmp_path))


def test_identification(card: Edu) -> None:
    identification = card.registers.identification.snapshot()
    assert (identification.major, identification.minor, identification.card) == (1, 0, 0x00ED)
    assert card.registers.identification.major == 1
    assert str(card.registers.identification).startswith("identification = 0x010000ed\n  major[31:24] = 1\n")


def test_what_the_card_does_is_seen_by_name(card: Edu) -> None:
    registers = card.registers
    registers.liveness.write(0x12345678)
    assert registers.liveness.read() == 0xEDCBA987
    registers.factorial.write(10)
    registers.status.poll(lambda status: not status.computing, 1.0)
    assert registers.factorial.read() == math.factorial(10)
    registers.status.interrupt_after_factorial = True
    assert registers.status.interrupt_after_factorial
    assert card.bar.read32(0x20) == 0x80
    with registers.status.change() as status:
        status.interrupt_after_factorial = False
    assert card.bar.read32(0x20) == 0
    with registers.raise_interrupt.change(0) as raised:
        raised.factorial = True
        raised.dma = True
    assert registers.interrupt_status.dma
    registers.acknowledge_interrupt.write(0x1)
    assert not registers.interrupt_status.factorial
    assert registers.interrupt_status.dma
    registers.acknowledge_interrupt.write(0x100)
    assert registers.interrupt_status.read() == 0
    assert isinstance(registers.dma_command.direction, Direction)  # of the last transfer, whoever had it


def test_what_is_refused_leaves_the_card_alone(card: Edu) -> None:
    registers = card.registers
    with pytest.raises(RegisterAccessError, match="interrupt_status is read-only"):
        registers.interrupt_status.write(0)
    with pytest.raises(RegisterAccessError, match=r"status\.computing is read-only"):
        registers.status.computing = True
    with pytest.raises(RegisterAccessError, match="raise_interrupt is write-only"):
        registers.raise_interrupt.read()
    with pytest.raises(RegisterAccessError, match="cannot be changed by itself"):
        registers.raise_interrupt.dma = True
    assert registers.interrupt_status.read() == 0


@needs_trap
def test_one_access_of_the_declared_width(card: Edu, trap: Trap) -> None:
    registers = card.registers

    def write(offset: int, bits: int) -> Access:
        return Access("write", offset, bits)

    def read(offset: int, bits: int) -> Access:
        return Access("read", offset, bits)

    assert trap.record(registers.identification.read) == [read(0x00, 32)]
    assert trap.record(lambda: registers.identification.major) == [read(0x00, 32)]
    assert trap.record(registers.liveness.write, 5) == [write(0x04, 32)]
    assert registers.liveness.read() == 0xFFFFFFFA, "the card was written to, through the trap"
    assert trap.record(lambda: registers.status.computing) == [read(0x20, 32)]
    both = [read(0x20, 32), write(0x20, 32)]
    assert trap.record(setattr, registers.status, "interrupt_after_factorial", True) == both
    assert registers.status.interrupt_after_factorial
    assert trap.record(str, registers.status) == [read(0x20, 32)]
    assert trap.record(repr, registers) == []
    assert trap.record(card.raise_interrupt, 0x10) == [write(0x60, 32)]
    assert trap.record(card.acknowledge) == [write(0x64, 32)]
    assert trap.record(registers.dma_source.write, 0x40000) == [write(0x80, 64)]
    assert trap.record(registers.dma_source.read) == [read(0x80, 64)]
    assert registers.dma_source.read() == 0x40000

    def change() -> None:
        with registers.status.change() as status:
            status.interrupt_after_factorial = False

    assert trap.record(change) == both


@needs_trap
def test_printing_them_all_reads_each_readable_one_once(card: Edu, trap: Trap) -> None:
    readable = [Access("read", one.offset, one.width) for one in EduRegisters.walk() if one.readable]
    assert trap.record(str, card.registers) == readable
    text = str(card.registers)
    assert "0x0000 identification = 0x010000ed major=1 minor=0 card=0xed" in text
    assert "0x0060 raise_interrupt = write-only" in text


def test_an_access_of_a_width_that_the_card_refuses(card: Edu) -> None:
    """It is an abort on arm64; on a PC it reads as 0 with QEMU, and as all ones with hardware."""
    region, device = card.bar, card.device
    assert isinstance(region, Region)
    program = [*card.acknowledge_program(), Read("byte", region, 0x24, 8)]
    refused: dict[str, Callable[[], object]] = {
        "read8": lambda: region.read8(0),
        "write16": lambda: region.write16(0x04, 1),
        "set8": lambda: region.set8(0x20, 0),
        "run of reads": lambda: region.read(0, 4, width=1),
        "run of writes": lambda: region.write(0x04, bytes(4), width=2),
        "program": lambda: device.run([Read("byte", region, 0, 8)]),
    }
    if PROCESSOR == "x86_64":
        assert region.read8(0) == 0
    for name, use in refused.items() if PROCESSOR == "aarch64" else ():
        with pytest.raises(BusError, match="the bus answered with an error"):
            print(name, use())
    with Service(device.interrupt, program) as service:
        card.raise_interrupt(1)
        assert service.read(PATIENCE)[0].values["byte"] == 0  # where it is refused, the value is not reached
        if PROCESSOR == "aarch64":
            with pytest.raises(BusError, match="serving its interrupt"):
                service.read(PATIENCE)
    assert card.liveness(5) == 5 ^ 0xFFFFFFFF


def test_what_is_found_by_text_reads_and_writes_the_card(card: Edu) -> None:
    found = Edu.register_maps[0].find("status.interrupt_after_factorial")
    found.write(card.bar, 1)
    assert found.read(card.bar) == 1
    assert card.registers.status.interrupt_after_factorial
    assert EduRegisters.find("identification.major").read(card.bar) == 1
