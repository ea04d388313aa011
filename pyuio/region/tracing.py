# SPDX-License-Identifier: MIT
"""Regions that log each access, to show what a driver tells its card and what the card answers.

`Device.trace_registers`, or ``Driver.open(trace=True)``, makes a device use them for its BARs; otherwise this module is
not even imported. Lines go to the logger ``pyuio.tracing``, at debug level::

    0000:00:04.0: bar0 read32 0x020 status = 0x00000080
    0000:00:04.0: bar0 write32 0x064 acknowledge_interrupt = 0x00000001

Accesses that bypass Python's methods are not logged: those of a `pyuio.Service`, and those through periphery's object,
`Region.mmio`.

A `Recording` is the same as a file, from which `pyuio.model.Replay` makes a card. Besides, it says what the device is,
when an interrupt was read, and which memory the driver allocated for DMA. It does not have the contents of that memory.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyuio.region import PortRegion, Region

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class _Place(Protocol):
        path: str
        offset: int

        @property
        def bank(self) -> object: ...
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
    """Return the names of registers by offset; of two at one offset, the one that can be read, or written, wins.

    Those in banks are left out, because their offsets do not tell which they are.
    """
    found: dict[int, str] = {}
    for info in registers.walk() if registers is not None else ():
        if info.bank is not None:
            continue
        if (info.readable if reading else info.writable) or info.offset not in found:
            found[info.offset] = info.path
    return found


class Recording:
    """A trace as a file.

    Args:
        path: of the file, which is made, or overwritten.

    Raises:
        OSError: it cannot be written.
    """

    FIRST_LINE = "pyuio trace 1"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Without a buffer, whose lock another thread may hold amid a fork.
        self._file = Path(path).open("wb", buffering=0)  # noqa: SIM115  (closed by its device)
        self.line(self.FIRST_LINE)

    def line(self, text: str) -> None:
        """Write a line, unless the file is closed."""
        if not self._file.closed:
            self._file.write(f"{text}\n".encode("ascii"))

    def interrupts(self, made: Sequence[Any]) -> None:
        """Write a line that these interrupts are enabled, if they are vectors, and one from now on for each `read`."""
        are_vectors = len(made) > 1 or made[0].kind not in (None, "INTx")
        if are_vectors:
            self.line(f"vectors {len(made)} {made[0].kind or 'unknown'}")
        for number, interrupt in enumerate(made):
            label = f"vector{number}" if are_vectors else "interrupt"
            interrupt.read = self._reading(interrupt.read, label)
            interrupt.read_async = self._reading_async(interrupt.read_async, label)

    @contextlib.contextmanager
    def _noting_timeouts(self, label: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self.line(f"{label} = none")
            raise

    def _reading(self, read: Callable[..., int], label: str) -> Callable[..., int]:
        def recorded(*arguments: Any, **keywords: Any) -> int:
            with self._noting_timeouts(label):
                count = read(*arguments, **keywords)
            self.line(f"{label} = {count}")
            return count

        return recorded

    def _reading_async(self, read: Callable[..., Any], label: str) -> Callable[..., Any]:
        async def recorded(*arguments: Any, **keywords: Any) -> int:
            with self._noting_timeouts(label):
                count: int = await read(*arguments, **keywords)
            self.line(f"{label} = {count}")
            return count

        return recorded

    def buffer(self, address: int, size: int) -> None:
        """Write a line for a buffer for DMA."""
        self.line(f"dma {address:#x} {size:#x}")

    def close(self) -> None:
        """Close the file. A second close does nothing."""
        self._file.close()


class _Trace:
    """A region's place, and the names of its registers."""

    def __init__(self, device: str, place: str, registers: RegisterNames | None, recording: Recording | None) -> None:
        self._device, self._place = device, place
        self._names = {reading: _names(registers, reading) for reading in (True, False)}
        self.recording = recording

    def log(self, verb: str, offset: int, values: str, *, reading: bool) -> None:
        _log.debug("%s: %s", self._device, self._text(verb, offset, values, reading))

    def record(self, verb: str, bits: int, offset: int, value: int, endian: str) -> None:
        """Write a line for one access: with the value on the bus, where PCI is little-endian, as a card gets it."""
        if self.recording is not None:
            octets = value.to_bytes(bits // 8, "big" if endian == "big" else "little")
            text = f" = {_digits(int.from_bytes(octets, 'little'), bits)}"
            self.recording.line(self._text(f"{verb}{bits}", offset, text, verb == "read"))

    def _text(self, verb: str, offset: int, values: str, reading: bool) -> str:
        name = self._names[reading].get(offset, "")
        return f"{self._place} {verb} {offset:#05x}{name and ' '}{name}{values}"


def _digits(value: Any, bits: int) -> str:
    return f"{operator.index(value):#0{2 + bits // 4}x}"


def _reader(bits: int) -> Callable[..., int]:
    def read(self: Any, offset: Any, /, **endian: Any) -> int:
        with self._lock:
            value: int = getattr(super(Traced, self), f"read{bits}")(offset, **endian)
            self.trace.record("read", bits, operator.index(offset), value, endian.get("endian") or self.endian)
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
            if self.trace.recording is not None and len(given) == (2 if verb == "update" else 1):
                with self._lock:
                    _change_on_record(
                        super(Traced, self), self.trace, verb, bits, operator.index(offset), given, endian
                    )
                return
        getattr(super(Traced, self), f"{verb}{bits}")(offset, *values, **endian)

    return change


def _change_on_record(
    region: Any, trace: _Trace, verb: str, bits: int, offset: int, given: tuple[Any, ...], endian: dict[str, Any]
) -> None:
    """Do a write; or a set, clear or update by a read and a write, so that a recording has what was read."""
    order = endian.get("endian") or region.endian
    new = operator.index(given[0])
    if verb != "write":
        mask, value = map(operator.index, given if verb == "update" else (new, new if verb == "set" else 0))
        if value & ~mask or not 0 <= mask < 1 << bits or value < 0:
            getattr(region, f"{verb}{bits}")(offset, *given, **endian)  # which says what is wrong
        old = getattr(region, f"read{bits}")(offset, **endian)
        trace.record("read", bits, offset, old, order)
        new = old & ~mask | value
    if 0 <= new < 1 << bits:  # otherwise the write is refused
        trace.record("write", bits, offset, new, order)
    getattr(region, f"write{bits}")(offset, new, **endian)


class Traced:
    """A base class that precedes a kind of region, and logs all its accesses.

    While they are recorded, a change is a read and a write, with a line of the file before each. The region's lock
    keeps accesses of other threads from coming in between.
    """

    __slots__ = ()
    trace: _Trace
    _lock: threading.RLock

    def read(self, offset: Any, /, length: Any, width: Any = 4, *, fixed: bool = False) -> bytes:
        """Read, and log it."""
        with self._lock:
            data: bytes = super().read(offset, length, width, fixed=fixed)  # type: ignore[misc]
            self._record_run("read", operator.index(offset), data, width, fixed)
        text = f" {len(data)} bytes: {data[:32].hex(' ', 4)}"
        self.trace.log("read", operator.index(offset), text, reading=True)
        return data

    def _record_run(self, verb: str, offset: int, data: bytes, width: Any, fixed: bool) -> None:
        if self.trace.recording is not None:
            size = operator.index(width)
            for start in range(0, len(data), size):
                value = int.from_bytes(data[start : start + size], "little")  # the bytes are as on the bus
                self.trace.record(verb, 8 * size, offset if fixed else offset + start, value, "little")

    def write(self, offset: Any, /, data: Any, width: Any = 4, *, fixed: bool = False) -> None:
        """Log a write, and do it."""
        with memoryview(data) as view, view.cast("B") as octets:
            text = f" {len(octets)} bytes: {octets[:32].hex(' ', 4)}"
            copy = octets.tobytes() if self.trace.recording is not None else b""
        self.trace.log("write", operator.index(offset), text, reading=False)
        with self._lock:
            self._record_run("write", operator.index(offset), copy, width, fixed)
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

_regions: weakref.WeakSet[TracedRegion] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child: a thread of the parent may have held the locks. Those of ports are renewed with the ports."""
    for region in list(_regions):
        region._lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


def begin(
    region: Region | PortRegion,
    device: str,
    place: str,
    registers: RegisterNames | None,
    recording: Recording | None = None,
) -> None:
    """Set the names in the log lines of a region of one of `TRACED_CLASSES`; call it before the region is used.

    Args:
        region: the region.
        device: the start of each line in the log, as in "0000:00:04.0".
        place: what the region is called, as in "bar0".
        registers: the map with the registers' names; None for none.
        recording: also gets the accesses; None for none.
    """
    assert isinstance(region, Traced)
    if isinstance(region, TracedRegion):  # other kinds have a lock
        region._lock = threading.RLock()
        _regions.add(region)
    region.trace = _Trace(device, place, registers, recording)
