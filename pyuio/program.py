# SPDX-License-Identifier: MIT
"""What a native service does at an interrupt, as data: register operations, one after the other.

Everything is checked when the operation or the program is made, so that nothing can fail where nobody could be told.
Offsets are in bytes from the start of the BAR; registers have 8, 16, 32 or 64 bits, in the byte order of their region.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.process.timeouts import timeout_nanoseconds
from pyuio.region import PortRegion, Region

_LONGEST_POLL = 1.0  # seconds


@dataclass(frozen=True)
class _Register:
    region: Region | PortRegion
    offset: int
    bits: int

    def check(self) -> None:
        if not isinstance(self.region, (Region, PortRegion)):
            raise TypeError(f"a register is in a Region or a PortRegion, not in a {type(self.region).__name__}")
        widest = 32 if isinstance(self.region, PortRegion) else 64
        if operator.index(self.bits) not in (8, 16, 32, 64) or self.bits > widest:
            raise ValueError(f"{self.region.name}: a register here has 8 to {widest} bits, not {self.bits}")
        offset, width = operator.index(self.offset), self.bits // 8
        if not 0 <= offset <= self.region.size - width:
            raise ValueError(
                f"{self.region.name}: a register of {self.bits} bits at offset {offset:#x} is not inside its "
                f"{self.region.size:#x} bytes"
            )
        if offset % width:
            raise ValueError(f"{self.region.name}: offset {offset:#x} is not a multiple of {width}")


def _check_value(what: str, value: int, bits: int) -> None:
    if not 0 <= operator.index(value) < 1 << bits:
        raise ValueError(f"a {what} for {bits} bits is 0 to {(1 << bits) - 1:#x}, not {value:#x}")


def _check_mask(mask: int, value: int, bits: int) -> None:
    _check_value("mask", mask, bits)
    _check_value("value", value, bits)
    if value & ~mask:
        raise ValueError(f"a value of {value:#x} can never be found under mask {mask:#x}")


class Operation:
    """One step of a program."""


@dataclass(frozen=True)
class Read(Operation):
    """Read a register once, and keep its value in the event, under `name`.

    Raises, as all of these do: TypeError, ValueError for a register or value that is out of range.
    """

    name: str
    region: Region | PortRegion
    offset: int
    bits: int = 32

    def __post_init__(self) -> None:
        _Register(self.region, self.offset, self.bits).check()


@dataclass(frozen=True)
class Write(Operation):
    """Write a constant to a register."""

    region: Region | PortRegion
    offset: int
    value: int
    bits: int = 32

    def __post_init__(self) -> None:
        _Register(self.region, self.offset, self.bits).check()
        _check_value("value", self.value, self.bits)


@dataclass(frozen=True)
class WriteBack(Operation):
    """Write a value that was kept under `name`, or its bits in `mask`, to a register; 0 if it was not read."""

    name: str
    region: Region | PortRegion
    offset: int
    mask: int | None = None
    bits: int = 32

    def __post_init__(self) -> None:
        _Register(self.region, self.offset, self.bits).check()
        if self.mask is not None:
            _check_value("mask", self.mask, self.bits)


@dataclass(frozen=True)
class Poll(Operation):
    """Read a register until its bits in `mask` are those of `value`, and keep the last one read under `name`.

    Args:
        timeout: seconds, above 0 up to 1. When it has passed, the event says `late`, and the program goes on.
    """

    name: str
    region: Region | PortRegion
    offset: int
    mask: int
    value: int
    timeout: float
    bits: int = 32

    def __post_init__(self) -> None:
        _Register(self.region, self.offset, self.bits).check()
        _check_mask(self.mask, self.value, self.bits)
        if not 0 < self.timeout <= _LONGEST_POLL:
            raise ValueError(f"a poll's timeout is above 0 and at most {_LONGEST_POLL} s, not {self.timeout}")


@dataclass(frozen=True)
class When(Operation):
    """Run some operations only if the bits in `mask` of what was kept under `name` are those of `value`."""

    name: str
    mask: int
    value: int
    operations: Sequence[Operation]

    def __post_init__(self) -> None:
        _check_mask(self.mask, self.value, 64)


@dataclass(frozen=True)
class Stamp(Operation):
    """Keep the time, CLOCK_MONOTONIC in ns, under `name`. The event has the time of the kernel's read in any case."""

    name: str


@dataclass(frozen=True)
class Unmask(Operation):
    """Unmask the interrupt here. Without it, it is unmasked after the program."""


@dataclass(frozen=True)
class Count(Operation):
    """Add the interrupts of this event to a counter, `Service.counters`, which starts at 0 and has 64 bits."""

    counter: str


Kept = Read | Poll | Stamp


def flatten(operations: Sequence[Operation]) -> Iterator[tuple[Operation, int]]:
    """Yield the operations in the order in which they run, with how many follow inside a `When`, otherwise 0.

    Raises:
        TypeError: something is not an operation.
        ValueError: a value is used that no operation before has kept; operations contain themselves.
    """
    kept: set[str] = set()
    try:
        flat = list(_flatten(operations))
    except RecursionError as error:
        raise ValueError("operations are inside of each other without end, or too deeply") from error
    for operation, inside in flat:
        if isinstance(operation, Kept):
            kept.add(operation.name)
        elif isinstance(operation, (WriteBack, When)) and operation.name not in kept:
            raise ValueError(f"{type(operation).__name__} uses {operation.name!r}, which nothing before it has kept")
        yield operation, inside


def _flatten(operations: Sequence[Operation]) -> Iterator[tuple[Operation, int]]:
    for operation in operations:
        if not isinstance(operation, Operation):
            raise TypeError(f"a program consists of operations, not of {type(operation).__name__}")
        inside = list(_flatten(operation.operations)) if isinstance(operation, When) else []
        yield operation, len(inside)
        yield from inside


class NativeProgram:
    """Operations as C has them.

    Args:
        operations: as in `pyuio.program`.
        stack: what they touch stays until this is undone.

    Attributes:
        array, length: the operations in C.
        names: of the values that they keep, by slot.
        counters: of what they count, by slot.

    Raises:
        TypeError: something is no operation.
        ClosedError: a region is closed.
    """

    def __init__(self, operations: Sequence[Operation], stack: ExitStack) -> None:
        flat = list(flatten(operations))
        self._stack = stack
        self.names: list[str] = []
        self.counters: list[str] = []
        self.array = _ffi.new("pyuio_operation[]", len(flat) or 1)
        self.length = len(flat)
        for native, (operation, inside) in zip(self.array, flat, strict=False):
            self._fill(native, operation, inside)

    def _fill(self, native: Any, operation: Operation, inside: int) -> None:
        if isinstance(operation, (Read, Poll, Write, WriteBack)):
            self._place(native, operation)
        if isinstance(operation, (Read, Poll, Stamp, WriteBack, When)):
            native.slot = _index(self.names, operation.name)
        if isinstance(operation, Read):
            native.kind = _lib.PYUIO_READ
        elif isinstance(operation, Write):
            native.kind, native.value = _lib.PYUIO_WRITE, operation.value
        elif isinstance(operation, WriteBack):
            native.kind = _lib.PYUIO_WRITE_BACK
            native.mask = (1 << operation.bits) - 1 if operation.mask is None else operation.mask
        elif isinstance(operation, When):
            native.kind, native.skip = _lib.PYUIO_TEST, inside
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Poll):
            native.kind, native.limit = _lib.PYUIO_POLL, timeout_nanoseconds(operation.timeout)
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Stamp):
            native.kind = _lib.PYUIO_STAMP
        elif isinstance(operation, Unmask):
            native.kind = _lib.PYUIO_UNMASK
        elif isinstance(operation, Count):
            native.kind, native.slot = _lib.PYUIO_COUNT, _index(self.counters, operation.counter)
        else:
            raise TypeError(f"a native service does not know {type(operation).__name__}")

    def _place(self, native: Any, operation: Read | Poll | Write | WriteBack) -> None:
        native.bits = operation.bits
        native.file, native.address = operation.region.reach(operation.offset, self._stack)
        # What is in the processor's order when it was read: of a port, its bytes are put together as little-endian.
        native.swap = operation.region.endian == "big"


def _index(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
