# SPDX-License-Identifier: MIT
"""``pyuio bench latency --card``: on a card in Python, in this process.

Its time is virtual, so nothing waits: the latency is the processor time from the call of the driver's ``trigger()``
until the read returns, the card's own work included. There is no kernel and no C program, so the figures are for
comparing versions of pyuio, and of a card, with each other.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from pyuio.driver import Driver
from pyuio.latency.closed_loop import WAYS, check
from pyuio.latency.interrupts import GRACE, PYTHON, Options, Turn, drain, recipe
from pyuio.service import Service


class InProcess:
    """The Python loop and the service on a card in this process; one thread triggers and reads.

    Args:
        card: the driver, which supplies the methods in `closed_loop.NEEDED`, on a card of `pyuio.model.open`.
        options: what to measure. There are no times between two interrupts.

    Raises:
        UnsupportedByDriverError: the driver does not supply the methods.
    """

    ways = WAYS

    def __init__(self, card: Driver, options: Options) -> None:
        check(type(card))
        self.card = card
        self._options = options

    def settings(self) -> dict[str, object]:
        """Return the kind of loop."""
        return {"loop": "in process"}

    def turn(self, way: str) -> Turn:
        """Trigger and handle one turn's interrupts."""
        plan = self._options.plan
        self.card.quiet()
        drain(self.card)
        raised: list[int] = []
        latencies: dict[int, int] = {}
        trigger, now = self.card.trigger, time.monotonic_ns
        with recipe(self._options.cpu, self._options.priority), self._handler(way) as handle:
            for number in range(plan.warm_up + plan.count):
                raised.append(now())
                trigger()
                latencies[number] = handle() - raised[number]
        self.card.quiet()
        return Turn(raised, latencies, 0)

    @contextlib.contextmanager
    def _handler(self, way: str) -> Iterator[Callable[[], int]]:
        """Yield a function that handles an interrupt, and returns when it was read."""
        if way == PYTHON:
            read, acknowledge, now = self.card.device.interrupt.read, self.card.acknowledge, time.monotonic_ns

            def by_reading() -> int:
                read(GRACE)
                returned = now()
                acknowledge()
                return returned

            yield by_reading
            return
        with Service(self.card.device.interrupt, self.card.acknowledge_program()) as service:

            def by_service() -> int:
                service.read(GRACE)
                return time.monotonic_ns()

            yield by_service
