# SPDX-License-Identifier: MIT
"""Events during a wait for an interrupt, and events that end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding
from pyuio.interrupt import Interrupt
from pyuio.kernel.sysfs import PCI_DRIVERS
from tests.guest.masking.conftest import VFIO_KINDS, driver_of
from tests.guest.support import PATIENCE, Later, forked, kernel_agrees, kernel_count, write_in_a_fork


def test_a_signal_handler_runs_and_the_wait_goes_on(card: Edu, interrupt: Interrupt) -> None:
    waits: list[Callable[[], object]] = [
        lambda: interrupt.read(20),
        lambda: interrupt.poll(20),
        lambda: pyuio.wait([interrupt], 20),
    ]
    for wait in waits:
        handled: list[int] = []

        def handler(number: int, frame: object, handled: list[int] = handled) -> None:
            handled.append(number)
            if len(handled) == 3:
                signal.setitimer(signal.ITIMER_REAL, 0)
                card.raise_interrupt()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            assert wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(handled) >= 3  # on a busy machine one more was sent before the timer was off
        card.acknowledge()
        if interrupt.pending:
            interrupt.read(0)


def test_a_signal_handler_that_raises_ends_the_wait(card: Edu, interrupt: Interrupt) -> None:
    class Enough(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for wait in (interrupt.read, lambda: interrupt.poll(None), lambda: pyuio.wait([interrupt])):
            with pytest.raises(Enough):  # noqa: PT012  (the timer may fire before the wait begins)
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    card.raise_interrupt()
    assert interrupt.read(5) == 1
    card.acknowledge()


def test_ctrl_c_ends_the_wait(interrupt: Interrupt) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (the timer may fire before the wait begins)
            timer.start()
            interrupt.read()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def wait_how(how: str, interrupt: Interrupt) -> object:
    """Wait for ever, in one of four ways."""
    if how == "service":
        with pyuio.Service(interrupt) as service:
            return service.read()
    if how == "read":
        return interrupt.read()
    return interrupt.poll(None) if how == "poll" else pyuio.wait([interrupt])


@pytest.mark.parametrize("how", ["read", "poll", "wait", "service"])
def test_a_signal_that_wakes_nobody_ends_the_wait(interrupt: Interrupt, later: Later, how: str) -> None:
    """The kernel gives the signal to a thread that does not wait; a signal just before the wait is like this."""

    def take_the_signal() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        later(take_the_signal)
        with pytest.raises(KeyboardInterrupt):
            wait_how(how, interrupt)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        signal.signal(signal.SIGINT, before)


def test_unmasked_as_long_as_any_thread_waits(card: Edu, interrupt: Interrupt, later: Later) -> None:
    """Several threads wait, each for one interrupt: none sleeps on with the line masked when another took one."""
    taken: list[int] = []
    before = kernel_count(card.device)
    for how in ("read", "wait"):

        def take(how: str = how) -> None:
            if how == "wait":
                pyuio.wait([interrupt])
            taken.append(interrupt.read())

        threads = [later(take) for _ in range(4)]
        while any(thread.is_alive() for thread in threads):
            card.raise_interrupt()
            time.sleep(0.01)
            card.acknowledge()
        with contextlib.suppress(BlockingIOError):  # one interrupt may be left over
            taken.append(interrupt.read(0))
    assert sum(taken) == interrupt.total
    assert kernel_agrees(card.device, before, interrupt.total)


def test_asyncio_works(card: Edu, interrupt: Interrupt) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await interrupt.read_async(0.01)
        card.raise_interrupt()
        seen = 0
        async for count in interrupt:
            card.acknowledge()
            seen += count
            if seen == 20:
                break
            card.raise_interrupt()
        waiting = asyncio.ensure_future(interrupt.read_async())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert interrupt.total == 20


@pytest.mark.parametrize("how", ["read", "poll", "wait"])
def test_close_from_another_thread_ends_the_wait(
    bound: str, opened: Callable[[], pyuio.Device], later: Later, how: str
) -> None:
    device = opened()
    interrupt = device.interrupt
    ended: list[BaseException] = []

    def run() -> None:
        try:
            wait_how(how, interrupt)
        except pyuio.ClosedError as error:
            ended.append(error)

    threads = [later(run) for _ in range(3)]
    time.sleep(0.1)
    device.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(ended) == 3
    pyuio.open(bound).close()


@pytest.mark.parametrize("how", ["read", "poll", "wait"])
def test_a_handler_that_closes_ends_the_wait(bound: str, opened: Callable[[], pyuio.Device], how: str) -> None:
    device = opened()

    def handler(number: int, frame: object) -> None:
        device.close()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(pyuio.ClosedError):
            wait_how(how, device.interrupt)
    finally:
        signal.signal(signal.SIGALRM, before)


# tests/vm/test_removal.py has every wait at every end, too, on UIO.
SHORT = {("unbind", "read"), ("unbind", "wait"), ("remove", "poll")}


@pytest.mark.parametrize(
    ("end", "how"),
    [
        pytest.param(end, how, marks=[] if (end, how) in SHORT else [pytest.mark.long])
        for end in ("unbind", "remove")
        for how in ("read", "poll", "wait")
    ],
)
def test_losing_the_device_ends_the_wait(
    kind: str, edu: str, opened: Callable[[], pyuio.Device], later: Later, how: str, end: str
) -> None:
    driver = driver_of(kind)
    done = binding.bind(edu, driver)
    device = opened()
    interrupt = device.interrupt
    ended: list[BaseException] = []

    def run() -> None:
        try:
            wait_how(how, interrupt)
        except pyuio.DeviceRemovedError as error:
            ended.append(error)

    thread = later(run)
    time.sleep(0.1)
    if end == "unbind":
        write_in_a_fork(PCI_DRIVERS / driver / "unbind", edu)
    else:
        write_in_a_fork(Path("/sys/bus/pci/devices", edu, "remove"), "1")
    thread.join(PATIENCE)
    assert len(ended) == 1
    for _ in range(2):
        with pytest.raises(pyuio.DeviceRemovedError):
            interrupt.read(0)
    if end == "remove":
        for use in (lambda: device.config.vendor_id, device.config.bars, lambda: device.bar(0)):
            with pytest.raises(pyuio.DeviceRemovedError):
                use()
    device.close()
    if end == "unbind":
        done.undo()
    else:
        Path("/sys/bus/pci/rescan").write_text("1")
    with pyuio.open(edu, bind=True) as again:
        card = Edu(again)
        card.raise_interrupt()
        assert again.interrupt.read(5) == 1
        card.acknowledge()


def test_a_descriptor_closed_under_it(kind: str, bound: str) -> None:
    """The test runs in a process of its own, because another file may get the closed descriptor's number."""

    def program() -> None:
        device = pyuio.open(bound)
        os.close(device.interrupt.fileno())
        read, poll = device.interrupt.read, device.interrupt.poll
        if kind in VFIO_KINDS:  # it reads by another descriptor than the one that it gives
            with pytest.raises(BlockingIOError):
                read(0)
        else:
            uses: list[Callable[[], object]] = [read, poll, lambda: read(0)]
            for use in uses:
                with pytest.raises(pyuio.ClosedError, match="closed by something else"):
                    use()
        device.close()
        print("all refused")

    done = forked(program)
    assert done.stdout == "all refused\n", done.stderr
