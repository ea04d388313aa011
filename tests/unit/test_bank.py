# SPDX-License-Identifier: MIT
"""Registers in banks, which a page register selects."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from typing_extensions import SupportsIndex

import pyuio.model
from pyuio.registers import Array, Field, Memory, Register, RegisterMap, bank
from pyuio.registers.bank import BankedRegion


class Frame(RegisterMap):
    address = Register(0x00)
    size = Register(0x04, width=16)


class Control(Register):
    enable = Field(0)
    page = Field(7, 4)


class Registers(RegisterMap, width=32):
    control = Control(0x00)
    page = Register(0x0C, access="wo")
    dac = bank(Frame.at(0x30), select="page", value=0xC)
    adc = bank(Frame.at(0x30), select="page", value=0xD)
    table = bank(Memory(Register(0x30), 4), select="page", value=0)
    by_field = bank(Array(Register(0x40, width=16), 2), select="control.page", value=3)
    other = bank(Control(0x40), select="control.page", value=4)


class Paged:
    """A device with two windows, as above. It keeps the accesses, and calls `meanwhile` before the next one."""

    name, endian, presence = "BAR 0", "little", None

    def __init__(self) -> None:
        self.memory: dict[tuple[int, int], int] = {}
        self.log: list[str] = []
        self.meanwhile: Callable[[], object] | None = None

    def _place(self, offset: int) -> tuple[int, int]:
        if 0x30 <= offset < 0x40:
            return offset, self.memory.get((0x0C, 0), 0)
        if 0x40 <= offset < 0x50:
            return offset, self.memory.get((0, 0), 0) >> 4 & 15
        return offset, 0

    def _before(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def read32(self, offset: SupportsIndex, /) -> int:
        self._before()
        self.log.append(f"r{int(offset):x}")
        return self.memory.get(self._place(int(offset)), 0)

    def write32(self, offset: SupportsIndex, value: SupportsIndex, /) -> None:
        if int(offset) not in (0, 0x0C):
            self._before()
        self.log.append(f"w{int(offset):x}={int(value):x}")
        self.memory[self._place(int(offset))] = int(value)

    read8 = read16 = read64 = read32
    write8 = write16 = write64 = write32


@pytest.fixture
def device() -> Paged:
    return Paged()


@pytest.fixture
def registers(device: Paged) -> Registers:
    return Registers(device)


def test_each_access_selects_the_bank(device: Paged, registers: Registers) -> None:
    registers.dac.address.write(0x1000)
    registers.adc.address.write(0x2000)
    assert registers.dac.address.read() == 0x1000
    assert registers.adc.address.read() == 0x2000
    assert device.log == ["wc=c", "w30=1000", "wc=d", "w30=2000", "wc=c", "r30", "wc=d", "r30"]


def test_a_bank_that_a_field_selects(device: Paged, registers: Registers) -> None:
    registers.control.write(0x01)
    registers.by_field[1].write(7)
    registers.other.enable = True
    assert device.log[1:] == ["r0", "w0=31", "w42=7", "r0", "w0=41", "r40", "r0", "w0=41", "w40=1"]
    assert registers.by_field[1].read() == 7
    assert registers.control.enable, "the other bits are kept"


def test_memory_and_runs(device: Paged, registers: Registers) -> None:
    registers.table[2].write(5)
    assert [one.read() for one in registers.table] == [0, 0, 5, 0]
    in_memory = Registers(bytearray(0x50))  # here the banks are one place
    in_memory.table.write(0, bytes(range(16)))
    assert in_memory.table.read(4, 8) == bytes(range(4, 12))
    assert in_memory.adc.address.read() == 0x03020100


def test_a_change_of_a_field_selects_once_where_the_region_can_change() -> None:
    memory = bytearray(0x50)
    registers = Registers(memory)
    registers.other.page = 5
    assert memory[0x40] == 0x50
    with registers.other.change() as other:
        other.enable = True
    assert memory[0x40] == 0x51
    assert registers.other.poll(lambda one: one.enable, 0).page == 5


def test_by_name(device: Paged) -> None:
    found = Registers.find("adc.size")
    assert (found.path, found.offset, found.width) == ("adc.size", 0x34, 16)
    found.write(device, 9)
    assert device.log == ["wc=d", "w34=9"]
    assert found.read(device) == 9
    assert Registers.find("table[1]").read(device) == 0
    assert device.log[-2:] == ["wc=0", "r34"]
    field = Registers.find("other.page")
    field.write(device, 2)
    assert field.read(device) == 2
    paths = [info.path for info in Registers.walk()]
    assert paths[:2] == ["control", "page"]
    assert {"dac.address", "adc.address", "dac.size", "by_field[1]", "other"} <= {*paths}
    assert Registers.find("dac.size") in list(Registers.walk())
    assert Registers.find("dac.address") != Registers.find("adc.address")._replace(path="dac.address")


def test_all_of_a_map(device: Paged, registers: Registers) -> None:
    registers.dac.size.write(1)
    registers.adc.size.write(2)
    snapshot = registers.snapshot()
    assert (snapshot["dac.size"], snapshot["adc.size"]) == (1, 2)
    text = str(registers)
    assert "0x0034 dac.size = 0x0001" in text
    assert "0x0034 adc.size = 0x0002" in text
    assert str(registers.adc) == "0x0030 address = 0x00000000\n0x0034 size = 0x0002"


def test_a_map_at_another_place(device: Paged) -> None:
    class Two(RegisterMap):
        one = Registers.at(0)
        two = Registers.at(0x100)

    Two(device).two.adc.size.write(3)
    assert device.log == ["w10c=d", "w134=3"]
    Two.find("two.adc.size").read(device)
    assert device.log[2:] == ["w10c=d", "r134"]
    Registers(device, offset=0x200).adc.size.read()
    assert device.log[4:] == ["w20c=d", "r234"]


def test_a_thread_comes_between_no_two_accesses(device: Paged, registers: Registers) -> None:
    tried = threading.Event()

    def other() -> None:
        tried.set()
        registers.adc.address.write(2)

    thread = threading.Thread(target=other)

    def begin_it() -> None:
        thread.start()
        tried.wait()

    device.meanwhile = begin_it
    registers.dac.address.write(1)
    thread.join()
    assert device.log == ["wc=c", "w30=1", "wc=d", "w30=2"]


def test_a_signal_handler_puts_the_bank_back(device: Paged, registers: Registers) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: registers.adc.address.write(2))
    try:
        device.meanwhile = lambda: os.kill(os.getpid(), signal.SIGUSR1)
        registers.dac.address.write(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (registers.dac.address.read(), registers.adc.address.read()) == (1, 2)
    assert device.log[:5] == ["wc=c", "wc=d", "w30=2", "wc=c", "w30=1"]


def test_a_child_does_not_wait_for_a_thread_of_its_parent(device: Paged, registers: Registers) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait()

    device.meanwhile = hold
    thread = threading.Thread(target=lambda: registers.dac.address.write(1))
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        registers.adc.address.write(2)
        os._exit(0)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def made(**names: Any) -> None:
    make: Any = type(RegisterMap)
    make("Card", (RegisterMap,), names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            {"a": bank(Register(4), select="pgae", value=0), "page": Register(0)},
            "Card.a is selected by pgae: .* no reg",
        ),
        (
            {"page": Register(0, access="ro"), "a": bank(Register(4), select="page", value=0)},
            "page, which is read-only",
        ),
        ({"page": Register(0, width=8), "a": bank(Register(4), select="page", value=256)}, "0x100 in page, .* 0xff"),
        ({"page": Control(0), "a": bank(Register(4), select="page.page", value=16)}, "0x10 in page.page, .* 0xf at"),
        (
            {"page": Control(0, access="wc"), "a": bank(Register(4), select="page.page", value=1)},
            "cannot be changed without its register's other fields",
        ),
        (
            {"page": Register(0), "a": bank(Register(0), select="page", value=0)},
            "a at 0x0 overlaps page|page.*overlaps a",
        ),
        (
            {
                "page": Register(0),
                "a": bank(Register(4), select="page", value=0),
                "b": bank(Register(4), select="page", value=0),
            },
            "b at 0x4 overlaps a",
        ),
        (
            {"page": Register(0), "a": bank(Register(4), select="page", value=0), "b": Register(4)},
            "b at 0x4 overlaps a",
        ),
        (
            {
                "page": Register(0),
                "more": Register(8),
                "a": bank(Register(4), select="page", value=0),
                "b": bank(Register(4), select="more", value=1),
            },
            "b at 0x4 overlaps a",
        ),
        (
            {
                "page": Register(0),
                "a": bank(Register(4), select="page", value=0),
                "b": bank(Register(8), select="a", value=1),
            },
            "a, which is in a bank itself",
        ),
        ({"page": Register(0), "a": bank(Registers.at(0x10), select="page", value=0)}, "no banks in banks"),
        ({"page": Frame.at(0), "a": bank(Register(0x10), select="page", value=0)}, "is no register; page has address"),
    ],
)
def test_bad_declarations_are_refused_when_the_map_is_made(names: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made(**names)


def test_what_is_no_declaration_of_a_bank() -> None:
    wrong: Any = Frame
    with pytest.raises(TypeError, match="a bank has a register, a map, an array or a memory, not Frame"):
        bank(wrong, select="page", value=0)
    with pytest.raises(TypeError, match="not Bank"):
        bank(bank(Register(0), select="page", value=0), select="page", value=1)
    wrong = 3
    with pytest.raises(TypeError, match="by the name of a register or field, not by 3"):
        bank(Register(0), select=wrong, value=0)
    with pytest.raises(ValueError, match="by a value from 0, not -1"):
        bank(Register(0), select="page", value=-1)
    with pytest.raises(TypeError, match="an array has registers, maps or arrays as elements, not Bank"):
        Array(bank(Register(0), select="page", value=0), 2)


def test_wider_accesses_and_services_are_refused(registers: Registers) -> None:
    assert isinstance(registers.dac.address.info.region, BankedRegion)
    with pytest.raises(TypeError, match=r"dac\.address is in a bank, and an operation makes one access"):
        pyuio.program.Read("address", registers.dac.address)
    make: Any = type(RegisterMap)
    names = {"page": Register(0), "a": bank(Register(8, width=64), select="page", value=0)}
    with pytest.raises(ValueError, match="the widest access of the map has 32"):
        make("Card", (RegisterMap,), names, width=32)


class Card(pyuio.model.Card):
    vendor, device, bars = 0x1234, 0x5678, {0: 0x100}
    registers: ClassVar = {0: Registers}

    def reset(self) -> None:
        super().reset()
        self.written: list[tuple[str, int]] = []

    def on_write_adc_address(self, value: int) -> None:
        self.written.append(("adc", value))

    def on_read_dac_size(self) -> int:
        return 0x55


def test_a_card_in_python_has_banks() -> None:
    card = Card()
    with pyuio.model.open(card) as device:
        registers = Registers(device.bar(0))
        registers.dac.address.write(1)
        registers.adc.address.write(2)
        assert (registers.dac.address.read(), registers.adc.address.read()) == (1, 2)
        assert card.written == [("adc", 2)]
        assert registers.dac.size.read() == 0x55
        assert registers.adc.size.read() == 0
        registers.other.page = 3
        assert card.regs.other.page == 3
        assert card.regs.control.page == 4
        card.regs.dac.address.write(9)
        assert registers.dac.address.read() == 9
