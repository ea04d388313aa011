# SPDX-License-Identifier: MIT
"""Runs programs of register operations outside of interrupts: `Device.run`.

A program whose registers are all in memory runs in C, in one call that keeps the global interpreter lock, as a single
access does (``_native/_program.c``). Every other program is interpreted by the methods of its regions: one with I/O
ports, a card in Python, traced accesses, or a `Poll`, which must not keep the lock while it waits. So each access
raises what it raises by itself, and appears in a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pyuio._native._access import Window
from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio._native._program import Prepared
from pyuio.program import (
    Append,
    Count,
    Kept,
    NativeProgram,
    Operation,
    Poll,
    Read,
    Stamp,
    Step,
    Unmask,
    When,
    While,
    Write,
    WriteBack,
    flatten,
)
from pyuio.region import Region

if TYPE_CHECKING:
    from pyuio._native._access import Presence
    from pyuio.process.timeouts import TimeSource

_NANOSECONDS = 1e9
_MOST_STEPS = 4096  # in one call that keeps the lock: at 1 us each, 4 ms


class Outcome(NamedTuple):
    """What a program kept.

    Attributes:
        values: the values, by name; 0 for those that it did not reach.
        lists: the values that it appended, by name (`pyuio.program.Append`).
        late: whether a `Poll` did not see its value in time.
    """

    values: Mapping[str, int] = MappingProxyType({})
    lists: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    late: bool = False


class Run:
    """One run of a program, as far as it came: the attributes of `Outcome`, to be filled."""

    def __init__(self, values: dict[str, int], lists: Iterable[str]) -> None:
        self.values = values
        self._lists: dict[str, list[int]] = {name: [] for name in lists}
        self.late = False

    @property
    def lists(self) -> dict[str, tuple[int, ...]]:
        """The values that were appended, by name."""
        return {name: tuple(values) for name, values in self._lists.items()}

    def append(self, name: str, value: int) -> None:
        """Add a value to a list."""
        self._lists[name].append(value)


class Interpreter:
    """Runs a program by the methods of its regions, with the errors of single accesses.

    Args:
        operations: the program.
        clock: the time of the device.
        unmask: does what `Unmask` says.

    Attributes:
        counters: what `Count` has counted, by name.

    Raises:
        TypeError, ValueError: see `flatten`.
    """

    def __init__(
        self, operations: Sequence[Operation], clock: TimeSource, unmask: Callable[[], object] | None = None
    ) -> None:
        self._operations = operations
        self._clock = clock
        self._unmask = unmask
        steps = [step.operation for step in flatten(operations)]
        self._kept = list(dict.fromkeys(one.name for one in steps if isinstance(one, Kept)))
        self._appended = list(dict.fromkeys(one.name for one in steps if isinstance(one, Append)))
        self.counters = dict.fromkeys((one.counter for one in steps if isinstance(one, Count)), 0)

    def begin(self) -> Run:
        """Return a run that has not begun."""
        return Run(dict.fromkeys(self._kept, 0), self._appended)

    def run(self, run: Run, count: int = 0) -> None:
        """Do all operations; `count` is the number of interrupts, for `Count`."""
        self._do(self._operations, run, count)

    def _do(self, operations: Sequence[Operation], run: Run, count: int) -> None:
        values = run.values
        for one in operations:
            if isinstance(one, Read):
                values[one.name] = getattr(one.region, f"read{one.bits}")(one.offset)
                if isinstance(one, Append):
                    run.append(one.name, values[one.name])
            elif isinstance(one, Write):
                getattr(one.region, f"write{one.bits}")(one.offset, one.value)
            elif isinstance(one, WriteBack):
                kept = values[one.name] & ((1 << one.bits) - 1 if one.mask is None else one.mask)
                getattr(one.region, f"write{one.bits}")(one.offset, kept)
            elif isinstance(one, When):
                if values[one.name] & one.mask == one.value:
                    self._do(one.operations, run, count)
            elif isinstance(one, While):
                rounds = 0
                while rounds < one.most and values[one.name] & one.mask == one.value:
                    self._do(one.operations, run, count)
                    rounds += 1
            elif isinstance(one, Poll):
                self._poll(one, run)
            elif isinstance(one, Stamp):
                values[one.name] = int(self._clock.monotonic() * _NANOSECONDS)
            elif isinstance(one, Unmask) and self._unmask is not None:
                self._unmask()
            elif isinstance(one, Count):
                self.counters[one.counter] += count

    def _poll(self, one: Poll, run: Run) -> None:
        deadline = self._clock.monotonic() + one.timeout
        while True:
            late = self._clock.monotonic() >= deadline
            value = run.values[one.name] = getattr(one.region, f"read{one.bits}")(one.offset)
            if value & one.mask == one.value:
                return
            if late:
                run.late = True
                return


def run_once(program: Sequence[Operation], presence: Presence, clock: TimeSource) -> tuple[Outcome, Prepared | None]:
    """Check and run a program; return what it kept, and the form that C can run again, if there is one.

    Args:
        program: the operations.
        presence: of the device whose registers they are.
        clock: the time of that device.

    Raises:
        TypeError, ValueError, ClosedError, DeviceRemovedError: see `Device.run`.
    """
    operations = tuple(program)
    steps = flatten(operations)
    _check(steps, presence)
    if _runs_in_c(steps):
        prepared = _prepared(operations, steps)
        # What a When or a While contains may change, without a change of the program itself.
        return prepared.run(), None if any(step.inside for step in steps) else prepared
    interpreter = Interpreter(operations, clock)
    run = interpreter.begin()
    interpreter.run(run)
    return Outcome(run.values, run.lists, run.late), None


def _places(steps: Sequence[Step]) -> Iterator[Read | Poll | Write | WriteBack]:
    return (one for one, _, _ in steps if isinstance(one, Read | Poll | Write | WriteBack))


def _check(steps: Sequence[Step], presence: Presence) -> None:
    for one, _, _ in steps:
        if isinstance(one, Unmask | Count):
            raise TypeError(f"{type(one).__name__} is about an interrupt, and this program runs outside of one")
    for place in _places(steps):
        if place.region.presence not in (None, presence):
            raise ValueError(f"{place.region.name} is another device's; run its operations there")


def _runs_in_c(steps: Sequence[Step]) -> bool:
    if any(isinstance(one, Poll) or type(one.region) is not Region for one in _places(steps)):
        return False
    return sum(step.times for step in steps) <= _MOST_STEPS


def _prepared(operations: tuple[Operation, ...], steps: Sequence[Step]) -> Prepared:
    with ExitStack() as stack:  # not kept: C asks each window whether it is open, and keeps the lock until the end
        native = NativeProgram(steps, stack)
    windows = {id(one): one for one in native.regions if isinstance(one, Window)}
    return Prepared(
        _address(_ffi.addressof(_lib, "pyuio_program_run")),
        _address(native.array),
        length=native.length,
        slots=native.slots,
        owner=native.array,
        operations=operations,
        windows=tuple(windows.values()),
        names=tuple(native.names),
        finish=partial(_with_lists, native) if native.lists else Outcome if native.slots else Outcome(),
    )


def _with_lists(native: NativeProgram, values: dict[str, int], slots: tuple[int, ...]) -> Outcome:
    """Return the outcome of a program with lists, which are in the slots after those of the values."""
    lists = {}
    for name, (at, _) in native.lists.items():
        first = at - len(values)
        lists[name] = slots[first + 1 : first + 1 + slots[first]]
    return Outcome(values, lists)


def _address(thing: Any) -> int:
    return int(_ffi.cast("uintptr_t", thing))
