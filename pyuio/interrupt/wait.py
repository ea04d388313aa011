# SPDX-License-Identifier: MIT
"""Waiting for several things at once, by poll(2): interrupts, sockets, files."""

from __future__ import annotations

import operator
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

from pyuio.errors import ClosedError
from pyuio.interrupt.interrupt import Interrupt
from pyuio.process.signals import poll_with_signals
from pyuio.process.timeouts import timeout_nanoseconds


class HasFileno(Protocol):
    """Anything with a descriptor: a socket, a pipe, a file, an `Interrupt`."""

    def fileno(self) -> int:
        """Return the descriptor."""


def wait(objects: Iterable[int | HasFileno], timeout: float | None = None) -> list[Any]:
    """Wait until one of several things can be read, as `multiprocessing.connection.wait` does.

    Interrupts are unmasked meanwhile. Those that are ready stay pending, for their `Interrupt.read`.

    Args:
        objects: interrupts, sockets, files, anything with a ``fileno()``, and file descriptors, in any mixture.
        timeout: seconds to wait; None waits for ever, 0 does not wait.

    Returns:
        Those that are ready, in the order given; [] when none was in time. A socket whose other end has gone is ready.

    Raises:
        ClosedError: an interrupt was closed, before or meanwhile.
        DeviceRemovedError: the device of an interrupt was removed or unbound, before or meanwhile.
        TypeError: an object has no descriptor, or the timeout is not a number.
        ValueError: the timeout is negative or NaN, a descriptor is negative or closed, or there is nothing to wait for.
    """
    objects = list(objects)
    nanoseconds = timeout_nanoseconds(timeout)
    if not objects and timeout is None:
        raise ValueError("there is nothing to wait for, and no timeout: this would never end")
    poller = select.poll()
    descriptors: list[int] = []
    interrupts: dict[int, Interrupt] = {}
    wakes: dict[int, Interrupt] = {}
    with ExitStack() as stack:
        for item in objects:
            if isinstance(item, Interrupt):
                descriptor, wake, ready = stack.enter_context(item.armed())
                interrupts[descriptor], wakes[wake] = item, item
                poller.register(wake, select.POLLIN)
                if ready:
                    nanoseconds = 0
            else:
                descriptor = _descriptor(item)
            descriptors.append(descriptor)
            poller.register(descriptor, select.POLLIN)
        # A card in Python answers only while its time passes: then its clock polls.
        clocks: Iterator[Any] = (getattr(one, "clock", time) for one in objects)
        poll = next((clock.poll for clock in clocks if clock is not time), poll_with_signals)
        events = dict(poll(poller, None if nanoseconds < 0 else nanoseconds / 1e9))
        for descriptor, event in events.items():
            if descriptor in wakes:
                raise ClosedError(f"{wakes[descriptor].name}: its interrupt is closed")
            if descriptor in interrupts:
                interrupts[descriptor].require_open()
            if event & select.POLLNVAL:
                raise ValueError(f"descriptor {descriptor} is not open")
    return [item for item, descriptor in zip(objects, descriptors, strict=True) if descriptor in events]


def _descriptor(item: int | HasFileno) -> int:
    if not isinstance(item, int) and not hasattr(item, "fileno"):
        raise TypeError(f"a {type(item).__name__} has no descriptor to wait for")
    descriptor = operator.index(item if isinstance(item, int) else item.fileno())
    if not 0 <= descriptor < 1 << 31:
        raise ValueError(f"{item!r} is not open")
    return descriptor
