# SPDX-License-Identifier: MIT
"""A buffer that a device goes round without end, period by period, as sound, capture and streaming cards do."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator
from typing import SupportsIndex

from pyuio._native._memory import Span, dma_rmb
from pyuio.dma.buffer import DmaBuffer
from pyuio.process.timeouts import TimeSource

_LONGEST = 1e6  # seconds of a period


class CyclicBuffer:
    """A `DmaBuffer` in n equal periods: says which the device has done with, and which it did before they were handled.

    The device works on one period, and the others are the program's: to fill for a card that plays, to read from a card
    that captures. A card usually interrupts at the end of each period::

        cyclic = pyuio.CyclicBuffer(buffer, periods=4, position=registers.position.read)
        start_the_card(buffer.address, buffer.size, cyclic.period_size)
        while True:
            count = interrupt.read(timeout)
            acknowledge()
            cyclic.update(count)
            for period in cyclic.ready():      # DmaBuffers, the oldest first
                consume(period)

    Interrupts merge: while one is pending, the next may leave no trace. So the count of interrupts is the least number
    of periods that are over. The card's position says exactly in which period the card is, but not how often it went
    round: that tells the time. So give `position` and `period_time` if the card has a position and a steady rate, as
    sound cards. With `position` alone, a program that is late by n periods or more does not learn it. With neither,
    each interrupt must be seen. (ALSA does the same: snd_pcm_update_hw_ptr0 in ``sound/core/pcm_lib.c``.)

    Args:
        buffer: a whole number of periods.
        periods: how many, at least 2: a double buffer has 2 halves.
        position: returns where in the buffer the device is, in bytes from its start, 0 to the size; None if the device
            does not tell.
        period_time: seconds that the device takes for a period; None if its rate is not steady. It may be wrong, and
            the device may begin late, by less than half a round in all between two calls of `update`.
        clock: the time, as `Device.clock`.

    Attributes:
        buffer: the buffer.
        period_size: of one period, in bytes.
        done: how many periods the device has ended since the start, as far as is known.
        handled: how many of them `ready` has handed out, or left out because they were lost.
        lost: how many periods the device has gone over again before they were handled, or while they were.

    Raises:
        TypeError: a wrong type.
        ValueError: fewer than 2 periods, or they are not equal; a time that is not above 0, or without `position`.
    """

    def __init__(
        self,
        buffer: DmaBuffer,
        *,
        periods: SupportsIndex,
        position: Callable[[], SupportsIndex] | None = None,
        period_time: float | None = None,
        clock: TimeSource = time,
    ) -> None:
        if not isinstance(buffer, Span):
            raise TypeError(f"a cyclic buffer is in a DmaBuffer, not in a {type(buffer).__name__}")
        if position is not None and not callable(position):
            raise TypeError(f"position is a function, as registers.position.read, not {position!r}")
        if period_time is not None and (position is None or not 0 < period_time < _LONGEST):
            raise ValueError(f"period_time is seconds above 0, beside a position, not {period_time!r}")
        number = operator.index(periods)
        if number < 2:
            raise ValueError(f"a cyclic buffer has at least 2 periods, not {number}: the device has one of them")
        if buffer.size % number:
            raise ValueError(f"{buffer.size} bytes are not {number} equal periods")
        self.buffer = buffer
        self.period_size = buffer.size // number
        self._position = position
        self._period_time = period_time
        self._clock = clock
        size = self.period_size
        self.periods = tuple(buffer[start : start + size] for start in range(0, buffer.size, size))
        """The periods, each a `DmaBuffer` with its own address; a card that plays gets all of them filled at first."""
        self.restart()

    def restart(self) -> None:
        """Count from the start again: the device begins with the first period."""
        self._interrupts = self.done = self.handled = self.lost = 0
        self._passed = 0.0  # periods since the start, with the fraction of the present one, at the time `_when`
        self._when = self._clock.monotonic()

    def update(self, interrupts: SupportsIndex = 0) -> int:
        """Take note of interrupts and of the position, and return how many periods are ready.

        Periods that the device has gone over again are counted in `lost`, and are not ready: the next that is ready is
        the oldest whole one.

        Args:
            interrupts: how many came since the last call, one for each period: what `Interrupt.read` returns. 0 to look
                at the position only.

        Returns:
            0 to n - 1.

        Raises:
            ValueError: `interrupts` is negative, or the device is outside of the buffer.
        """
        number = operator.index(interrupts)
        if number < 0:
            raise ValueError(f"the number of interrupts is from 0, not {number}")
        self._interrupts += number
        least = max(self.done, self._interrupts)
        self.done = least if self._position is None else self._at(operator.index(self._position()), least)
        dma_rmb()  # what the device wrote before is read after this
        self._skip(self.done - (len(self.periods) - 1))
        return self.done - self.handled

    def _skip(self, oldest: int) -> None:
        """Leave out what is older than the oldest period that is whole."""
        if self.handled < oldest:
            self.lost += oldest - self.handled
            self.handled = oldest

    def _at(self, position: int, least: int) -> int:
        """Return how many periods are over, at least `least`, if the device is at `position` now."""
        if not 0 <= position <= self.buffer.size:
            what = f"the device says that it is at {position:#x} of a buffer of {self.buffer.size:#x} bytes"
            raise ValueError(f"{what}; position is in bytes from the start of the buffer")
        count = len(self.periods)
        place = position % self.buffer.size / self.period_size
        # The next count of periods, from the least one on, that leaves the device where it is.
        done = least + (int(place) - least) % count
        if self._period_time is not None:
            now = self._clock.monotonic()
            expected = self._passed + (now - self._when) / self._period_time
            done += max(0, round((expected - done - place % 1) / count)) * count
            self._passed, self._when = done + place % 1, now
        return done

    def ready(self) -> Iterator[DmaBuffer]:
        """Yield each period that is ready, the oldest first; it is handled when the next one is asked for.

        Before it asks for the next one, the device's position is looked at again. If the device has come to the period
        meanwhile, it counts as `lost`, whatever was done with it: the program was too late.
        """
        while self.handled < self.done:
            number = self.handled
            yield self.periods[number % len(self.periods)]
            if self._position is not None:
                self.update()
            if self.handled == number:  # it stayed the program's
                self.handled += 1

    def __repr__(self) -> str:
        """Return the counts."""
        counts = f"{self.done} done, {self.handled} handled, {self.lost} lost"
        return f"<CyclicBuffer of {len(self.periods)} periods of {self.period_size} bytes: {counts}>"
