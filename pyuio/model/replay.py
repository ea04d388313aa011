# SPDX-License-Identifier: MIT
"""`Replay`: a card that answers as a real one did while a driver's accesses were recorded.

``Driver.open(trace="card.trace")`` records; see `pyuio.region.tracing.Recording`. A driver that does the same again
gets the same answers and interrupts. The first thing that it does otherwise raises `ReplayDifference`, which shows what
was recorded and what came instead, by name.

The recording does not have what the card wrote into memory, so a driver that looks there must be tested on a model.
Addresses of buffers for DMA differ from run to run: those of the n-th buffer stand for those of the n-th recorded.
"""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections import deque
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pyuio.model.card import Card
from pyuio.model.complaint import driver_line
from pyuio.model.pci_function import BarSpace
from pyuio.region.tracing import Recording

_DEVICE = re.compile(r"device ([0-9a-f]{4}):([0-9a-f]{4}) class 0x([0-9a-f]{6})")
_BAR = re.compile(r"bar([0-5]) (memory|io) 0x([0-9a-f]{1,16})")
_ACCESS = re.compile(r"bar([0-5]) (read|write)(8|16|32|64) 0x([0-9a-f]{1,16})( [\w.\[\]]+)? = 0x([0-9a-f]{1,16})")
_INTERRUPT = re.compile(r"(?:interrupt|vector(\d{1,3})) = (none|\d{1,6})")
_VECTORS = re.compile(r"vectors ([1-9]\d{0,2}) (MSI-X|MSI|INTx|unknown)")
_BUFFER = re.compile(r"dma 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})")
_OF_DEVICE = (_DEVICE, _VECTORS, re.compile(r"\w+ (memory|io) 0x.*"))
_CONTEXT = 6  # lines shown before a difference


class ReplayDifference(AssertionError):
    """A driver did something else than it did when it was recorded."""


class _Step(NamedTuple):
    """One access that was recorded."""

    line: str
    bar: int
    writes: bool
    width: int  # bytes
    offset: int
    name: str
    value: int


class _Came(NamedTuple):
    """Interrupts that were read."""

    line: str
    vector: int
    number: int


class Replay(Card):
    """A card that replays a recording.

    Args:
        path: the file.

    Raises:
        ValueError: the file is no recording, or has a line that is none of one; the message says which.
        OSError: it cannot be read.
    """

    vendor: ClassVar[int] = 0

    def __new__(cls, path: str | os.PathLike[str]) -> Replay:
        """Make a class with the ids and BARs of the recorded device, and a card of it."""
        known = _header(Path(path).read_text(encoding="ascii", errors="replace").splitlines(), path)
        made: Replay = super().__new__(type(cls.__name__, (cls,), known))
        return made

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.name = f"replay of {Path(path).name}"
        self._steps: deque[_Step | _Came] = deque()
        self._recorded: list[tuple[int, int]] = []
        for number, line in enumerate(Path(path).read_text(encoding="ascii", errors="replace").splitlines(), 1):
            self._add(line, f"{path}, line {number}")
        self._done: deque[str] = deque(maxlen=_CONTEXT)
        self._buffers: list[tuple[int, int]] = []
        # What was written to 32 bits at a BAR and an offset: the recorded value, and that of now.
        self._written: dict[tuple[int, int], tuple[int, int]] = {}
        self._first: ReplayDifference | None = None

    def _add(self, line: str, where: str) -> None:
        access = _ACCESS.fullmatch(line)
        if access and len(access[6]) == int(access[3]) // 4:  # fewer digits: the line was cut off
            bar, verb, bits, offset, name, value = access.groups()
            place = int(bar), verb == "write", int(bits) // 8, int(offset, 16)
            self._steps.append(_Step(line, *place, name=(name or "").strip(), value=int(value, 16)))
        elif came := _INTERRUPT.fullmatch(line):
            if came[2] != "none":
                self._steps.append(_Came(line, int(came[1] or 0), int(came[2])))
        elif buffer := _BUFFER.fullmatch(line):
            self._recorded.append((int(buffer[1], 16), int(buffer[2], 16)))
        elif line != Recording.FIRST_LINE and not any(one.fullmatch(line) for one in _OF_DEVICE):
            raise ValueError(f"{where}: not a line of a recording: {line[:80]!r}")

    def check(self) -> None:
        """Raise `ReplayDifference` if the driver has not done all that was recorded."""
        if self._first is not None:
            raise self._first
        if left := [step.line for step in self._steps if isinstance(step, _Step)]:
            raise self._difference(left, [], f"the driver has not done {len(left)} of the recorded accesses")

    def note_buffer(self, address: int, size: int) -> None:
        """Note a buffer for DMA that the driver has allocated."""
        self._buffers.append((address, size))

    def note_interrupts(self) -> None:
        """Note that the driver has enabled its interrupts: those that it read before its next access come."""
        self.after(0, self._raise_interrupts)  # once bus mastering is on, too, without which a message is lost

    # ---- Accesses ----

    def read_bar(self, index: int, offset: int, width: int) -> int:
        """Return what was read when the driver was recorded."""
        step = self._next(index, offset, width, None)
        self._go_on(step.line)
        return self._answer(step)

    def write_bar(self, index: int, offset: int, width: int, value: int) -> None:
        """Compare a write with the one that was recorded."""
        step = self._next(index, offset, width, value)
        for at in range(0, width if width >= 4 else 0, 4):
            halves = step.value >> 8 * at & 0xFFFF_FFFF, value >> 8 * at & 0xFFFF_FFFF
            self._written[index, offset + at] = halves
        self._go_on(step.line)

    def _next(self, index: int, offset: int, width: int, value: int | None) -> _Step:
        if self._first is not None:  # what a driver does after it is of no interest, such as closing
            raise self._first
        self._skip_interrupts()
        verb = "read" if value is None else "write"
        place = f"bar{index} {verb}{8 * width} {offset:#05x}"
        step = self._steps.popleft() if self._steps else None
        assert not isinstance(step, _Came)
        same = step is not None and (step.bar, step.width, step.offset, step.writes) == (
            index,
            width,
            offset,
            value is not None,
        )
        if step is not None and same and (value is None or value in (step.value, *self._moved(step.value, width))):
            return step
        name = f" {step.name}" if step is not None and same and step.name else self._name_at(index, offset)
        came = place + name + ("" if value is None else f" = {value:#0{2 + 2 * width}x}")
        expected = [] if step is None else [step.line if value is not None else step.line.partition(" = ")[0]]
        text = "the driver goes on after the end of the recording" if step is None else "the driver does something else"
        if self._recorded:
            text += " (what the card wrote into the driver's memory is not recorded, and is missing here)"
        raise self._difference(expected, [came], text)

    def _name_at(self, index: int, offset: int) -> str:
        steps = (one for one in self._steps if isinstance(one, _Step) and one.name)
        return next((f" {one.name}" for one in steps if (one.bar, one.offset) == (index, offset)), "")

    def _difference(self, recorded: list[str], came: list[str], text: str) -> ReplayDifference:
        before = list(self._done)
        lines = difflib.unified_diff(
            [*before, *recorded[:_CONTEXT]], [*before, *came], "recorded", "now", lineterm="", n=_CONTEXT
        )
        line = driver_line()
        place = f"\n  at {line}" if line else ""
        self._first = ReplayDifference(f"{self.name}: {text}{place}\n" + "\n".join(lines))
        return self._first

    def _go_on(self, line: str) -> None:
        """Note that a step was done, and raise the interrupts that were read after it."""
        self._done.append(line)
        self._raise_interrupts()

    def _raise_interrupts(self) -> None:
        """Raise the interrupts that were read before the next access."""
        for step in itertools.takewhile(lambda step: isinstance(step, _Came), self._steps):
            assert isinstance(step, _Came)
            for _ in range(step.number if self.function.messages else 1):
                self.raise_interrupt(step.vector)

    def _skip_interrupts(self) -> None:
        """Drop the interrupts that the driver has read by now. A line is asserted until its next access."""
        for vector in list(self.raised):
            self.lower_interrupt(vector)
        while self._steps and isinstance(self._steps[0], _Came):
            self._done.append(self._steps.popleft().line)

    def _answer(self, step: _Step) -> int:
        """Return what a recorded read gets now.

        The high half of an address is a small number, as many a value is that has nothing to do with memory. So it is
        moved only where the driver wrote it.
        """
        recorded, now = self._written.get((step.bar, step.offset), (None, 0))
        if step.width == 4 and step.value == recorded:
            return now
        return next(iter(self._moved(step.value, step.width, shifts=(0,))), step.value)

    def _moved(self, value: int, width: int, shifts: tuple[int, ...] = (0, 32)) -> list[int]:
        """Return what a recorded value is now, if it is in a recorded buffer for DMA: its address, or a half of it."""
        if width < 4:
            return []
        found = []
        for (old, size), (new, _) in zip(self._recorded, self._buffers, strict=False):
            for shift in shifts if width == 4 else (0,):
                mask = (1 << 8 * width) - 1
                at = value - (old >> shift & mask)
                if 0 <= at < (size if not shift else 1):
                    found.append((new + (at if not shift else 0)) >> shift & mask)
        return found


def _header(lines: list[str], path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the attributes of a class of cards like the recorded one."""
    if not lines or lines[0] != Recording.FIRST_LINE:
        raise ValueError(f"{path} is no recording of a driver: its first line is not {Recording.FIRST_LINE!r}")
    device = next(filter(None, map(_DEVICE.fullmatch, lines)), None)
    if device is None:
        raise ValueError(f"{path} does not say which device was recorded")
    spaces = {}
    for bar in filter(None, map(_BAR.fullmatch, lines)):
        spaces[int(bar[1])] = BarSpace(int(bar[3], 16), ports=bar[2] == "io")
    for index, space in spaces.items():
        if space.size > 1 << 30 and not space.ports and index + 1 not in spaces:  # too large for 32 bits
            spaces[index] = space._replace(width=64)
    return {
        "vendor": int(device[1], 16),
        "device": int(device[2], 16),
        "class_code": int(device[3], 16),
        "bars": spaces,
        **_interrupts(lines),
    }


def _interrupts(lines: list[str]) -> dict[str, int]:
    """Return the attributes of a class of cards that say which interrupts were recorded."""
    read = [int(found[1]) for found in filter(None, map(_INTERRUPT.fullmatch, lines)) if found[1]]
    enabled = list(filter(None, map(_VECTORS.fullmatch, lines)))  # older recordings have no such line
    count = max([*(number + 1 for number in read), *(int(one[1]) for one in enabled)], default=0)
    if any(one[2] == "MSI" for one in enabled):
        return {"interrupt_pin": 0, "msi_vectors": 1 << (count - 1).bit_length()}
    return {"interrupt_pin": int(not enabled), "msix_vectors": count}
