# SPDX-License-Identifier: MIT
"""Every function that a driver calls, with one argument after the other replaced by whatever there is.

It works, or it raises what its docstring says: TypeError, ValueError, an error of pyuio's. Nothing else comes out, not
even an OverflowError, and nothing crashes.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pyuio
from pyuio._native._access import Window
from pyuio._native._memory import Span
from pyuio.dma import Dma
from pyuio.inspect.cells import checked_width
from pyuio.kernel import irq, processors, scheduling
from pyuio.pci import ConfigImage
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import find
from pyuio.process.timeouts import timeout_nanoseconds
from pyuio.program import Append, Count, Operation, Poll, Read, Stamp, When, While, Write, WriteBack, flatten
from pyuio.region import PortRegion, Region
from pyuio.region.common import Pace
from pyuio.rt import memory_lock, pm_qos
from tests.odd_arguments import EDGES, ODD, PROMISED, Index
from tests.unit.support import NAME, SIZE, VERBS, widths
from tests.unit.test_dma import Buffer

Call = tuple[str, Callable[..., object], dict[str, Any]]
"""What it is called, the function, and arguments that are right."""


FIRST_INTERRUPT = min(int(entry.name) for entry in Path("/proc/irq").iterdir() if entry.name.isdecimal())
NUMBERS = st.sampled_from(EDGES) | st.integers() | st.integers(0, SIZE).map(Index)
ANYTHING: st.SearchStrategy[Any] = (
    NUMBERS
    | st.sampled_from(ODD)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.builds(Decimal, st.integers())
    | st.fractions()
    | st.lists(st.integers(), max_size=2)
    | st.builds(object)
)


Table = Callable[[Path, ExitStack], list[Call]]
"""Returns what to call, given a directory with a file ``bar`` of SIZE bytes; what is to be closed goes on the stack."""


def positional(function: Callable[..., object], *names: str) -> Callable[..., object]:
    """Return the function with its positional arguments by name."""

    def call(**arguments: object) -> object:
        positions = [arguments.pop(name) for name in names]
        return function(*positions, **arguments)

    return call


def accesses(kind: type[Region | PortRegion], directory: Path, stack: ExitStack) -> list[Call]:
    bar: Any = stack.enter_context(kind(directory / "bar", SIZE, name=NAME))
    values = {"read": (), "write": ("value",), "update": ("mask", "value"), "set": ("mask",), "clear": ("mask",)}
    found: list[Call] = [
        (
            f"{verb}{bits}",
            positional(getattr(bar, f"{verb}{bits}"), "offset", *values[verb]),
            {"offset": 8, **dict.fromkeys(values[verb], 1), "endian": "big"},
        )
        for bits in widths(bar)
        for verb in VERBS
    ]
    return [
        *found,
        ("read", positional(bar.read, "offset"), {"offset": 8, "length": 4, "width": 2}),
        ("write", positional(bar.write, "offset"), {"offset": 8, "data": b"1234", "width": 4}),
        # With nothing that has to match, as some timeouts last for ever.
        ("poll32", bar.poll32, {"offset": 8, "mask": 0, "value": 0, "timeout": 0}),
    ]


def regions(directory: Path, _stack: ExitStack) -> list[Call]:
    file: dict[str, Any] = {"path": directory / "bar", "size": SIZE, "name": NAME, "address": 0, "endian": "big"}
    memory = {"buffer": mmap.mmap(-1, 4096), "offset": 8, "size": 8}
    return [
        (
            "Region",
            lambda **given: Region(**given).close(),
            {**file, "page_offset": 0, "file_offset": 0, "presence": None},
        ),
        ("PortRegion", lambda **given: PortRegion(**given).close(), file),
        ("Window", positional(Window, "buffer"), {**memory, "name": "w", "endian": "big"}),
        ("Span", positional(Span, "buffer", "offset", "size"), memory),
        ("Pace", Pace, {"timeout": 0}),
    ]


def memory(_directory: Path, _stack: ExitStack) -> list[Call]:
    span = Span(mmap.mmap(-1, 4096), 0, 64)
    closed = Dma("0000:00:04.0")
    closed.close()  # what is asked for is checked first, so that nothing is allocated here
    buffer = Buffer(mmap.mmap(-1, 4096), 0, 64)
    fields = {"address": (0, 64), "flags": (12, 32)}
    ring: Any = {"buffer": buffer, "entry_size": 16, "fields": fields, "owner": "flags"}
    made = pyuio.DescriptorRing(**ring)
    return [
        ("alloc", closed.alloc, {"size": 64, "align": 64, "mask": 0xFFFF}),
        ("pool", closed.pool, {"count": 2, "size": 64, "align": 64, "mask": 0xFFFF}),
        ("mask", lambda mask: setattr(closed, "mask", mask), {"mask": 0xFFFF}),
        ("getitem", positional(span.__getitem__, "key"), {"key": 0}),
        ("setitem", positional(span.__setitem__, "key", "value"), {"key": 0, "value": 0}),
        ("slice", lambda a, b, step: span.__setitem__(slice(a, b, step), b""), {"a": 0, "b": 0, "step": None}),
        ("ring", pyuio.DescriptorRing, ring),
        (
            "ring's field",
            lambda offset, bits: pyuio.DescriptorRing(**{**ring, "fields": {"flags": (offset, bits)}}),
            {"offset": 0, "bits": 32},
        ),
        ("address", made.address, {"index": 0}),
        ("publish", positional(made.publish, "index"), {"index": 0, "address": 0, "flags": 0}),
        ("read", made.read, {"index": 0, "name": "flags"}),
        ("owner", made.owner, {"index": 0}),
    ]


def programs(directory: Path, stack: ExitStack) -> list[Call]:
    bar = stack.enter_context(Region(directory / "bar", SIZE, name=NAME))
    place: dict[str, Any] = {"name": "x", "region": bar, "offset": 8, "bits": 32}
    unnamed = {"region": bar, "offset": 8, "bits": 32}
    found: list[tuple[Callable[..., Operation], dict[str, Any]]] = [
        (Read, place),
        (Append, place),
        (Write, {**unnamed, "value": 1}),
        (Poll, {**place, "mask": 1, "value": 1, "timeout": 0.1}),
        (Count, {"counter": "x"}),
        (Stamp, {"name": "x"}),
    ]
    return [
        *((make.__name__, lambda make=make, **given: list(flatten([make(**given)])), good) for make, good in found),
        ("WriteBack", WriteBack, {**place, "mask": 1}),
        ("When", When, {"name": "x", "mask": 1, "value": 1, "operations": []}),
        ("While", While, {"name": "x", "mask": 1, "value": 1, "operations": [], "most": 1}),
        ("flatten", lambda operations: list(flatten(operations)), {"operations": []}),
    ]


def waiting_and_real_time(_directory: Path, _stack: ExitStack) -> list[Call]:
    policy = {"policy": "deadline", "priority": None, "runtime": 0.001, "deadline": 0.002, "period": 0.003}
    fifo = {"policy": "fifo", "priority": 1, "runtime": None, "deadline": None, "period": None}
    return [
        ("wait", lambda objects: pyuio.wait(objects, 0), {"objects": []}),
        ("wait for one", lambda one: pyuio.wait([one], 0), {"one": 0}),
        ("timeout", timeout_nanoseconds, {"timeout": 1}),
        ("deadline", scheduling.checked, policy),
        ("fifo", scheduling.checked, fifo),
        ("priority", positional(scheduling.checked_priority, "name", "priority"), {"name": "x", "priority": 1}),
        ("cpus", positional(processors.checked, "name", "cpus"), {"name": "x", "cpus": min(processors.online())}),
        ("size", positional(memory_lock.checked_size, "name", "size"), {"name": "x", "size": 1}),
        ("latency", pm_qos.checked, {"microseconds": 1}),
        ("interrupt", positional(irq.checked, "interrupt"), {"interrupt": FIRST_INTERRUPT}),
    ]


class Speed(enum.IntEnum):
    SLOW = 0
    FAST = 2


class Control(pyuio.Register):
    enable = pyuio.Field(0)
    speed = pyuio.Field(5, 4, Speed)
    count = pyuio.Field(31, 8)


class Card(pyuio.RegisterMap):
    control = Control(0)
    words = pyuio.Array(Control(8), 4, stride=8)


def named_registers(directory: Path, stack: ExitStack) -> list[Call]:
    bar = stack.enter_context(Region(directory / "bar", SIZE, name=NAME))
    card = Card(bar)
    field = {"high": 5, "low": 4, "enum": Speed, "access": "ro", "doc": ""}
    return [
        ("Field", positional(pyuio.Field, "high", "low"), field),
        ("Register", positional(Control, "offset"), {"offset": 0, "width": 32, "access": "rw", "doc": ""}),
        ("Array", positional(pyuio.Array, "element", "count"), {"element": Control(8), "count": 4, "stride": 8}),
        ("Card", positional(Card, "region"), {"region": bar, "offset": 0}),
        ("at", positional(Card.at, "offset"), {"offset": 0}),
        ("find", Card.find, {"path": "words[1].speed"}),
        ("write", positional(card.control.write, "value"), {"value": 0}),
        ("enable", lambda value: setattr(card.control, "enable", value), {"value": 0}),
        ("speed", lambda value: setattr(card.control, "speed", value), {"value": Speed.FAST}),
        ("count", lambda value: setattr(card.control, "count", value), {"value": 0}),
        ("index", lambda index: card.words[index], {"index": 0}),
    ]


def configuration_space(directory: Path, stack: ExitStack) -> list[Call]:
    (directory / "config").write_bytes(bytes(range(64)))
    config = stack.enter_context(contextlib.closing(ConfigSpace(directory)))
    stack.enter_context(config.unlocked())
    found: list[Call] = [
        ("ConfigImage", ConfigImage, {"image": bytes(64), "name": "x"}),
        ("read", config.read, {"offset": 0, "length": 4}),
        ("change_command", config.change_command, {"set": 1, "clear": 2}),
    ]
    for bits in (8, 16, 32):
        found.append((f"read{bits}", getattr(config, f"read{bits}"), {"offset": 0}))
        found.append((f"write{bits}", getattr(config, f"write{bits}"), {"offset": 0, "value": 1}))
    return found


def finding(_directory: Path, _stack: ExitStack) -> list[Call]:
    return [
        ("find", find, {"which": "0000:ff:1f.7"}),
        ("open", pyuio.open, {"which": "0000:ff:1f.7"}),
        ("Hotplug", lambda ids: pyuio.Hotplug(ids).close(), {"ids": "1234:11e8"}),
        ("width", checked_width, {"width": 8}),
    ]


TABLES: dict[str, Table] = {
    "Region": partial(accesses, Region),
    "PortRegion": partial(accesses, PortRegion),
    "making regions": regions,
    "memory": memory,
    "programs": programs,
    "waiting and real time": waiting_and_real_time,
    "named registers": named_registers,
    "configuration space": configuration_space,
    "finding": finding,
}
ALSO: dict[str, tuple[type[Exception], ...]] = {  # what Python raises for indexes, names, and read-only buffers
    "making regions": (BufferError,),
    "memory": (IndexError, KeyError, BufferError),
    "named registers": (IndexError,),
}


@pytest.fixture(params=TABLES)
def calls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[Call], tuple[type[Exception], ...]]]:
    """Functions with arguments that are right, and what they may raise for others."""
    (tmp_path / "bar").write_bytes(bytes(range(SIZE)))
    with ExitStack() as stack:
        yield TABLES[request.param](tmp_path, stack), (*PROMISED, *ALSO.get(request.param, ()))


Calls = tuple[list[Call], tuple[type[Exception], ...]]


def test_each_argument_as_every_odd_value(calls: Calls) -> None:
    for _name, function, arguments in calls[0]:
        with contextlib.suppress(pyuio.DeviceNotFoundError, pyuio.ClosedError):
            function(**arguments)  # as it should be
        for changed in arguments:
            for value in ODD:
                with contextlib.suppress(*calls[1]):
                    function(**{**arguments, changed: value})


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
def test_every_argument_as_anything(calls: Calls, data: st.DataObject) -> None:
    name, function, arguments = data.draw(st.sampled_from(calls[0]))
    for _ in range(8):
        changed = data.draw(st.sets(st.sampled_from(sorted(arguments)), min_size=1), label=name)
        # Whatever is not changed is right, so a poll has nothing to wait for unless its mask and value are.
        changed -= {"timeout"} if len(changed) > 1 else set()
        with contextlib.suppress(*calls[1]):
            function(**{**arguments, **{one: data.draw(ANYTHING, label=one) for one in sorted(changed)}})


@given(ANYTHING)
@example(10**400)
def test_pauses_of_any_length(timeout: Any) -> None:
    """A number of seconds that is more than a float can hold, looked at until there is a pause."""
    try:
        pace = Pace(timeout)
    except (TypeError, ValueError):
        return
    for _ in range(3):
        pace.elapsed = 1.0  # as if that much had passed
        if not pace.goes_on():
            break


def test_a_program_inside_of_itself() -> None:
    operations: list[Any] = []
    operations.append(When("x", 1, 1, operations))
    with pytest.raises(ValueError, match="without end"):
        list(flatten(operations))


@pytest.mark.parametrize("index", ["01", "0x0000000000000001", "1" * 5000, "0x" + "1" * 5000, "٣", "-1", "1_0", " 1"])
def test_an_index_written_in_an_odd_way(index: str) -> None:
    try:
        info = Card.find(f"words[{index}]")
    except pyuio.RegisterNotFoundError:
        return
    assert info.offset == 16


@pytest.mark.parametrize(
    "which", ["", "\0", "uio٣", "/dev/uio٣", f"uio{'1' * 500}", "0000:00:04.0\n", b"uio0", Fraction(1)]
)
def test_names_of_no_device(which: Any) -> None:
    with pytest.raises((TypeError, ValueError, pyuio.DeviceNotFoundError)):
        find(which)
