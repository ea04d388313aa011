# SPDX-License-Identifier: MIT
from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.interrupt import Interrupt
from pyuio.kernel.drivers import bound_driver
from pyuio.kernel.sysfs import PCI_DRIVERS
from tests.guest.support import DRIVER, PATIENCE, kernel_agrees, kernel_count, wait_until

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=pytest.mark.long)])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a loop of its own, and fails when it does not end."""
    new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(main: Coroutine[Any, Any, None]) -> None:
        loop = new_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(main, 60))
        finally:
            loop.close()

    return run


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def interrupt(device: pyuio.Device) -> Interrupt:
    return device.interrupt


def test_read_async_returns_the_count(run: Run, card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        for _ in range(20):
            reading = asyncio.ensure_future(interrupt.read_async())
            await asyncio.sleep(0)
            card.raise_interrupt()
            assert await reading == 1
            card.acknowledge()

    run(main())
    assert interrupt.total == 20


def test_async_for(run: Run, card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        card.raise_interrupt()
        seen = 0
        async for count in interrupt:
            seen += count
            card.acknowledge()
            if seen == 20:
                break
            card.raise_interrupt()

    run(main())
    assert interrupt.total == 20


def test_other_tasks_run_meanwhile(run: Run, card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            for _ in range(10):
                await asyncio.sleep(0.005)
                ticks += 1
            card.raise_interrupt()

        ticking = asyncio.ensure_future(tick())
        assert await interrupt.read_async() == 1
        assert ticks == 10
        await ticking
        card.acknowledge()

    run(main())


def test_a_timeout(run: Run, card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        for timeout, message in ((0, "no interrupt is pending"), (0.02, "no interrupt came within")):
            with pytest.raises(pyuio.DeviceTimeoutError, match=f"{interrupt.name}: {message}") as caught:
                await interrupt.read_async(timeout)
            assert isinstance(caught.value, BlockingIOError) == (timeout == 0)
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match="0 or more seconds"):
                await interrupt.read_async(wrong)
        card.raise_interrupt()
        assert await interrupt.read_async(5) == 1
        card.acknowledge()

    run(main())


@pytest.mark.parametrize("run", ["asyncio", "uvloop"], indirect=True)
def test_cancelling_loses_nothing_and_leaves_nothing_behind(run: Run, card: Edu, interrupt: Interrupt) -> None:
    """An interrupted wait must neither swallow the interrupt nor leave a callback that doubles the next one."""

    async def main() -> None:
        before, counted = descriptors(), kernel_count(card.device)
        for number in range(50):
            waiting = asyncio.ensure_future(interrupt.read_async())
            await asyncio.sleep(0)
            if number % 2:
                card.raise_interrupt()
                wait_until(lambda: interrupt.pending)
                if number % 4 == 1:
                    await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                card.acknowledge()
                assert await waiting == 1
                continue
            assert descriptors() == before, "the loop still watches for the interrupt"
            if number % 2:
                assert await interrupt.read_async(5) == 1
                card.acknowledge()
            else:
                assert not interrupt.pending
        card.raise_interrupt()
        assert await interrupt.read_async(5) == 1
        card.acknowledge()
        assert interrupt.total == 26
        assert kernel_agrees(card.device, counted, 26)

    run(main())


def test_cancelling_a_wait_with_a_timeout_ends_it(run: Run, card: Edu, interrupt: Interrupt) -> None:
    """Also when the interrupt and the cancellation come together, at any distance of a few turns of the loop."""

    async def main() -> None:
        async def forever() -> None:
            while True:
                await interrupt.read_async(5)
                card.acknowledge()

        for turns in range(6):
            task = asyncio.ensure_future(forever())
            await asyncio.sleep(0.01)
            card.raise_interrupt()
            wait_until(lambda: interrupt.pending)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait({task}, timeout=5)
            assert task in done
            assert task.cancelled()
            card.acknowledge()
            if interrupt.pending:
                interrupt.read(0)

    run(main())


def test_several_tasks_each_interrupt_once(run: Run, card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        counts: list[int] = []

        async def consume() -> None:
            async for count in interrupt:
                card.acknowledge()
                counts.append(count)

        tasks = [asyncio.ensure_future(consume()) for _ in range(5)]
        for number in range(1, 51):
            await asyncio.sleep(0)
            card.raise_interrupt()
            while sum(counts) < number:
                await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(counts) == 50

    run(main())


def test_closing_ends_the_waits(run: Run, device: pyuio.Device, interrupt: Interrupt) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(interrupt.read_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        device.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [pyuio.ClosedError] * 3
        with pytest.raises(pyuio.ClosedError):
            await interrupt.read_async()

    run(main())


def test_closing_from_another_thread_ends_the_waits(run: Run, edu: str) -> None:
    device = pyuio.open(edu, bind=True)

    async def main() -> None:
        tasks = [asyncio.ensure_future(device.interrupt.read_async()) for _ in range(3)]
        await asyncio.sleep(0.02)
        closing = threading.Thread(target=device.close)
        closing.start()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        device.close()  # returns when the other thread is done with it
        assert bound_driver(edu) is None
        closing.join(PATIENCE)
        assert [type(result) for result in results] == [pyuio.ClosedError] * 3

    run(main())


def test_unbinding_ends_the_wait(run: Run, edu: str) -> None:
    device = pyuio.open(edu, bind=True)

    async def main() -> None:
        waiting = asyncio.ensure_future(device.interrupt.read_async())
        await asyncio.sleep(0.02)
        (PCI_DRIVERS / DRIVER / "unbind").write_text(edu)
        with pytest.raises(pyuio.DeviceRemovedError):
            await waiting

    run(main())
    device.close()


def test_two_loops_in_two_threads(card: Edu, interrupt: Interrupt) -> None:
    taken: list[int] = []
    enough = threading.Event()
    counted = kernel_count(card.device)

    def consume() -> None:
        async def main() -> None:
            while not enough.is_set():
                with contextlib.suppress(TimeoutError):
                    taken.append(await interrupt.read_async(0.05))
                    card.acknowledge()

        asyncio.run(main())

    threads = [threading.Thread(target=consume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        before = sum(taken)
        while sum(taken) == before:
            card.raise_interrupt()  # again, because a thread may just acknowledge this one with one that it had taken
            time.sleep(0)
    enough.set()
    for thread in threads:
        thread.join(PATIENCE)
    card.acknowledge()
    while interrupt.pending:
        taken.append(interrupt.read(0))
    # With two waiting, one that is not acknowledged yet may fire for the other: nothing is lost, and nothing invented.
    assert sum(taken) >= 30
    assert kernel_agrees(card.device, counted, sum(taken))
