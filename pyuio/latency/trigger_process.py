# SPDX-License-Identifier: MIT
"""A process on another CPU that triggers a card's interrupt and records the times."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from pyuio.dma.allocator import dma_wmb
from pyuio.driver import Driver
from pyuio.latency.errors import MeasurementError
from pyuio.latency.interrupts import recipe
from pyuio.region.memory import Region

_LAST_WAIT = 3.0  # seconds that an interrupt may take to be handled; it is lost after that
_END_LIMIT = 5.0  # seconds


@dataclass
class Triggered:
    """The record of one turn; times are CLOCK_MONOTONIC in ns.

    Attributes:
        due: when each interrupt came due: right before `raised`, or while the one before was still being handled.
        raised: right before each call of trigger().
        took: how long each call took.
    """

    due: list[int] = field(default_factory=list)
    raised: list[int] = field(default_factory=list)
    took: list[int] = field(default_factory=list)


class TriggerProcess:
    """A forked process that calls trigger(). As it is forked, it can use the open card. It ends with this process.

    Args:
        card: the card whose trigger() it calls.
        done: shared memory. The process clears the first 32 bits before each call, and the handler of the interrupt
            sets them to 1.
        cpu: the CPU that it runs on.
        priority: for SCHED_FIFO, 1 to 99; 0 for ordinary scheduling.
    """

    def __init__(self, card: Driver, done: Region, cpu: int, priority: int) -> None:
        card.device.let_children_access()
        fork = multiprocessing.get_context("fork")
        self._connection, theirs = fork.Pipe()
        arguments = (card, done, cpu, priority, theirs, self._connection)
        self._process = fork.Process(target=_serve, args=arguments, name="trigger", daemon=True)
        self._process.start()
        theirs.close()

    def trigger(self, count: int, interval: int, limit: float) -> Triggered:
        """Have `count` interrupts come due every `interval` ns on average, and trigger them.

        It ends early if an interrupt is not handled within some seconds.

        Raises:
            MeasurementError: trigger() raised an exception, or the process took longer than `limit` seconds, or ended.
        """
        answer: object = None
        try:
            self._connection.send((count, interval))
            if self._connection.poll(limit):
                answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(_END_LIMIT)
            answer = f"it ended with status {self._process.exitcode}"
        if isinstance(answer, Triggered):
            return answer
        raise MeasurementError(f"triggering the interrupt: {answer or f'it took longer than {limit:.0f} s'}")

    def close(self) -> None:
        """End the process. A second call does nothing."""
        self._connection.close()
        self._process.terminate()
        self._process.join(_END_LIMIT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(card: Driver, done: Region, cpu: int, priority: int, connection: Connection, others: Connection) -> None:
    """Serve in the forked process until the other end of `connection` is closed; `others` is its copy of that end."""
    others.close()
    # Ctrl-C is for the measuring process, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with recipe(cpu, priority):
            while True:
                count, interval = connection.recv()
                connection.send(_turn(card, done, count, interval))
    except EOFError:
        pass
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def _turn(card: Driver, done: Region, count: int, interval: int) -> Triggered:
    result = Triggered()
    due, raised, took, now = result.due, result.raised, result.took, time.monotonic_ns
    done.write32(0, 1)
    coming = now()
    while len(due) < count:
        # At irregular times, whether or not the last one has been handled: a slow handler delays none.
        coming += interval // 2 + random.randrange(interval)
        time.sleep(max(0, coming - now()) / 1e9)
        due.append(now())
        held_up = not done.read32(0)
        if held_up:
            coming = _wait(done, due, count, coming, interval)
            if not done.read32(0):
                return result
        done.write32(0, 0)
        dma_wmb()  # the handler of the next interrupt must see it clear
        start = now()
        if not held_up:
            due[-1] = start
        card.trigger()
        raised.append(start)
        took.append(now() - start)
    _wait(done, due, count, coming, interval)
    return result


def _wait(done: Region, due: list[int], count: int, coming: int, interval: int) -> int:
    """Wait until the interrupt is handled, note what comes due meanwhile, and return the time planned for the last."""
    deadline = time.monotonic_ns() + int(_LAST_WAIT * 1e9)
    following = coming + interval // 2 + random.randrange(interval)
    while not done.read32(0):
        now = time.monotonic_ns()
        if now >= following and len(due) < count:
            due.append(now)
            coming, following = following, following + interval // 2 + random.randrange(interval)
        if now > deadline:
            break
    return coming
