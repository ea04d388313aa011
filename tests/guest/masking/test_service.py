# SPDX-License-Identifier: MIT
"""A native service on every kind of masking."""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.interrupt import Interrupt
from tests.guest.support import PATIENCE, Later, kernel_agrees, kernel_count, wait_until

RAISED = 200


def raise_and_wait_until_acknowledged(card: Edu, times: int) -> None:
    """Raise interrupts, each with a bit of its own, and each after the one before was acknowledged."""
    for number in range(times):
        card.raise_interrupt(1 << number % 32)
        wait_until(lambda: card.interrupt_status() == 0)


def test_every_interrupt_is_acknowledged_and_reported_once(
    card: Edu, interrupt: Interrupt, is_masked: Callable[[], bool] | None
) -> None:
    before, counted = time.monotonic_ns(), kernel_count(card.device)
    with pyuio.Service(interrupt, card.acknowledge_program()) as service:
        raise_and_wait_until_acknowledged(card, RAISED)
        events: list[pyuio.Event] = []
        while len(events) < RAISED:
            events += service.read(5)
        with pytest.raises(TimeoutError):
            service.read(0)
    assert [event.values["status"] for event in events] == [1 << number % 32 for number in range(RAISED)]
    assert sum(event.count for event in events) == interrupt.total
    assert kernel_agrees(card.device, counted, interrupt.total)
    times = [before, *(event.time for event in events), time.monotonic_ns()]
    assert times == sorted(times)
    assert is_masked is None or is_masked()


def test_it_serves_while_python_holds_the_lock(card: Edu, interrupt: Interrupt) -> None:
    """While a thread never gives up the GIL, another process sees its interrupts acknowledged."""
    card.device.let_children_access()
    with pyuio.Service(interrupt, card.acknowledge_program()) as service, mmap.mmap(-1, 4096) as both:
        sys.setswitchinterval(10 * PATIENCE)  # no other thread makes this one give up the GIL meanwhile
        child = os.fork()
        if child == 0:
            try:
                raise_and_wait_until_acknowledged(card, 20)
                both[0] = 1
            finally:
                os._exit(0)
        end = time.monotonic() + PATIENCE
        while not both[0] and time.monotonic() < end:
            sum(range(10**5))
        acknowledged = both[0]
        sys.setswitchinterval(0.005)
        os.waitpid(child, 0)
        assert acknowledged
        assert len(service.read(0)) == 20


@pytest.mark.parametrize("what", ["service", "interrupt", "device"])
def test_close_ends_it(card: Edu, interrupt: Interrupt, later: Later, what: str) -> None:
    service = pyuio.Service(interrupt, card.acknowledge_program())
    ended: list[type] = []

    def run() -> None:
        try:
            service.read()
        except pyuio.PyuioError as error:
            ended.append(type(error))

    threads = [later(run) for _ in range(2)]
    time.sleep(0.1)
    closed: list[pyuio.Service | Interrupt | pyuio.Device] = [service, interrupt, card.device]
    closed[("service", "interrupt", "device").index(what)].close()
    for thread in threads:
        thread.join(PATIENCE)
    assert ended == [pyuio.ClosedError] * 2
    service.close()
    service.close()
    with pytest.raises(pyuio.ClosedError):
        service.read(0)


def test_nobody_else_reads_meanwhile(card: Edu, interrupt: Interrupt, later: Later) -> None:
    uses = (
        partial(interrupt.read, 0),
        partial(interrupt.poll, 0),
        partial(pyuio.wait, [interrupt], 0),
        partial(pyuio.Service, interrupt),
    )
    with pyuio.Service(interrupt, card.acknowledge_program()):
        for use in uses:
            with pytest.raises(pyuio.DeviceBusyError, match="native service"):
                use()
    card.raise_interrupt()
    assert interrupt.read(5) == 1
    card.acknowledge()
    waiting = later(interrupt.read)
    wait_until(lambda: not interrupt.masked)  # it counts as waiting before it unmasks
    with pytest.raises(pyuio.DeviceBusyError, match="somebody waits"):
        pyuio.Service(interrupt)
    card.raise_interrupt()
    waiting.join(PATIENCE)
    card.acknowledge()
