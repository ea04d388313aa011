# SPDX-License-Identifier: MIT
"""The accesses of named registers, counted by the processor: exactly as many as promised, of the right width."""

from __future__ import annotations

import gc
import mmap
import sys
from typing import Any

import pytest

from pyuio import Field, Register, RegisterMap
from pyuio._native._access import Window
from tests.access_trap import PAGE, Access, Trap, build, needs_trap

pytestmark = needs_trap


class Eight(Register, width=8):
    flag = Field(1)
    part = Field(7, 4)


class Sixteen(Register, width=16):
    flag = Field(1)
    part = Field(7, 4)


class ThirtyTwo(Register):
    flag = Field(1)
    part = Field(7, 4)


class SixtyFour(Register, width=64):
    flag = Field(1)
    part = Field(7, 4)


class Cleared(Register, access="rc"):
    part = Field(7, 4)


class Acknowledged(Register, access="w1c"):
    flag = Field(1)


class Registers(RegisterMap):
    eight = Eight(0x01)
    sixteen = Sixteen(0x02)
    thirty_two = ThirtyTwo(0x04)
    sixty_four = SixtyFour(0x08)
    cleared = Cleared(0x10)
    acknowledged = Acknowledged(0x14)
    read_only = ThirtyTwo(0x18, access="ro")
    write_only = ThirtyTwo(0x1C, access="wo")


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Trap:
    return Trap(mmap.mmap(-1, PAGE), build(tmp_path_factory.mktemp("trap")))


@pytest.fixture(params=["little", "big"])
def registers(request: pytest.FixtureRequest, trap: Trap) -> Registers:
    return Registers(Window(trap.memory, offset=0, size=PAGE, name="window", endian=request.param))


def assign(register: Any, name: str, value: object) -> None:
    setattr(register, name, value)


def test_one_access_of_the_width(trap: Trap, registers: Registers) -> None:
    for register in (registers.eight, registers.sixteen, registers.thirty_two, registers.sixty_four):
        offset, width = register.info.offset, register.info.width
        read, write = Access("read", offset, width), Access("write", offset, width)
        assert trap.record(register.read) == [read]
        assert trap.record(register.write, 5) == [write]
        assert trap.record(lambda register=register: register.flag) == [read]
        assert trap.record(lambda register=register: register.part) == [read]
        assert trap.record(assign, register, "flag", True) == [read, write]
        assert trap.record(assign, register, "part", 9) == [read, write]
        assert trap.record(register.snapshot) == [read]
        assert trap.record(str, register) == [read]
        assert trap.record(repr, register) == []

        def several(register: Any = register) -> None:
            with register.change() as held:
                held.flag = True
                held.part = 3

        assert trap.record(several) == [read, write]


def test_registers_with_effects(trap: Trap, registers: Registers) -> None:
    assert trap.record(lambda: (str(registers.cleared), repr(registers.cleared), repr(registers))) == []
    assert trap.record(lambda: registers.cleared.snapshot().part) == [Access("read", 0x10, 32)]
    assert trap.record(assign, registers.acknowledged, "flag", True) == [Access("write", 0x14, 32)]
    walked = trap.record(str, registers)
    assert {access.kind for access in walked} == {"read"}
    assert sorted(access.offset for access in walked) == [0x01, 0x02, 0x04, 0x08, 0x14, 0x18]


def test_what_is_refused_touches_nothing(trap: Trap, registers: Registers) -> None:
    def refused() -> None:
        for call in (
            lambda: registers.read_only.write(1),
            lambda: assign(registers.read_only, "flag", 1),
            lambda: registers.write_only.read(),
            lambda: registers.write_only.flag,
            lambda: assign(registers.write_only, "flag", 1),
            lambda: registers.cleared.part,
            lambda: registers.thirty_two.write(1 << 32),
            lambda: assign(registers.thirty_two, "part", 16),
            lambda: assign(registers.thirty_two, "part", -1),
            lambda: assign(registers.acknowledged, "flag", 0),
        ):
            with pytest.raises((ValueError, AttributeError)):
                call()

    assert trap.record(refused) == []


def test_nothing_is_leaked(trap: Trap, registers: Registers) -> None:
    def counts() -> list[int]:
        gc.collect()  # what earlier tests have left refers to None, too
        return [sys.getrefcount(one) for one in (register, ThirtyTwo.part, ThirtyTwo, None, True, False)]

    register = registers.thirty_two
    register.write(0x21)
    before = counts()
    for _ in range(1000):
        register.part = 3
        register.write(register.read())
        assert register.part == 3
        with pytest.raises(ValueError, match="does not fit"):
            register.part = 16
    assert all(abs(b - a) < 100 for a, b in zip(before, counts(), strict=True))
