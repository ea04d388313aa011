# SPDX-License-Identifier: MIT
"""The program of a native service, as data: the register operations that it does in turn at an interrupt.

An operation takes a register of a map made on a region: ``Read("status", registers.interrupt_status)``. It also takes
region, offset and width in place of the register: ``Read("status", bar, 0x24, bits=32)``. Offsets are in bytes from the
start of the BAR. Registers have 8, 16, 32 or 64 bits, in the byte order of their region.

Operations and programs are checked when they are made, because C could not report an error while it runs them.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex, TypeAlias, overload

from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.errors import RegisterAccessError
from pyuio.process.timeouts import timeout_nanoseconds
from pyuio.region import PortRegion, Region
from pyuio.registers import Field, Register, RegisterInfo
from pyuio.registers.bank import BankedRegion

_LONGEST_POLL = 1.0  # seconds
_MOST_ROUNDS = 1 << 16  # of a While
_MOST_STEPS = 1 << 16  # operations that a program does in one event; at 1 us each, 66 ms
_DEEPEST = 256  # operations inside each other

_AnyRegion: TypeAlias = Region | PortRegion
_AnyField: TypeAlias = Field[Any, Any]


def _index(what: str, number: SupportsIndex | None) -> int:
    """Return an exact int, so that no numpy integer or subclass of int with its own operators gets to checks and C."""
    if number is None:
        raise TypeError(f"the {what} is missing")
    return operator.index(number)


def _name(name: str) -> str:
    """Return an exact str, so that no subclass with a comparison of its own is another name in C than in the checks."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, not {type(name).__name__}")
    return str.__str__(name)


def _place(
    where: Register | _AnyRegion, offset: SupportsIndex | None, bits: SupportsIndex | None, *, writes: bool = False
) -> tuple[_AnyRegion, int, int]:
    """Check the place that an operation accesses, and return its region, offset and width.

    Args:
        where: a register of a map that was made on a region; or a region, if `offset` says where in it.
        offset: in bytes, of a register that is not given by name.
        bits: its width; 32 if it is None.
        writes: whether the operation writes it, rather than reads it.
    """
    if not isinstance(where, Register):
        return _checked_place(where, _index("offset", offset), operator.index(32 if bits is None else bits))
    info = where.info
    if offset is not None or bits is not None:
        raise TypeError(f"{info.path} has its own offset and width; give no other")
    if isinstance(info.region, BankedRegion):
        reason = "and an operation makes one access: write the page register before, and give region, offset and width"
        raise TypeError(f"{info.path} is in a bank, {reason}")
    if not isinstance(info.region, (Region, PortRegion)):
        raise TypeError(f"{info.path} is not in a Region or a PortRegion; use a map made on one: Map(device.bar(0))")
    if not (info.writable if writes else info.readable):
        raise RegisterAccessError(f"{info.path} is {'read' if writes else 'write'}-only")
    if info.width != info.layout.access_width:
        raise ValueError(f"{info.path} takes several accesses; an operation makes one: give region, offset and width")
    return _checked_place(info.region, info.offset, info.width)


def _checked_place(region: _AnyRegion, offset: int, bits: int) -> tuple[_AnyRegion, int, int]:
    if not isinstance(region, (Region, PortRegion)):
        raise TypeError(f"a register is in a Region or a PortRegion, not in a {type(region).__name__}")
    if bits not in (8, 16, 32, 64) or bits > region.width:
        raise ValueError(f"{region.name}: a register here has 8 to {region.width} bits, not {bits}")
    width = bits // 8
    if not 0 <= offset <= region.size - width:
        raise ValueError(
            f"{region.name}: a register of {bits} bits at offset {offset:#x} is not inside its {region.size:#x} bytes"
        )
    if offset % width:
        raise ValueError(f"{region.name}: offset {offset:#x} is not a multiple of {width}")
    return region, offset, bits


def _value(what: str, value: SupportsIndex | None, bits: int) -> int:
    """Return a value, or a mask, that fits so many bits."""
    number = _index(what, value)
    if not 0 <= number < 1 << bits:
        raise ValueError(f"a {what} for {bits} bits is 0 to {(1 << bits) - 1:#x}, not {number:#x}")
    return number


def _condition(mask: SupportsIndex | _AnyField | None, value: SupportsIndex | None, bits: int) -> tuple[int, int]:
    """Return mask and value as bits of the register; if `mask` is a field, `value` is given as the field's value."""
    if isinstance(mask, Field):
        part = _index("value", value)
        if not 0 <= part <= mask.largest:
            raise ValueError(f"a value of {mask.name}{mask.bits} is 0 to {mask.largest:#x}, not {part:#x}")
        value, mask = mask.place(part), mask.mask
    mask, value = _value("mask", mask, bits), _value("value", value, bits)
    if value & ~mask:
        raise ValueError(f"a value of {value:#x} can never be found under mask {mask:#x}")
    return mask, value


def _check_field(info: RegisterInfo, field: _AnyField) -> None:
    """Raise ValueError if the register has no such field, RegisterAccessError if the field cannot be read."""
    if field not in info.fields.values():
        raise ValueError(f"{info.path} has no field {field!r}")
    if not info.layout.reads(field):
        raise RegisterAccessError(f"{info.path}.{field.name} is write-only")


class Operation:
    """One step of a program."""


@dataclass(frozen=True, init=False)
class Read(Operation):
    """Read a register once, and keep its value in the event, under `name`.

    Raises, as do all operations that access a register:
        RegisterAccessError: the named register is write-only; for those that write, read-only.
        ValueError: an offset, width or value is out of range.
        TypeError: a wrong type; the named register is a declaration, in no region.
    """

    name: str
    region: Region | PortRegion
    offset: int
    bits: int

    @overload
    def __init__(self, name: str, register: Register, /) -> None: ...
    @overload
    def __init__(self, name: str, region: _AnyRegion, offset: SupportsIndex, bits: SupportsIndex = 32) -> None: ...
    def __init__(
        self,
        name: str,
        region: Register | _AnyRegion,
        offset: SupportsIndex | None = None,
        bits: SupportsIndex | None = None,
    ) -> None:
        place, at, width = _place(region, offset, bits)
        vars(self).update(name=_name(name), region=place, offset=at, bits=width)


@dataclass(frozen=True, init=False)
class Write(Operation):
    """Write a constant to a register."""

    region: Region | PortRegion
    offset: int
    value: int
    bits: int

    @overload
    def __init__(self, register: Register, value: SupportsIndex, /) -> None: ...
    @overload
    def __init__(
        self, region: _AnyRegion, offset: SupportsIndex, value: SupportsIndex, bits: SupportsIndex = 32
    ) -> None: ...
    def __init__(
        self,
        region: Register | _AnyRegion,
        offset: SupportsIndex | None = None,
        value: SupportsIndex | None = None,
        bits: SupportsIndex | None = None,
    ) -> None:
        if isinstance(region, Register) and value is None:
            offset, value = None, offset  # Write(register, value)
        number = _index("value", value)
        place, at, width = _place(region, offset, bits, writes=True)
        vars(self).update(region=place, offset=at, value=_value("value", number, width), bits=width)


@dataclass(frozen=True, init=False)
class WriteBack(Operation):
    """Write the value that was kept under `name`, or its bits in `mask`, to a register; 0 if it was not kept."""

    name: str
    region: Region | PortRegion
    offset: int
    mask: int | None
    bits: int

    @overload
    def __init__(self, name: str, register: Register, /, *, mask: SupportsIndex | None = None) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        region: _AnyRegion,
        offset: SupportsIndex,
        mask: SupportsIndex | None = None,
        bits: SupportsIndex = 32,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        region: Register | _AnyRegion,
        offset: SupportsIndex | None = None,
        mask: SupportsIndex | None = None,
        bits: SupportsIndex | None = None,
    ) -> None:
        place, at, width = _place(region, offset, bits, writes=True)
        kept_bits = None if mask is None else _value("mask", mask, width)
        vars(self).update(name=_name(name), region=place, offset=at, mask=kept_bits, bits=width)


@dataclass(frozen=True, init=False)
class Poll(Operation):
    """Read a register until its bits in `mask` are those of `value`, and keep the value last read under `name`.

    Args:
        mask: bits of the register; or one of its fields, and then `value` is the field's: ``Poll("status",
            registers.status, mask=Status.computing, value=0, timeout=0.1)``.
        timeout: seconds, above 0 up to 1. When it has passed, the event says `late`, and the program goes on.
    """

    name: str
    region: Region | PortRegion
    offset: int
    mask: int
    value: int
    timeout: float
    bits: int

    @overload
    def __init__(
        self,
        name: str,
        register: Register,
        /,
        *,
        mask: SupportsIndex | _AnyField,
        value: SupportsIndex,
        timeout: float,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        region: _AnyRegion,
        offset: SupportsIndex,
        mask: SupportsIndex | _AnyField,
        value: SupportsIndex,
        timeout: float,
        bits: SupportsIndex = 32,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        region: Register | _AnyRegion,
        offset: SupportsIndex | None = None,
        mask: SupportsIndex | _AnyField | None = None,
        value: SupportsIndex | None = None,
        timeout: float | None = None,
        bits: SupportsIndex | None = None,
    ) -> None:
        place, at, width = _place(region, offset, bits)
        if isinstance(mask, Field) and isinstance(region, Register):
            _check_field(region.info, mask)
        bits_asked, wanted = _condition(mask, value, width)
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"a poll's timeout is a number of seconds, not {type(timeout).__name__}")
        if not 0 < timeout <= _LONGEST_POLL:
            raise ValueError(f"a poll's timeout is above 0 and at most {_LONGEST_POLL} s, not {timeout}")
        vars(self).update(
            name=_name(name),
            region=place,
            offset=at,
            mask=bits_asked,
            value=wanted,
            timeout=float(timeout),
            bits=width,
        )


@dataclass(frozen=True, init=False)
class When(Operation):
    """Run operations only if the value kept under `name` has, in `mask`, the bits of `value`.

    Args:
        mask: bits of the value that was kept, of up to 64; or a field of the register that it was read from, and then
            `value` is the field's: ``When("status", Interrupts.dma, 1, [...])``.

    Raises:
        ValueError: a mask or value is out of range; the value has bits outside of the mask.
    """

    name: str
    mask: int
    value: int
    operations: Sequence[Operation]

    def __init__(
        self, name: str, mask: SupportsIndex | _AnyField, value: SupportsIndex, operations: Sequence[Operation]
    ) -> None:
        kept_bits, wanted = _condition(mask, value, 64)
        vars(self).update(name=_name(name), mask=kept_bits, value=wanted, operations=operations)


@dataclass(frozen=True, init=False)
class While(Operation):
    """Run operations again and again while the value kept under `name` has, in `mask`, the bits of `value`.

    It empties a queue, as long as a status says that there is something in it::

        Read("status", registers.status),
        While("status", Status.ready, 1, [Append("data", registers.data), Read("status", registers.status)], most=16)

    Args:
        mask: as for `When`.
        operations: one of them keeps `name` anew.
        most: the largest number of rounds, 1 to 65536; then the program goes on.

    Raises:
        ValueError: a mask, value or `most` is out of range; nothing inside keeps `name`, so that it would never end.
    """

    name: str
    mask: int
    value: int
    operations: Sequence[Operation]
    most: int

    def __init__(
        self,
        name: str,
        mask: SupportsIndex | _AnyField,
        value: SupportsIndex,
        operations: Sequence[Operation],
        *,
        most: SupportsIndex,
    ) -> None:
        kept_bits, wanted = _condition(mask, value, 64)
        rounds = operator.index(most)
        if not 1 <= rounds <= _MOST_ROUNDS:
            raise ValueError(f"a While runs 1 to {_MOST_ROUNDS} times at most, not {rounds}")
        vars(self).update(name=_name(name), mask=kept_bits, value=wanted, operations=operations, most=rounds)


@dataclass(frozen=True, init=False)
class Append(Read):
    """Do what `Read` does, and also add the value to the list `name` in the event's ``lists``: for use in a `While`.

    The event has room for the largest number of values, so large loops want a smaller ``capacity`` of the service.
    """


@dataclass(frozen=True)
class Stamp(Operation):
    """Keep the time, CLOCK_MONOTONIC in ns, under `name`. The event always has the time at which the read returned."""

    name: str

    def __post_init__(self) -> None:
        vars(self).update(name=_name(self.name))


@dataclass(frozen=True)
class Unmask(Operation):
    """Unmask the interrupt here. Without this operation the service unmasks it after the program."""


@dataclass(frozen=True)
class Count(Operation):
    """Add the interrupts of this event to a counter in `Service.counters`. A counter starts at 0 and has 64 bits."""

    counter: str

    def __post_init__(self) -> None:
        vars(self).update(counter=_name(self.counter))


Kept = Read | Poll | Stamp


class Step(NamedTuple):
    """An operation in the order in which C runs them."""

    operation: Operation
    inside: int
    """How many of the steps after it a `When` or `While` contains."""
    times: int
    """How often it runs in one event, at most."""


def flatten(operations: Sequence[Operation]) -> list[Step]:
    """Return the operations in the order in which they run.

    Raises:
        TypeError: something is not an operation.
        ValueError: a value is used before an operation keeps it; operations contain themselves; a loop does not read
            what it tests, or the loops run for too long.
    """
    steps = _bounded(_flatten(operations, 1, 0))
    kept: set[str] = set()
    for operation, _, _ in steps:
        if isinstance(operation, Kept):
            kept.add(operation.name)
        elif isinstance(operation, (WriteBack, When, While)) and operation.name not in kept:
            raise ValueError(f"{type(operation).__name__} uses {operation.name!r}, which nothing before it has kept")
    if (total := sum(step.times for step in steps)) > _MOST_STEPS:
        raise ValueError(f"the program does up to {total} operations in one event, more than {_MOST_STEPS}")
    loops = [(one.operation, one.times) for one in steps if one.times > 1]
    waited = sum(times * operation.timeout for operation, times in loops if isinstance(operation, Poll))
    if waited > _LONGEST_POLL:
        raise ValueError(f"polls in loops may wait for {waited:g} s in one event, more than {_LONGEST_POLL:g}")
    return steps


def _bounded(steps: Iterator[Step]) -> list[Step]:
    """Return the steps, without making more than a program may have: lists that share lists have very many."""
    found = list(itertools.islice(steps, _MOST_STEPS + 1))
    if len(found) > _MOST_STEPS:
        raise ValueError(f"the program has more than {_MOST_STEPS} operations")
    return found


def _flatten(operations: Sequence[Operation], times: int, depth: int) -> Iterator[Step]:
    if depth > _DEEPEST:
        raise ValueError(f"operations contain each other without end, or more than {_DEEPEST} deep")
    for operation in operations:
        if not isinstance(operation, Operation):
            raise TypeError(f"a program consists of operations, not of {type(operation).__name__}")
        if not isinstance(operation, (When, While)):
            yield Step(operation, 0, times)
            continue
        rounds = operation.most if isinstance(operation, While) else 1
        inside = _bounded(_flatten(operation.operations, times * rounds, depth + 1))
        if isinstance(operation, While) and not any(
            isinstance(step.operation, Kept) and step.operation.name == operation.name for step in inside
        ):
            raise ValueError(f"While tests {operation.name!r}, which nothing inside it reads again")
        yield Step(operation, len(inside), times)
        yield from inside


class NativeProgram:
    """A program in the form that C runs: `pyuio_operation` in `_native`.

    C trusts it, so all that C uses to find memory is checked here, as it is passed on: what an operation contains may
    have changed since the operation was made.

    Args:
        steps: the operations, from `flatten`.
        stack: keeps the mappings and descriptors of their regions until it is closed.

    Attributes:
        regions: those that C accesses.
        array, length: the operations in C.
        names: names of the values that they keep, by slot.
        lists: for each list, its slot, which counts the values in the slots after it, and their largest number. The
            slots of lists come after those of `names`.
        slots: the number of all slots.
        counters: names of the counters, by slot.

    Raises:
        TypeError: a service does not know an operation.
        ClosedError: a region is closed.
        DeviceRemovedError: the device is gone.
    """

    def __init__(self, steps: Sequence[Step], stack: ExitStack) -> None:
        self._stack = stack
        self.regions: list[_AnyRegion] = []
        self._slots = _numbered(step.operation.name for step in steps if isinstance(step.operation, Kept))
        self._counter_slots = _numbered(step.operation.counter for step in steps if isinstance(step.operation, Count))
        self.names, self.counters = list(self._slots), list(self._counter_slots)
        room: dict[str, int] = {}
        for step in steps:
            if isinstance(step.operation, Append):
                room[step.operation.name] = room.get(step.operation.name, 0) + step.times
        self.slots = len(self.names)
        self.lists: dict[str, tuple[int, int]] = {}
        for name, most in room.items():
            self.lists[name] = self.slots, most
            self.slots += 1 + most
        self.array = _ffi.new("pyuio_operation[]", len(steps) or 1)
        self.length = len(steps)
        for native, step in zip(self.array, steps, strict=False):
            self._fill(native, step.operation, step.inside)
        self._join_writes({at + 1 + step.inside for at, step in enumerate(steps) if step.inside})

    def _join_writes(self, ends: set[int]) -> None:
        """Have C do neighbouring writes of 32 bits to memory in one go; none goes beyond the end of a When or While."""
        first: Any = None
        for at, native in enumerate(self.array[0 : self.length]):
            is_word = native.kind == _lib.PYUIO_WRITE and native.bits == 32 and native.file < 0 and not native.swap
            if not is_word:
                first = None
            elif first is None or at in ends:
                first = native
                first.kind, first.limit = _lib.PYUIO_WRITE_WORDS, 1
            else:
                first.limit += 1

    def _fill(self, native: Any, operation: Operation, inside: int) -> None:
        if isinstance(operation, (Read, Poll, Write, WriteBack)):
            self._fill_place(native, operation)
        if isinstance(operation, (Read, Poll, Stamp, WriteBack, When, While)):
            native.slot = self._slots[operation.name]
        if isinstance(operation, Append):
            native.kind = _lib.PYUIO_APPEND
            native.value, native.limit = self.lists[operation.name]
        elif isinstance(operation, Read):
            native.kind = _lib.PYUIO_READ
        elif isinstance(operation, Write):
            native.kind, native.value = _lib.PYUIO_WRITE, operation.value
        elif isinstance(operation, WriteBack):
            native.kind = _lib.PYUIO_WRITE_BACK
            native.mask = (1 << operation.bits) - 1 if operation.mask is None else operation.mask
        elif isinstance(operation, When):
            native.kind, native.skip = _lib.PYUIO_TEST, inside
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, While):
            native.kind, native.skip, native.limit = _lib.PYUIO_WHILE, inside, operation.most
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Poll):
            native.kind, native.limit = _lib.PYUIO_POLL, timeout_nanoseconds(operation.timeout)
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Stamp):
            native.kind = _lib.PYUIO_STAMP
        elif isinstance(operation, Unmask):
            native.kind = _lib.PYUIO_UNMASK
        elif isinstance(operation, Count):
            native.kind, native.slot = _lib.PYUIO_COUNT, self._counter_slots[operation.counter]
        else:
            raise TypeError(f"a native service does not know {type(operation).__name__}")

    def _fill_place(self, native: Any, operation: Read | Poll | Write | WriteBack) -> None:
        offset, bits = _index("offset", operation.offset), _index("width", operation.bits)
        region, offset, bits = _checked_place(operation.region, offset, bits)
        self.regions.append(region)
        native.bits = bits
        native.file, native.address, native.swap = region.reach(offset, self._stack)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    """Return the slot of each name, in the order in which they first come."""
    return {name: slot for slot, name in enumerate(dict.fromkeys(names))}
