# SPDX-License-Identifier: MIT
"""``pyuio bench latency`` on QEMU's edu card: interrupts at times that no handler influences, handled in three ways.

A program in C raises the interrupts from another CPU, at irregular times of its own. A slow handler does not delay the
next interrupt, and each interrupt that came meanwhile is a sample with all the time that it waited (no coordinated
omission). Each interrupt sets a bit of the card's status, which tells it from the 31 before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

from pyuio_drivers.edu import Edu, EduRegisters

from pyuio.latency.interrupts import GRACE, NATIVE, PYTHON, Options, Turn, drain, recipe
from pyuio.latency.patch_loop import PatchLoop, Records, lent
from pyuio.latency.reading_thread import ReadingThread
from pyuio.latency.results import REFERENCE
from pyuio.program import Stamp
from pyuio.service import Service

WAYS = (REFERENCE, PYTHON, NATIVE)

Handled = list[tuple[int, int, int]]
"""For each read: when it returned, when the status had been read, and the bits that were set in the status."""


def latencies(raised: Sequence[int], handled: Handled) -> tuple[dict[int, int], int]:
    """Match the interrupts that were raised with the bits that were handled.

    Args:
        raised: the time of each interrupt; number K has bit K modulo 32, which was clear when it was raised.
        handled: times, ascending, and bits.

    Returns:
        The latency of each number that was handled, and how many bits were found that nobody had raised. A latency ends
        when the read returned. If the interrupt was raised later than that and its bit was still found, the latency
        ends when the status had been read.
    """
    numbers: dict[int, Iterator[int]] = {bit: iter(range(bit, len(raised), 32)) for bit in range(32)}
    found: dict[int, int] = {}
    impossible = 0
    for returned, found_at, bits in handled:
        for bit in range(32):
            if bits >> bit & 1:
                number = next(numbers[bit], None)
                if number is None:
                    impossible += 1
                else:
                    found[number] = (returned if returned >= raised[number] else found_at) - raised[number]
    return found, impossible


class _Reader(Protocol):
    """One way of reading the interrupt, which runs from its construction on."""

    def finish(self) -> Handled:
        """End it, and return what it handled."""


class _InC:
    """The patch's loop, in a process of its own."""

    def __init__(self, card: Edu, program: PatchLoop, options: Options, count: int) -> None:
        with contextlib.ExitStack() as stack:
            self._records = stack.enter_context(Records(count))
            taken = stack.enter_context(lent(card))
            self._process = program.read(taken, self._records, count, options.cpu, options.priority)
            self._resources = stack.pop_all()

    def finish(self) -> Handled:
        with self._resources:
            self._process.end(GRACE)
            return self._records.triples()


class _InPython(ReadingThread):
    """The same loop in Python, in a thread of this process."""

    def __init__(self, card: Edu, options: Options, count: int) -> None:
        self._card = card
        self._count = count
        self._handled: Handled = []
        super().__init__(options)

    def loop(self) -> None:
        read, bar = self._card.device.interrupt.read, self._card.bar
        status = EduRegisters.interrupt_status.info.offset
        acknowledge = EduRegisters.acknowledge_interrupt.info.offset
        seen = 0
        while seen < self._count and not self.stop:
            try:
                read(GRACE)
            except TimeoutError:
                continue
            now = time.monotonic_ns()
            bits = bar.read32(status)
            then = time.monotonic_ns()
            bar.write32(acknowledge, bits)
            if bits:
                self._handled.append((now, then, bits))
                seen += bits.bit_count()

    def finish(self) -> Handled:
        self.join(GRACE)
        return self._handled


class _InService:
    """The native service."""

    def __init__(self, card: Edu, options: Options, count: int) -> None:
        status, acknowledge = card.acknowledge_program()
        program = (status, Stamp("found"), acknowledge)
        around = partial(recipe, options.cpu, options.priority)
        self._service = Service(card.device.interrupt, program, capacity=2 * count, around=around)

    def finish(self) -> Handled:
        with self._service:
            handled: Handled = []
            with contextlib.suppress(TimeoutError):
                while True:
                    for event in self._service.read(0.1):
                        values = event.values
                        handled.append((event.time, values["found"], values["status"]))
            return [one for one in handled if one[2]]


class OpenLoop:
    """The C program, the Python loop and the service on an edu card.

    Args:
        card: the edu card, open.
        program: the C program.
        options: what to measure.
    """

    ways = WAYS

    def __init__(self, card: Edu, program: PatchLoop, options: Options) -> None:
        self.card = card
        self._program = program
        self._options = options

    def settings(self) -> dict[str, object]:
        """Return nothing to add to the run's settings."""
        return {}

    def turn(self, way: str) -> Turn:
        """Raise and handle one turn's interrupts. MeasurementError: the C program failed."""
        plan = self._options.plan
        count = plan.warm_up + plan.count
        drain(self.card)
        with Records(count) as records:
            raising = self._program.raise_interrupts(
                self.card, records, count, plan.interval, self._options.raising_cpu, self._options.priority
            )
            try:
                reader = self._reader(way, count)
                try:
                    raising.go()
                    raising.wait(2 * count * plan.interval / 1e9 + 30)
                finally:
                    handled = reader.finish()
            finally:
                raising.end(0)
            raised = records.times()
        return Turn(raised, *latencies(raised, handled))

    def _reader(self, way: str, count: int) -> _Reader:
        if way == REFERENCE:
            return _InC(self.card, self._program, self._options, count)
        return (_InPython if way == PYTHON else _InService)(self.card, self._options, count)
