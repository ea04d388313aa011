# SPDX-License-Identifier: MIT
"""Runs of accesses to registers by name, and regions and maps that say their widest access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyuio import Array, DeviceTimeoutError, Register, RegisterAccessError, RegisterMap, WouldBlockError
from pyuio.region import Region
from tests.unit.register_support import Plain
from tests.unit.support import NAME, SIZE, VERBS, call, ports


class Entry(RegisterMap):
    word = Register(0x0)


class Registers(RegisterMap):
    received = Register(0x00, width=16, access="rc")
    transmitted = Register(0x02, width=16, access="wo")
    buffer = Array(Register(0x10), 4)
    sparse = Array(Register(0x20, width=8), 3, stride=4)
    grid = Array(Array(Register(0x30, width=16), 2), 2)
    entry = Array(Entry.at(0x40), 2)
    secret = Array(Register(0x50, access="wo"), 2)
    fixed = Array(Register(0x58, access="ro"), 2)


@pytest.fixture(params=[Region, ports, Plain])
def bar(request: pytest.FixtureRequest, path: Path) -> Iterator[Any]:
    """Yield each kind of region that registers can be in."""
    if request.param is Plain:
        yield Plain(path.read_bytes())
    else:
        with request.param(path, SIZE, name=NAME) as region:
            yield region


def test_runs_of_one_register(bar: Any) -> None:
    registers = Registers(bar)
    bar.write16(0, 0x1234)
    assert registers.received.read_run(3) == b"\x34\x12" * 3
    assert registers.received.read_run(0) == b""
    registers.transmitted.write_run(b"\1\2\3\4")
    assert bar.read16(2) == 0x0403
    registers.transmitted.write_run(np.array([1, 0xABCD], dtype="<u2").data)
    assert bar.read16(2) == 0xABCD
    if isinstance(bar, Plain):
        bar.log.clear()
        registers.received.read_run(2)
        registers.transmitted.write_run(b"abcd")
        assert bar.log == [("read", 0, 16)] * 2 + [("write", 2, 16)] * 2


def test_runs_of_an_array(bar: Any) -> None:
    registers = Registers(bar)
    registers.buffer.write(bytes(range(16)))
    assert [one.read() for one in registers.buffer] == [0x03020100, 0x07060504, 0x0B0A0908, 0x0F0E0D0C]
    assert registers.buffer.read() == bytes(range(16))
    registers.buffer.write(b"abcd", 2)
    assert registers.buffer.read(1, 2) == b"\4\5\6\7abcd"
    assert registers.buffer.read(4) == b""
    registers.sparse.write(b"xyz")
    assert registers.sparse.read() == b"xyz"
    assert bar.read8(0x24) == ord("y")
    assert registers.grid[1].read() == b"".join(one.read().to_bytes(2, "little") for one in registers.grid[1])


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda regs: regs.received.read_run(-1), ValueError, "0 or more"),
        (lambda regs: regs.received.read_run(1.5), TypeError, "integer"),
        (lambda regs: regs.received.write_run(b"ab"), RegisterAccessError, "read-only"),
        (lambda regs: regs.transmitted.read_run(1), RegisterAccessError, "write-only"),
        (lambda regs: regs.transmitted.write_run(b"abc"), ValueError, "3 bytes are not a whole number"),
        (lambda regs: regs.transmitted.write_run(np.zeros(2, "u4")), TypeError, "elements of 2 bytes, not of 4"),
        (lambda regs: regs.transmitted.write_run(5), TypeError, "bytes-like"),
        (lambda regs: regs.buffer.read(2, 3), ValueError, "3 registers from 2 on are not inside its 4"),
        (lambda regs: regs.buffer.read(-1), ValueError, "not inside"),
        (lambda regs: regs.buffer.write(bytes(20)), ValueError, "not inside"),
        (lambda regs: regs.buffer.write(b"abc"), ValueError, "whole number"),
        (lambda regs: regs.secret.read(), RegisterAccessError, "secret is write-only"),
        (lambda regs: regs.fixed.write(bytes(4)), RegisterAccessError, "fixed is read-only"),
        (lambda regs: regs.grid.read(), TypeError, "array of Array"),
        (lambda regs: regs.entry.read(), TypeError, "array of Entry"),
        (lambda _: Registers.buffer.read(), TypeError, "declaration"),
        (lambda _: Registers.received.read_run(1), TypeError, "declaration"),
    ],
)
def test_runs_that_are_refused_touch_nothing(
    use: Callable[[Any], object], error: type[Exception], message: str, path: Path
) -> None:
    before = path.read_bytes()
    with Region(path, SIZE, name=NAME) as region:
        for bar in (region, Plain(before)):
            with pytest.raises(error, match=message):
                use(Registers(bar))
    assert path.read_bytes() == before


def test_fixed_runs_of_a_region(path: Path) -> None:
    for kind in (Region, ports):
        with kind(path, SIZE, name=NAME) as bar:
            bar.write32(0xFC, 0x01020304)
            assert bar.read(0xFC, 12, fixed=True) == b"\4\3\2\1" * 3
            bar.write(0xFC, b"abcdefgh", width=2, fixed=True)
            assert bar.read(0xFC, 4) == b"gh\2\1"
            with pytest.raises(ValueError, match="not inside"):
                bar.read(0x100, 4, fixed=True)
            with pytest.raises(ValueError, match="whole number"):
                bar.read(0, 6, fixed=True)


# ---- The widest access ----


@pytest.mark.parametrize("kind", [Region, ports])
def test_wider_accesses_are_refused(kind: Any, path: Path) -> None:
    before = path.read_bytes()
    with kind(path, SIZE, name=NAME, width=16) as bar:
        assert bar.width == 16
        for verb in VERBS:
            for bits in (32, 64):
                with pytest.raises(ValueError, match=r"at most 16 bits|no 64-bit access"):
                    call(bar, verb, bits, 0)
        with pytest.raises(ValueError, match=r"BAR 0 of 0000:00:04.0 .*: accesses of this region have at most 16 bits"):
            bar.read(0, 8)
        with pytest.raises(ValueError, match=r"at most 16 bits|no 64-bit access"):
            bar.write(0, bytes(8), width=8)
        assert bar.read(0, 8, width=2) == before[:8]
        registers = Registers(bar)
        assert registers.received.read() == int.from_bytes(before[:2], "little")
        for use in (registers.buffer[0].read, lambda: registers.buffer[0].write(1), registers.buffer.read):
            with pytest.raises(ValueError, match="at most 16 bits"):
                use()
        assert path.read_bytes() == before
    with kind(path, SIZE, name=NAME) as bar:
        assert bar.width == (64 if kind is Region else 32)
    for wrong in (0, 24, 128):
        with pytest.raises(ValueError, match="widest access"):
            kind(path, SIZE, name=NAME, width=wrong)


def test_a_map_says_its_widest_access() -> None:
    class Narrow(RegisterMap, width=32):
        word = Register(0)

    class Derived(Narrow):
        more = Register(8)

    assert (Narrow._widest, Derived._widest, Registers._widest) == (32, 32, 64)
    with pytest.raises(ValueError, match="wide has 64 bits, and the widest access of the map has 32"):
        type("Wide", (Narrow,), {"wide": Register(8, width=64)})
    with pytest.raises(ValueError, match="the width is 8, 16, 32 or 64"):

        class Odd(RegisterMap, width=24): ...


# ---- Time limits ----


def test_a_timeout_names_the_card_and_a_limit_of_0_is_one(path: Path) -> None:
    with Region(path, SIZE, name=NAME) as bar:
        registers = Registers(bar)
        with pytest.raises(DeviceTimeoutError, match=f"^.*{NAME}: the condition did not hold"):
            registers.buffer[0].poll(lambda _: False, 0.001)
        for wait in (
            lambda: registers.buffer[0].poll(lambda _: False, 0),
            lambda: bar.poll32(0, 1, int(not bar.read32(0) & 1), 0),
        ):
            with pytest.raises(WouldBlockError) as error:
                wait()
            assert isinstance(error.value, DeviceTimeoutError)
            assert isinstance(error.value, BlockingIOError)
