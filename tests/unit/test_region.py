# SPDX-License-Identifier: MIT
"""What each method of a region does and refuses, on a file in memory. test_access_count counts its accesses."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyuio import errors
from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE, VERBS, WIDTHS, call, ports, widths


def test_every_width_reads_and_writes_little_endian(bar: Region | PortRegion, path: Path) -> None:
    for bits in widths(bar):
        width = bits // 8
        value = int.from_bytes(bytes(range(0xF0, 0xF0 + width)), "little")
        assert getattr(bar, f"read{bits}")(16) == int.from_bytes(bytes(range(16, 16 + width)), "little")
        assert getattr(bar, f"write{bits}")(64, value) is None
        assert path.read_bytes()[64 : 64 + width] == value.to_bytes(width, "little")
        assert path.read_bytes()[64 + width] == 64 + width, "wrote past the register"
        assert getattr(bar, f"read{bits}")(64) == value


def test_big_endian_for_one_call(bar: Region | PortRegion, path: Path) -> None:
    for bits in widths(bar):
        width = bits // 8
        assert getattr(bar, f"read{bits}")(8, endian="big") == int.from_bytes(range(8, 8 + width), "big")
        assert getattr(bar, f"read{bits}")(8, endian=None) == int.from_bytes(range(8, 8 + width), "little")
        getattr(bar, f"write{bits}")(128, 0x12, endian="big")
        assert path.read_bytes()[128 : 128 + width] == (0x12).to_bytes(width, "big")
        getattr(bar, f"update{bits}")(128, 0xF0, 0xA0, endian="big")
        getattr(bar, f"set{bits}")(128, 0x01, endian="big")
        getattr(bar, f"clear{bits}")(128, 0x02, endian="big")
        assert path.read_bytes()[128 : 128 + width] == (0xA1).to_bytes(width, "big")
    with pytest.raises(ValueError, match="'little' or 'big', not 'middle'"):
        bar.read32(0, endian="middle")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="endian must be a str"):
        bar.write32(0, 1, endian=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Region, ports])
def test_big_endian_region(kind: Any, path: Path) -> None:
    with kind(path, SIZE, endian="big") as bar:
        assert bar.endian == "big"
        assert bar.read16(2) == 0x0203
        assert bar.read32(4) == 0x04050607
        assert bar.read32(4, endian="little") == 0x07060504
        bar.update32(4, 0xFF00_0000, 0xAA00_0000)
        assert path.read_bytes()[4:8] == b"\xaa\x05\x06\x07"
        assert bar.poll32(4, 0xFF00_0000, 0xAA00_0000, 0) == 0xAA050607
        assert bar.read(0, 4) == b"\0\1\2\3", "runs come in the order of memory"
        assert ", big-endian" in repr(bar)
    for wrong, error in (("middle", ValueError), (1, TypeError)):
        with pytest.raises(error):
            kind(path, SIZE, endian=wrong)


def test_update_set_and_clear(bar: Region | PortRegion) -> None:
    for bits in widths(bar):
        full = (1 << bits) - 1
        getattr(bar, f"write{bits}")(0, 0xA5 & full)
        getattr(bar, f"update{bits}")(0, 0x0F, 0x03)
        assert getattr(bar, f"read{bits}")(0) == 0xA3
        getattr(bar, f"set{bits}")(0, 1 << (bits - 1) | 4)
        assert getattr(bar, f"read{bits}")(0) == 0xA7 | 1 << (bits - 1)
        getattr(bar, f"clear{bits}")(0, full ^ 1)
        assert getattr(bar, f"read{bits}")(0) == 1
        getattr(bar, f"update{bits}")(0, full, full)
        assert getattr(bar, f"read{bits}")(0) == full
        with pytest.raises(ValueError, match=r"value 0x3 has bits outside mask 0x2"):
            getattr(bar, f"update{bits}")(0, 2, 3)
        assert getattr(bar, f"read{bits}")(0) == full


def test_runs(bar: Region | PortRegion, path: Path) -> None:
    for bits in widths(bar):
        width = bits // 8
        assert bar.read(16, 32, width) == bytes(range(16, 48))
        assert bar.read(16, length=16, width=width) == bytes(range(16, 32))
        data = os.urandom(24)
        bar.write(64, memoryview(b"?" + data)[1:], width)  # the data itself is misaligned
        assert path.read_bytes()[60:92] == bytes(range(60, 64)) + data + bytes(range(88, 92))
        bar.write(64, bytes(range(64, 88)), width=width)
        for length in (-width, 1 << 70):
            with pytest.raises(ValueError, match=r"size 0x100|whole number"):
                bar.read(0, length, width)
        if width > 1:
            with pytest.raises(
                ValueError, match=f"{bits}-bit read at offset 0x0: the length is not a whole number of accesses"
            ):
                bar.read(0, width + 1, width)
            with pytest.raises(ValueError, match="not a multiple"):
                bar.read(1, width, width)
    assert bar.read(SIZE - 4, 4) == bytes(range(SIZE - 4, SIZE))
    assert bar.read(0, 0) == b""
    bar.write(0, b"")
    for refused in (lambda: bar.read(SIZE - 4, 8), lambda: bar.write(SIZE - 4, bytes(8)), lambda: bar.read(SIZE, 0)):
        with pytest.raises(ValueError, match="not inside the region"):
            refused()
    for width in (0, 3, 16, -4, 1 << 70):
        with pytest.raises(ValueError, match=f"not {width}"):
            bar.read(0, 48, width)
    with pytest.raises(TypeError):
        bar.write(0, "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        bar.read(0, 4.0)  # type: ignore[arg-type]
    assert path.read_bytes() == bytes(range(SIZE)), "a refused run wrote something"


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_offsets(bar: Region | PortRegion, path: Path, verb: str) -> None:
    for bits in widths(bar):
        width = bits // 8
        for offset in (SIZE, SIZE + 8, -8, -(1 << 80), 1 << 40, 1 << 63, (1 << 64) - 8, 1 << 64, 1 << 900):
            with pytest.raises(ValueError, match=f"^{NAME}") as caught:
                call(bar, verb, bits, offset)
            assert f"(size {SIZE:#x}): {bits}-bit {verb} at offset {offset:#x}: " in str(caught.value)
            assert f"{width} bytes there are not inside the region" in str(caught.value)
        for offset in range(1, width):
            with pytest.raises(ValueError, match=f"at offset {offset:#x}: the offset is not a multiple of {width}"):
                call(bar, verb, bits, offset)
        for wrong in ("0", 0.0, None, b"", [0]):
            with pytest.raises(TypeError):
                call(bar, verb, bits, wrong)
        call(bar, "read", bits, SIZE - width)  # the last register
        call(bar, "read", bits, np.int64(width))  # any object with __index__
        call(bar, "read", bits, False)
    assert path.read_bytes() == bytes(range(SIZE))


@pytest.mark.parametrize("verb", VERBS[1:])
def test_wrong_values(bar: Region | PortRegion, path: Path, verb: str) -> None:
    for bits in widths(bar):
        method = getattr(bar, f"{verb}{bits}")
        full = (1 << bits) - 1
        for value in (-1, full + 1, 1 << 64, 1 << 900, -(1 << 900)):
            refusals = [(value,)] if verb != "update" else [(value, 0), (full, value)]
            for arguments in refusals:
                with pytest.raises(ValueError, match=f"^{NAME}") as caught:
                    method(8, *arguments)
                assert f"{bits}-bit {verb} at offset 0x8: " in str(caught.value)
                assert f" {value:#x} is not in 0..{full:#x}" in str(caught.value)
        wrong: Any
        for wrong in ("1", 1.0, None):
            with pytest.raises(TypeError):
                method(8, *[wrong] * (2 if verb == "update" else 1))
    assert path.read_bytes() == bytes(range(SIZE))


def test_wrong_arguments(bar: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: bar.read32(),
        lambda: bar.read32(0, 0),
        lambda: bar.write32(0),
        lambda: bar.write32(0, 0, 0),
        lambda: bar.update32(0, 1),
        lambda: bar.set32(0),
        lambda: bar.read32(0, order="big"),
        lambda: bar.read32(offset=0),
        lambda: bar.read(0),
        lambda: bar.write(),
    ]
    for wrong in calls:
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("endian", ["little", "big"])
def test_the_file_of_ports_in_sysfs_has_values(path: Path, endian: Any) -> None:
    """It has what inw() returned, as a number of the processor's; inw() takes the bus for little-endian."""
    with PortRegion(path, SIZE, name=NAME, endian=endian) as bar:
        for bits in WIDTHS[:3]:
            width = bits // 8
            value = int.from_bytes(bytes(range(16, 16 + width)), sys.byteorder)
            on_the_bus = value.to_bytes(width, "little")
            assert getattr(bar, f"read{bits}")(16) == int.from_bytes(on_the_bus, endian)
            assert bar.read(16, width, width) == on_the_bus
            getattr(bar, f"write{bits}")(64, int.from_bytes(on_the_bus, endian))
            assert path.read_bytes()[64 : 64 + width] == bytes(range(16, 16 + width))
            bar.write(96, on_the_bus, width)
            assert path.read_bytes()[96 : 96 + width] == bytes(range(16, 16 + width))
        with contextlib.ExitStack() as stack:
            assert bar.reach(0, stack)[2] == (endian == "big")


def test_ports_have_no_64_bit_access(path: Path) -> None:
    with PortRegion(path, SIZE, name=NAME) as bar:
        for verb in VERBS:
            with pytest.raises(ValueError, match="I/O ports have no 64-bit access"):
                call(bar, verb, 64, 0)
        with pytest.raises(ValueError, match="no 64-bit access"):
            bar.read(0, 8, 8)
        with pytest.raises(errors.MappingError, match="no mapping"):
            bar.mmio  # noqa: B018


def test_the_two_kinds_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(value).parameters.values()]
            for name, value in inspect.getmembers(kind, callable)
            if not name.startswith("_")
        }

    assert methods(Region) == methods(PortRegion)
    others = ("read", "write", "poll32", "reach", "let_go", "inherit", "forget", "close")
    assert len(methods(Region)) == len(VERBS) * len(WIDTHS) + len(others)
