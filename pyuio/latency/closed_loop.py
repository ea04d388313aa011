# SPDX-License-Identifier: MIT
"""``pyuio bench latency`` on any card: a process on another CPU calls the driver's ``trigger()``.

The loop is closed: all that is known of the card is how to raise and acknowledge its interrupt, so the process raises
an interrupt only when the one before has been handled. Interrupts come due at times that do not depend on the handler.
One that comes due while another is being handled is a sample, too, measured from the time when it was due (no
coordinated omission).
"""

from __future__ import annotations

import bisect
import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Protocol

from pyuio.driver import Driver
from pyuio.errors import UnsupportedByDriverError
from pyuio.latency.interrupts import NATIVE, PYTHON, Options, Turn, drain, recipe
from pyuio.latency.reading_thread import ReadingThread
from pyuio.latency.results import TRIGGER_TAKES
from pyuio.latency.trigger_process import Triggered, TriggerProcess
from pyuio.program import Write
from pyuio.region.memory import Region
from pyuio.service import Service

WAYS = (PYTHON, NATIVE)
NEEDED = ("trigger", "acknowledge", "acknowledge_program")

_LOOK = 0.1  # seconds that a read waits at most; between reads the Python loop checks whether it must end


def check(driver: type[Driver]) -> None:
    """Check that a driver supplies the methods in `NEEDED`. UnsupportedByDriverError: it does not."""
    if missing := [f"{name}()" for name in NEEDED if not driver.supplies(name)]:
        reason = f"interrupt latency cannot be measured with {driver.__name__}, which does not supply"
        raise UnsupportedByDriverError(f"{reason} {', '.join(missing)}; pyuio.Driver says what they must do")


def latencies(triggered: Triggered, handled: Sequence[int]) -> tuple[dict[int, int], int]:
    """Match interrupts with reads: the first read that returns after an interrupt came due handles it.

    Args:
        triggered: the interrupts that came due, and those that were raised.
        handled: when each read returned, in ns, ascending.

    Returns:
        The latency in ns of each interrupt that was handled, by its number, and how many reads returned although no
        interrupt had been raised for them.
    """
    impossible = max(0, len(handled) - len(triggered.raised))
    impossible += sum(returned < raised for raised, returned in zip(triggered.raised, handled, strict=False))
    found = {}
    for number, due in enumerate(triggered.due):
        index = bisect.bisect_left(handled, due)
        if index < len(handled):
            found[number] = handled[index] - due
    return found, impossible


class _Reader(Protocol):
    """One way of reading the interrupt, which runs from its construction on."""

    def finish(self) -> list[int]:
        """End it, and return when each of its reads returned."""


class _InPython(ReadingThread):
    """A read loop in a thread of this process."""

    def __init__(self, card: Driver, done: Region, options: Options, count: int) -> None:
        self._card = card
        self._done = done
        self._handled: list[int] = []
        super().__init__(options)

    def loop(self) -> None:
        read, acknowledge, done = self._card.device.interrupt.read, self._card.acknowledge, self._done
        while not self.stop:
            try:
                read(_LOOK)
            except TimeoutError:
                continue
            now = time.monotonic_ns()
            acknowledge()
            done.write32(0, 1)
            self._handled.append(now)

    def finish(self) -> list[int]:
        self.join(0)
        return self._handled


class _InService:
    """The native service. An operation of its program tells the other process that the interrupt is handled."""

    def __init__(self, card: Driver, done: Region, options: Options, count: int) -> None:
        program = [*card.acknowledge_program(), Write(done, 0, 1)]
        around = partial(recipe, options.cpu, options.priority)
        self._service = Service(card.device.interrupt, program, capacity=2 * count, around=around)

    def finish(self) -> list[int]:
        with self._service:
            handled: list[int] = []
            with contextlib.suppress(TimeoutError):
                while True:
                    handled += [event.time for event in self._service.read(_LOOK)]
            return handled


class ClosedLoop:
    """The Python loop and the service on any card; a context manager, which ends the process that triggers.

    There is no C program for it: only the driver knows how to acknowledge its card's interrupt.

    Args:
        card: an open card whose driver supplies the methods in `NEEDED`; this makes it quiet.
        options: what to measure.

    Raises:
        UnsupportedByDriverError: the driver does not supply it.
    """

    ways = WAYS

    def __init__(self, card: Driver, options: Options) -> None:
        check(type(card))
        card.quiet()  # otherwise, something that the driver itself runs could take the interrupt
        self.card = card
        self._options = options
        self._triggers: list[int] = []
        with contextlib.ExitStack() as stack:
            # A memfd has no name in any directory, so a killed measurement leaves nothing behind.
            with os.fdopen(os.memfd_create("pyuio"), "r+b") as file:
                file.truncate(4)
                path = f"/proc/self/fd/{file.fileno()}"
                self._done = stack.enter_context(Region(path, 4, name="the memory of both processes"))
            # Fork before any other thread runs here: the child has only the thread that forked it.
            self._process = TriggerProcess(card, self._done, options.raising_cpu, options.priority)
            stack.callback(self._process.close)
            self._resources = stack.pop_all()

    def settings(self) -> dict[str, object]:
        """Return the kind of loop, and the median time of a call of the driver's trigger() in us, or None."""
        took = statistics.median(self._triggers) / 1000 if self._triggers else None
        return {"loop": "closed", TRIGGER_TAKES: took}

    def turn(self, way: str) -> Turn:
        """Trigger and handle one turn's interrupts. MeasurementError: the process that triggers failed."""
        plan = self._options.plan
        count = plan.warm_up + plan.count
        self.card.quiet()
        drain(self.card)
        reader = (_InPython if way == PYTHON else _InService)(self.card, self._done, self._options, count)
        try:
            triggered = self._process.trigger(count, plan.interval, 2 * count * plan.interval / 1e9 + 30)
        finally:
            handled = reader.finish()
            self.card.quiet()
        self._triggers += triggered.took
        return Turn(triggered.due, *latencies(triggered, handled))

    def __enter__(self) -> ClosedLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
