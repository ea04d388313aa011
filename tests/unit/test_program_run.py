# SPDX-License-Identifier: MIT
"""Programs outside of interrupts, on files in memory: in C, and interpreted by the methods of the regions."""

from __future__ import annotations

import gc
import os
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio._native._access import Presence
from pyuio._native._program import Prepared, Runner
from pyuio.program import Append, Count, Operation, Poll, Read, Stamp, Unmask, When, While, Write, WriteBack
from pyuio.program.run import Outcome, run_once
from pyuio.region import Region
from pyuio.region.tracing import TracedRegion, begin
from tests.unit.support import SIZE, ports

ABSENT = Presence("another device")


class Machine(Runner):
    """Runs programs as a `Device` does, and counts those that it does not remember."""

    def __init__(self) -> None:
        self.slow = 0

    def _run_slowly(self, program: Sequence[Operation]) -> Outcome:
        self.slow += 1
        outcome, prepared = run_once(program, ABSENT, time)
        if prepared is not None:
            self._remember(prepared)
        return outcome


@pytest.fixture
def machine() -> Machine:
    return Machine()


def made(path: Path, kind: Any, **keywords: Any) -> Any:
    region = kind(path, SIZE, **keywords)
    if kind is TracedRegion:
        begin(region, "file", "bar0", None)
    return region


@pytest.fixture(params=[Region, TracedRegion, ports])
def region(request: pytest.FixtureRequest, path: Path) -> Any:
    return made(path, request.param)


def test_what_a_program_keeps(machine: Machine, region: Any) -> None:
    program = [
        Read("first", region, 0),
        Write(region, 0x10, 0xAABBCCDD),
        Write(region, 0x14, 1),
        WriteBack("first", region, 0x18, mask=0xFFFF),
        When("first", 0xFF, 1, [Write(region, 0x1C, 0), Read("never", region, 0, 8)]),
        While("first", 0xFFFFFFFF, 0x03020100, [Append("all", region, 0x20, 8), Read("first", region, 0x10)], most=5),
        Stamp("then"),
    ]
    before = time.monotonic_ns()
    outcome = machine.run(program)
    assert before - 1000 <= outcome.values["then"] <= time.monotonic_ns() + 1000
    assert {**outcome.values, "then": 0} == {"first": 0xAABBCCDD, "never": 0, "all": 0x20, "then": 0}
    assert outcome.lists == {"all": (0x20,)}
    assert not outcome.late
    assert region.read(0x10, 16).hex(" ", 4) == "ddccbbaa 01000000 00010000 1c1d1e1f"


def test_a_poll_that_is_late(machine: Machine, region: Any) -> None:
    outcome = machine.run([Poll("status", region, 0, 1, 1, 0.001), Poll("other", region, 1, 1, 1, 0.001, 8)])
    assert outcome == ({"status": 0x03020100, "other": 1}, {}, True)


def test_nothing_to_do(machine: Machine) -> None:
    assert machine.run([]) == machine.run(()) == Outcome()


def test_a_program_is_made_ready_once(machine: Machine, path: Path) -> None:
    region = made(path, Region)
    program: list[Operation] = [Write(region, 4 * i, i) for i in range(20)]
    for _ in range(3):
        machine.run(program)
        machine.run(tuple(program))
    assert machine.slow == 1
    program[0] = Write(region, 0, 7)
    program.append(Read("last", region, 0))
    assert machine.run(program).values == {"last": 7}
    program.pop()
    region.write32(0, 0)
    assert machine.run(program) == Outcome()
    assert region.read32(0) == 7
    assert machine.slow == 3
    for i in range(20):
        machine.run([Write(region, 0, i)])
    assert region.read32(0) == 19


def test_operations_inside_others_may_change(machine: Machine, path: Path) -> None:
    region = made(path, Region)
    inside: list[Operation] = [Write(region, 0x10, 1)]
    program = [Read("zero", region, 0, 8), When("zero", 0xFF, 0, inside)]
    machine.run(program)
    inside[0] = Write(region, 0x10, 2)
    machine.run(program)
    assert region.read32(0x10) == 2


def test_neighbouring_writes_end_where_a_condition_ends(machine: Machine, path: Path) -> None:
    region = made(path, Region)
    for value, expected in ((0, "01 02 03 04"), (1, "10 11 03 04")):
        region.write(0, bytes([*b"\x00\x00\x00\x00", *range(1, 17)]))
        outcome = machine.run(
            [
                Read("zero", region, 0, 8),
                When("zero", 0xFF, value, [Write(region, 0x10, 5), Write(region, 0x14, 6)]),
                Write(region, 0x18, 7),
                Write(region, 0x1C, 8),
            ]
        )
        assert outcome.values == {"zero": 0}
        assert (region.read32(0x14) == 6) == (value == 0), expected
        assert (region.read32(0x18), region.read32(0x1C)) == (7, 8)
        region.write32(0x14, 0)


@pytest.mark.parametrize("operation", [Unmask(), Count("all")])
def test_refuses_what_is_about_an_interrupt(machine: Machine, operation: Operation) -> None:
    with pytest.raises(TypeError, match="outside of one"):
        machine.run([operation])


def test_refuses_other_programs(machine: Machine, region: Any) -> None:
    program: Any
    for program, error in (([1], TypeError), (5, TypeError), (None, TypeError), ("ab", TypeError)):
        with pytest.raises(error):
            machine.run(program)
    with pytest.raises(ValueError, match="nothing before it has kept"):
        machine.run([WriteBack("x", region, 0)])


def test_refuses_registers_of_another_device(machine: Machine, path: Path) -> None:
    region = Region(path, SIZE, presence=Presence("this device"))
    with pytest.raises(ValueError, match="is another device's"):
        machine.run([Write(region, 0, 1)])


def test_a_closed_region(machine: Machine, region: Any) -> None:
    program = [Write(region, 0, 1)]
    machine.run(program)
    region.close()
    for _ in range(2):
        with pytest.raises(pyuio.ClosedError, match=f"{region.name} is closed"):
            machine.run(program)


def test_a_device_that_is_gone(path: Path) -> None:
    presence = Presence("card")
    region = Region(path, SIZE, presence=presence)
    write, read = [Write(region, 0, 1)], [Read("x", region, 0)]
    prepared = [run_once(program, presence, time)[1] for program in (write, read)]
    presence.note_gone()
    for one in prepared:
        assert one is not None
        with pytest.raises(pyuio.DeviceRemovedError):
            one.run()


def test_what_a_removed_device_answers_is_not_believed(path: Path) -> None:
    request = os.eventfd(0)
    presence = Presence("card")
    presence.ask_request(request)
    region = Region(path, SIZE, presence=presence)
    region.write(0, b"\xff" * 8)
    plain, listed = [Read("x", region, 0, 16)], [Append("x", region, 0)]
    for program in (plain, listed):
        assert run_once(program, presence, time)[0].values["x"] in (0xFFFF, 0xFFFFFFFF)
    os.eventfd_write(request, 1)  # the kernel wants it back
    with pytest.raises(pyuio.DeviceRemovedError):
        run_once(plain, presence, time)
    os.close(request)


def test_the_trace_has_each_access(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "pyuio.tracing")
    region = made(path, TracedRegion)
    program = [Write(region, 0x10, 5), Read("x", region, 0x10)]
    for _ in range(2):
        run_once(program, ABSENT, time)
    lines = ["file: bar0 write32 0x010 = 0x00000005", "file: bar0 read32 0x010 = 0x00000005"]
    assert [record.getMessage() for record in caplog.records] == lines * 2


def test_garbage_is_collected(path: Path) -> None:
    machine = Machine()
    region = Region(path, SIZE)
    program: list[Any] = [Write(region, 0, 1)]
    machine.run(program)
    machine.me = machine  # type: ignore[attr-defined]
    gone = weakref.ref(region)
    del machine, region
    program.clear()
    gc.collect()
    assert gone() is None


def test_wrong_arguments_of_the_classes_in_c(machine: Machine) -> None:
    with pytest.raises(TypeError, match="a Prepared is wanted, not int"):
        machine._remember(1)  # type: ignore[arg-type]
    nothing: Any = {"length": 0, "slots": 0, "owner": None, "operations": (), "names": (), "finish": None}
    nothing["windows"] = (1,)
    with pytest.raises(TypeError, match="a Window is wanted, not int"):
        Prepared(0, 0, **nothing)


_WIDTHS = st.sampled_from([8, 16, 32])
_OFFSETS = st.integers(0, 15).map(lambda number: 4 * number)
_NAMES = st.sampled_from("abc")
_SMALL = st.integers(0, 3)
_FLAT = st.one_of(
    st.tuples(st.just("Read"), _NAMES, _OFFSETS, _WIDTHS),
    st.tuples(st.just("Append"), _NAMES, _OFFSETS, _WIDTHS),
    st.tuples(st.just("Write"), _OFFSETS, st.integers(0, 255), _WIDTHS),
    st.tuples(st.just("WriteBack"), _NAMES, _OFFSETS, _WIDTHS),
)
_NESTED = st.recursive(
    _FLAT,
    lambda inside: st.one_of(
        st.tuples(st.just("When"), _NAMES, _SMALL, st.lists(inside, max_size=4)),
        st.tuples(st.just("While"), _NAMES, _SMALL, st.lists(inside, max_size=4), _OFFSETS),
    ),
    max_leaves=12,
)


def built(plan: Any, region: Any) -> list[Operation]:
    """Return the operations that a plan describes, on a region; everything that they use is read first."""
    operations: list[Operation] = []
    for kind, *rest in plan:
        if kind in ("Read", "Append"):
            name, offset, bits = rest
            operations.append((Read if kind == "Read" else Append)(name, region, offset, bits))
        elif kind == "Write":
            offset, value, bits = rest
            operations.append(Write(region, offset, value, bits))
        elif kind == "WriteBack":
            name, offset, bits = rest
            operations.append(WriteBack(name, region, offset, bits=bits))
        elif kind == "When":
            name, value, inside = rest
            operations.append(When(name, 3, value, built(inside, region)))
        else:
            name, value, inside, offset = rest
            again = [*built(inside, region), Read(name, region, offset)]
            operations.append(While(name, 3, value, again, most=3))
    return operations


@given(st.lists(_NESTED, max_size=8), st.binary(min_size=SIZE, max_size=SIZE), st.sampled_from(["little", "big"]))
def test_c_and_the_interpreter_agree(plan: Any, data: bytes, endian: Any) -> None:
    results = []
    for kind in (Region, TracedRegion, ports):
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            file.write(data)
            file.flush()
            with made(Path(file.name), kind, endian=endian) as region:
                start = [Read(name, region, 4 * number) for number, name in enumerate("abc")]
                outcome, prepared = run_once([*start, *built(plan, region)], ABSENT, time)
                assert prepared is None or kind is Region
                results.append((outcome, region.read(0, SIZE)))
    assert results[0] == results[1] == results[2]


def test_operations_are_asked_for_once(machine: Machine, path: Path) -> None:
    region = made(path, Region)

    class Changing(list[Operation]):
        asked = 0

        def __iter__(self) -> Iterator[Operation]:
            self.asked += 1
            return iter([Stamp("then")] if self.asked == 1 else [Read("then", region, 0)])

    inside = Changing([Stamp("then")])
    machine.run([Stamp("now"), When("now", 0, 0, inside)])
    assert inside.asked == 1


class Agreeable(int):
    """Says that it is whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __le__ = __lt__ = __ge__ = __gt__ = __eq__

    def __mod__(self, other: int) -> int:
        return 0

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "change",
    [
        {"offset": SIZE},
        {"offset": 1 << 40},
        {"bits": 1024},
        {"offset": Agreeable(1 << 40)},
        {"bits": Agreeable(1024)},
    ],
)
def test_c_gets_no_place_that_was_changed_after_its_check(machine: Machine, path: Path, change: dict[str, int]) -> None:
    read = Read("x", made(path, Region), 0)
    vars(read).update(change)
    with pytest.raises(ValueError, match="bits"):
        machine.run([read])


class Name(str):
    """Is equal to every other one, as long as `equal` is set."""

    equal = True

    def __eq__(self, other: object) -> bool:
        return Name.equal

    def __hash__(self) -> int:
        Name.equal = not Name.equal
        return 0


def test_a_name_is_compared_as_what_it_says(machine: Machine, path: Path) -> None:
    region = made(path, Region)
    names = [f"name{number}" for number in range(40)]
    outcome = machine.run([Read(Name(name), region, 0, 8) for name in names])
    assert list(outcome.values) == names
    assert {type(name) for name in outcome.values} == {str}


@pytest.mark.parametrize("name", [None, 5, b"x", ["x"]])
def test_a_name_is_text(path: Path, name: Any) -> None:
    region = made(path, Region)
    makers: list[Callable[[], Operation]] = [
        lambda: Read(name, region, 0),
        lambda: Append(name, region, 0),
        lambda: WriteBack(name, region, 0),
        lambda: Poll(name, region, 0, 0, 0, 0.1),
        lambda: When(name, 0, 0, []),
        lambda: While(name, 0, 0, [], most=1),
        lambda: Stamp(name),
        lambda: Count(name),
    ]
    for make in makers:
        with pytest.raises(TypeError, match="a name is a str"):
            make()


def test_lists_that_share_lists_are_too_many_operations_before_they_fill_memory(machine: Machine) -> None:
    operations: list[Operation] = [Stamp("x")]
    for _ in range(200):
        operations = [Stamp("x"), When("x", 0, 0, operations), When("x", 0, 0, operations)]
    with pytest.raises(ValueError, match="more than 65536 operations"):
        machine.run(operations)
