# SPDX-License-Identifier: MIT
"""Several that wait for one interrupt with `Interrupt.wait_until`: two ports, each a bit of edu's interrupt status."""

from __future__ import annotations

import asyncio
import errno
import math
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from tests.guest.support import PATIENCE, Later, wait_until

NEAR, FAR = 1, 2


class TwoPorts:
    """Counts the events of each port, and the threads that served them."""

    def __init__(self, card: Edu) -> None:
        self.card = card
        self.interrupt = card.device.interrupt
        self.events = {NEAR: 0, FAR: 0}
        self.servers: list[int] = []

    def serve(self, count: int) -> None:
        assert count >= 1
        self.servers.append(threading.get_ident())
        bits = self.card.interrupt_status()
        self.card.acknowledge(bits)
        for port in self.events:
            self.events[port] += bool(bits & port)

    def has(self, port: int, number: int) -> Callable[[], int]:
        return lambda: self.events[port] if self.events[port] >= number else 0

    def wait(self, port: int, number: int, timeout: float | None = PATIENCE) -> int:
        return self.interrupt.wait_until(self.has(port, number), self.serve, timeout)


@pytest.fixture
def ports(card: Edu) -> TwoPorts:
    return TwoPorts(card)


def test_what_holds_already_is_returned_without_a_look_at_the_interrupt(ports: TwoPorts) -> None:
    assert ports.interrupt.wait_until(lambda: "there", ports.serve, 0) == "there"
    assert ports.interrupt.masked


def test_one_serves_for_all(ports: TwoPorts, later: Later) -> None:
    """Each waiter gets its own events, whoever leads; none is lost, and none is served twice."""
    rounds = 50
    done: list[int] = []

    def receive(port: int) -> None:
        for number in range(1, rounds + 1):
            assert ports.wait(port, number) >= number
        done.append(port)

    threads = [later(lambda port=port: receive(port)) for port in (NEAR, FAR)]  # type: ignore[misc]
    for number in range(1, rounds + 1):
        for port in (FAR, NEAR):
            ports.card.raise_interrupt(port)
        wait_until(lambda number=number: min(ports.events.values()) >= number)  # type: ignore[misc]
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(done) == [NEAR, FAR]
    assert ports.events == {NEAR: rounds, FAR: rounds}
    assert ports.interrupt.masked


def test_the_next_one_leads_when_the_leader_leaves(ports: TwoPorts, later: Later) -> None:
    got: list[int] = []
    first = later(lambda: got.append(ports.wait(NEAR, 1)))
    wait_until(lambda: not ports.interrupt.masked)
    second = later(lambda: got.append(ports.wait(FAR, 1, math.inf)))
    time.sleep(0.05)
    ports.card.raise_interrupt(NEAR)
    first.join(PATIENCE)
    ports.card.raise_interrupt(FAR)
    second.join(PATIENCE)
    assert got == [1, 1]
    assert ports.servers == [first.ident, second.ident]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_leader_serves_before_it_leaves_is_seen(ports: TwoPorts, later: Later, *, asynchronous: bool) -> None:
    """The leader serves for another, and leaves, while that one has looked and does not wait yet."""
    leader = later(lambda: ports.wait(NEAR, 1))
    wait_until(lambda: not ports.interrupt.masked)

    def looks_too_early() -> int:
        seen = ports.events[FAR]
        if leader.is_alive():
            ports.card.raise_interrupt(NEAR | FAR)
            leader.join(PATIENCE)
        return seen

    if asynchronous:
        assert asyncio.run(ports.interrupt.wait_until_async(looks_too_early, ports.serve, PATIENCE)) == 1
    else:
        assert ports.interrupt.wait_until(looks_too_early, ports.serve, PATIENCE) == 1


def test_a_serve_that_fails_is_its_callers_and_the_others_go_on(ports: TwoPorts, later: Later) -> None:
    def fails(_count: int) -> None:
        raise LookupError("no such port")

    caught: list[BaseException] = []

    def lead() -> None:
        with pytest.raises(LookupError, match="no such port") as error:
            ports.interrupt.wait_until(ports.has(NEAR, 1), fails, PATIENCE)
        caught.append(error.value)

    first = later(lead)
    wait_until(lambda: not ports.interrupt.masked)
    second = later(lambda: ports.wait(FAR, 1))
    time.sleep(0.05)
    ports.card.raise_interrupt(FAR)
    first.join(PATIENCE)
    second.join(PATIENCE)  # the card's line is still up, so its interrupt comes again
    assert len(caught) == 1
    assert ports.events[FAR] == 1


def test_who_leads_cannot_wait_again(ports: TwoPorts) -> None:
    """A condition or serve that waits itself would wait for the end of its own caller."""

    def serves(count: int) -> None:
        ports.serve(count)
        ports.wait(FAR, 1, PATIENCE)

    ports.card.raise_interrupt(NEAR)
    with pytest.raises(pyuio.DeviceBusyError, match="waits for its interrupt already"):
        ports.interrupt.wait_until(ports.has(NEAR, 1), serves, PATIENCE)
    assert ports.wait(NEAR, 1, 0) == 1


def test_time_limits(ports: TwoPorts, later: Later) -> None:
    with pytest.raises(BlockingIOError, match="condition does not hold") as would_block:
        ports.wait(NEAR, 1, 0)
    assert would_block.value.errno == errno.EAGAIN
    with pytest.raises(TimeoutError, match=r"no interrupt came within 0\.05 s"):
        ports.wait(NEAR, 1, 0.05)
    ports.card.raise_interrupt(FAR)
    with pytest.raises(TimeoutError, match=r"did not hold within 0\.2 s; this waiter served 1 interrupts"):
        ports.wait(NEAR, 1, 0.2)
    ports.interrupt.mask()  # the leader unmasks it
    leader = later(lambda: ports.wait(FAR, 2))
    wait_until(lambda: not ports.interrupt.masked)
    with pytest.raises(TimeoutError, match="another waiter serves"):
        ports.wait(NEAR, 1, 0.05)
    with pytest.raises(BlockingIOError):
        ports.wait(NEAR, 1, 0)
    ports.card.raise_interrupt(FAR)
    leader.join(PATIENCE)


def test_closing_ends_every_wait(ports: TwoPorts, later: Later) -> None:
    ended: list[type] = []

    def end() -> None:
        with pytest.raises(pyuio.ClosedError) as caught:
            ports.wait(NEAR, 1)
        ended.append(caught.type)

    async def end_task() -> None:
        with pytest.raises(pyuio.ClosedError) as caught:
            await ports.interrupt.wait_until_async(ports.has(FAR, 1), ports.serve)
        ended.append(caught.type)

    threads = [later(end), later(end), later(lambda: asyncio.run(end_task()))]
    wait_until(lambda: not ports.interrupt.masked)
    time.sleep(0.05)
    ports.card.device.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ended) == 3
    with pytest.raises(pyuio.ClosedError):
        ports.wait(NEAR, 1)


def test_bad_arguments(ports: TwoPorts) -> None:
    async def coroutine(_count: int = 0) -> None:
        pass

    condition = ports.has(NEAR, 1)
    wait: Any = ports.interrupt.wait_until
    for bad in (None, 7, coroutine):
        with pytest.raises(TypeError, match="function"):
            wait(bad, ports.serve, 0)
        with pytest.raises(TypeError, match="function"):
            wait(condition, bad, 0)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            wait(condition, ports.serve, timeout)
    assert ports.interrupt.masked
    assert ports.servers == []


def test_tasks_and_a_thread(ports: TwoPorts, later: Later) -> None:
    """Tasks on one loop, one of them cancelled while it leads, beside a thread."""

    def waiting(port: int, number: int) -> Coroutine[Any, Any, int]:
        return ports.interrupt.wait_until_async(ports.has(port, number), ports.serve, PATIENCE)

    async def main() -> None:
        leader = asyncio.ensure_future(waiting(NEAR, 1))
        await asyncio.sleep(0.05)
        follower = asyncio.ensure_future(waiting(NEAR, 1))
        thread = later(lambda: ports.wait(FAR, 1))
        await asyncio.sleep(0.05)
        leader.cancel()
        await asyncio.gather(leader, return_exceptions=True)
        for port in (NEAR, FAR):
            ports.card.raise_interrupt(port)
        assert await follower == 1
        await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE)
        with pytest.raises(TimeoutError):
            await ports.interrupt.wait_until_async(ports.has(NEAR, 2), ports.serve, 0.05)

    asyncio.run(main())
    assert ports.events == {NEAR: 1, FAR: 1}
    assert not ports.interrupt.pending
