# SPDX-License-Identifier: MIT
"""Regions that log each access, to show what a driver tells its card and what the card answers.

`Device.trace_registers`, or ``Driver.open(trace=True)``, makes a device use them for its BARs; otherwise this module is
not even imported. Lines go to the logger ``pyuio.tracing``, at debug level::

    0000:00:04.0: bar0 read32 0x020 status = 0x00000080
    0000:00:04.0: bar0 write32 0x064 acknowledge_interrupt = 0x00000001

Accesses that bypass Python's methods are not logged: those of a `pyuio.Service`, and those through periphery's object,
`Region.mmio`.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyuio.region import PortRegion, Region

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class _Place(Protocol):
        path: str
        offset: int

        @property
        def readable(self) -> bool: ...
        @property
        def writable(self) -> bool: ...

    class RegisterNames(Protocol):
        """The part of a class derived from `pyuio.RegisterMap` that tracing uses."""

        def walk(self) -> Iterable[_Place]:
            """Yield all registers: their names in the map, their offsets, and their access."""


_log = logging.getLogger("pyuio.tracing")

_WIDTHS = (8, 16, 32, 64)


def _names(registers: RegisterNames | None, reading: bool) -> dict[int, str]:
    """Return the names of registers by offset; of two at one offset, the one that can be read, or written, wins."""
    found: dict[int, str] = {}
    for info in registers.walk() if registers is not None else ():
        if (info.readable if reading else info.writable) or info.offset not in found:
            found[info.offset] = info.path
    return found


class _Trace:
    """A region's place, and the names of its registers."""

    def __init__(self, place: str, registers: RegisterNames | None) -> None:
        self._place = place
        self._names = {reading: _names(registers, reading) for reading in (True, False)}

    def log(self, verb: str, offset: int, values: str, *, reading: bool) -> None:
        name = self._names[reading].get(offset, "")
        _log.debug("%s %s %#05x%s%s", self._place, verb, offset, name and " ", name + values)


def _digits(value: Any, bits: int) -> str:
    return f"{operator.index(value):#0{2 + bits // 4}x}"


def _reader(bits: int) -> Callable[..., int]:
    def read(self: Any, offset: Any, /, **endian: Any) -> int:
        value: int = getattr(super(Traced, self), f"read{bits}")(offset, **endian)
        self.trace.log(f"read{bits}", operator.index(offset), f" = {_digits(value, bits)}", reading=True)
        return value

    return read


def _changer(verb: str, bits: int) -> Callable[..., None]:
    def change(self: Any, offset: Any, /, *values: Any, **endian: Any) -> None:
        # Log before the write: if the write stops the machine, the log's last line shows it.
        given = values if all(hasattr(value, "__index__") for value in values) else ()
        sign = {"write": " = ", "set": " |= ", "clear": " &= ~", "update": " mask, value "}[verb]
        if hasattr(offset, "__index__"):
            text = sign + ", ".join(_digits(value, bits) for value in given)
            self.trace.log(f"{verb}{bits}", operator.index(offset), text, reading=False)
        getattr(super(Traced, self), f"{verb}{bits}")(offset, *values, **endian)

    return change


class Traced:
    """A base class that precedes a kind of region, and logs all its accesses."""

    __slots__ = ()
    trace: _Trace

    def read(self, offset: Any, /, length: Any, width: Any = 4, *, fixed: bool = False) -> bytes:
        """Read, and log it."""
        data: bytes = super().read(offset, length, width, fixed=fixed)  # type: ignore[misc]
        self.trace.log("read", operator.index(offset), f" {len(data)} bytes: {data[:32].hex(' ', 4)}", reading=True)
        return data

    def write(self, offset: Any, /, data: Any, width: Any = 4, *, fixed: bool = False) -> None:
        """Log a write, and do it."""
        with memoryview(data) as view, view.cast("B") as octets:
            text = f" {len(octets)} bytes: {octets[:32].hex(' ', 4)}"
        self.trace.log("write", operator.index(offset), text, reading=False)
        super().write(offset, data, width, fixed=fixed)  # type: ignore[misc]


for _bits in _WIDTHS:
    setattr(Traced, f"read{_bits}", _reader(_bits))
    for _verb in ("write", "update", "set", "clear"):
        setattr(Traced, f"{_verb}{_bits}", _changer(_verb, _bits))


class TracedRegion(Traced, Region):
    """A BAR in memory whose accesses are logged; see `begin`."""

    trace: _Trace


class TracedPortRegion(Traced, PortRegion):
    """A BAR in I/O ports whose accesses are logged; see `begin`."""

    trace: _Trace


TRACED_CLASSES = (TracedRegion, TracedPortRegion)


def begin(region: Region | PortRegion, place: str, registers: RegisterNames | None) -> None:
    """Set the names in the log lines of a region of one of `TRACED_CLASSES`; call it before the region is used.

    Args:
        region: the region.
        place: the start of each line, as in "0000:00:04.0: bar0".
        registers: the map with the registers' names; None for none.
    """
    assert isinstance(region, Traced)
    region.trace = _Trace(place, registers)
