# SPDX-License-Identifier: MIT
"""A child that is forked from a driver can neither use, nor free, nor keep its parent's things, and errors say so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding
from pyuio.dma.allocator import ALL_ADDRESSES
from pyuio.kernel.drivers import VFIO_PCI, bound_driver
from pyuio.kernel.hugepages import hugepages
from pyuio.pci import Command
from tests.guest.support import (
    BUS_MASTER,
    DRIVER,
    EDU,
    PATIENCE,
    PCI_SERIAL,
    PCI_TESTDEV,
    PROGRAM_LIMIT,
    Cards,
    Later,
    command_register,
    wait_until,
)

Uses = dict[str, Callable[[], object]]


def answers(uses: Uses) -> dict[str, str]:
    """Return the result or the error of each of these uses in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)  # ends a child that blocks
            told = {}
            for name, use in uses.items():
                try:
                    told[name] = f"returned {use()!r}"
                except BaseException as error:
                    told[name] = f"{type(error).__name__}: {error}"
            os.write(writing, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    told = json.loads(text)
    assert list(told) == list(uses)
    return dict(told)


def enter(thing: contextlib.AbstractContextManager[object]) -> None:
    with thing:
        pass


def test_a_child_can_use_nothing_and_end_nothing(cards: Cards, later: Later) -> None:
    """Meanwhile threads of the parent wait for an interrupt, for events of a service, and for hotplug events."""
    first, second = cards(EDU)[:2]
    (other,) = cards(PCI_TESTDEV)
    counts: list[int] = []
    events: list[pyuio.Event] = []
    came: list[pyuio.HotplugEvent] = []
    with (
        Edu.open(first) as card,
        Edu.open(second) as served,
        pyuio.Service(served.device.interrupt, served.acknowledge_program()) as service,
        pyuio.Hotplug() as hotplug,
        pyuio.realtime(heap=0, freeze_garbage=False) as tuned,
    ):
        device, bar = card.device, card.bar
        config, interrupt, dma = device.config, device.interrupt, device.dma
        buffer, pool = dma.alloc(4096, mask=ALL_ADDRESSES), dma.pool(2, 64, mask=ALL_ADDRESSES)  # no transfer uses them
        buffer[:4] = b"mine"
        reader = later(lambda: counts.append(interrupt.read()))
        later(lambda: events.extend(service.read()))
        later(lambda: came.append(hotplug.read()))
        wait_until(lambda: not interrupt.masked)
        before = [command_register(address) for address in (first, second)]
        things: dict[str, object] = {
            "device": device,
            "config": config,
            "interrupt": interrupt,
            "dma": dma,
            "bar": bar,
            "buffer": buffer,
            "pool": pool,
            "service": service,
            "hotplug": hotplug,
            "tuned": tuned,
            "card": card,
        }
        theirs: Uses = {
            "device.config": lambda: device.config,
            "device.interrupt": lambda: device.interrupt,
            "device.dma": lambda: device.dma,
            "device.bar": lambda: device.bar(0),
            "device.irq": lambda: device.irq,
            "device, entered": lambda: enter(device),
            "config.read32": lambda: config.read32(0),
            "config.bars": config.bars,
            "config.fileno": config.fileno,
            "config.change_command": lambda: config.change_command(clear=Command.BUS_MASTER),
            "interrupt.read": interrupt.read,
            "interrupt.read now": lambda: interrupt.read(0),
            "interrupt.readinto": lambda: interrupt.readinto(bytearray(4)),
            "interrupt.read_async": lambda: asyncio.run(interrupt.read_async()),
            "interrupt.poll": lambda: interrupt.poll(None),
            "interrupt.pending": lambda: interrupt.pending,
            "interrupt.masked": lambda: interrupt.masked,
            "interrupt.mask": interrupt.mask,
            "interrupt.unmask": interrupt.unmask,
            "interrupt.fileno": interrupt.fileno,
            "interrupt, entered": lambda: enter(interrupt),
            "wait": lambda: pyuio.wait([interrupt]),
            "a service": lambda: pyuio.Service(interrupt),
            "dma.alloc": lambda: dma.alloc(64),
            "dma.pool": lambda: dma.pool(1, 64),
            "buffer[0]": lambda: buffer[0],
            "buffer[0] = 0": lambda: buffer.__setitem__(0, 0),
            "buffer.address": lambda: buffer.address,
            "buffer.registers": lambda: buffer.registers,
            "buffer.verify": buffer.verify,
            "memoryview": lambda: memoryview(buffer),
            "from the pool": lambda: pool.take()[0],
            "service.read": service.read,
            "service.fileno": service.fileno,
            "hotplug.read": hotplug.read,
            "hotplug.read_async": lambda: asyncio.run(hotplug.read_async()),
        }
        harmless: Uses = {
            "registers": lambda: bar.read32(0) & 0xFFFF,
            "counters": lambda: service.counters,
            "report": lambda: tuned.missing,
            "descriptions": lambda: all(map(repr, things.values())),
            "service.stop": service.stop,
            "card.close": card.close,
            "service.close": service.close,
            "interrupt.close": interrupt.close,
            "buffer.close": buffer.close,
            "pool.close": pool.close,
            "dma.close": dma.close,
            "config.close": config.close,
            "device.close": device.close,
            "hotplug.close": hotplug.close,
            "tuned.close": tuned.close,
            "bar.close": bar.close,
        }
        returned = {"registers": 0xED, "counters": {}, "report": (), "descriptions": True}
        told = answers({**theirs, "open": lambda: pyuio.open(first), **harmless})
        if DRIVER == VFIO_PCI:  # the kernel would not give the card back while a child maps its BAR
            assert told["registers"].startswith("ClosedError: ")
            told["registers"] = f"returned {returned['registers']}"
        for name in theirs:
            assert told[name].startswith("ClosedError: "), (name, told[name])
            assert "the process that this one was forked from" in told[name], (name, told[name])
        assert told.pop("open").startswith("DeviceBusyError: ")
        for name in harmless:
            assert told[name] == f"returned {returned.get(name)}", name
        for thing in things.values():  # as multiprocessing does for a process that it spawns
            with pytest.raises(TypeError, match=r"cannot.*pickle"):
                ForkingPickler.dumps(thing)

        assert [command_register(address) for address in (first, second)] == before
        assert before[0] & BUS_MASTER
        assert reader.is_alive()
        assert bytes(buffer[:4]) == b"mine"
        assert not select.select([hotplug._wake], [], [], 0)[0]  # otherwise waiting threads would never sleep again
        card.raise_interrupt()
        reader.join(PATIENCE)
        assert counts == [1]
        card.acknowledge()
        served.raise_interrupt(8)
        wait_until(lambda: bool(events))
        assert events[0].values == {"status": 8}
        Path("/sys/bus/pci/devices", other, "remove").write_text("1")
        wait_until(lambda: bool(came))
        Path("/sys/bus/pci/rescan").write_text("1")
        assert str(came[0]).startswith(f"remove {other} ")
        assert tuned.missing == ()
        assert os.sched_getscheduler(0) & os.SCHED_FIFO
    assert bound_driver(first) is None


ENDINGS = """if True:
    import contextlib, gc, multiprocessing, os, sys
    import pyuio
    from pyuio.kernel.drivers import bound_driver
    from pyuio.dma import ALL_ADDRESSES
    from pyuio_drivers.edu import Edu
    from tests.guest.support import DRIVER, command_register

    address = sys.argv[1]
    card = Edu.open(address)
    interrupt, buffer = card.device.interrupt, card.device.dma.alloc(4096, mask=ALL_ADDRESSES)
    buffer[:4] = b"mine"
    service_card = Edu.open(sys.argv[2])
    service = pyuio.Service(service_card.device.interrupt, service_card.acknowledge_program())
    hotplug = pyuio.Hotplug()
    tuned = pyuio.realtime(heap=0, freeze_garbage=False)
    interrupt.unmask()
    blocks = contextlib.ExitStack()  # as in so many "with", which the parent does not leave
    for thing in (card, service_card, service, hotplug, tuned, interrupt, buffer):
        blocks.push(thing)

    def fail():
        raise RuntimeError("as it should")

    before = command_register(address)
    for how in sys.argv[3:]:
        if how in ("multiprocessing", "failing"):
            target = fail if how == "failing" else gc.collect
            process = multiprocessing.get_context("fork").Process(target=target)
            process.start()
            process.join()
            status = process.exitcode
        else:
            child = os.fork()
            if child == 0:
                if how == "exception":
                    fail()
                if how == "os._exit":
                    os._exit(0)
                if how == "collected":
                    del card, interrupt, buffer, service_card, service, hotplug, tuned, blocks, thing
                    gc.collect()
                if how == "with":
                    with blocks:
                        sys.exit()
                sys.exit()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == (how in ("exception", "failing")), (how, status)
        assert command_register(address) == before, how
        assert bytes(buffer[:4]) == b"mine"
        assert bound_driver(address) == DRIVER
        assert os.sched_getscheduler(0) & os.SCHED_FIFO
    card.raise_interrupt()
    assert interrupt.read(5) == 1
    card.acknowledge()
    service_card.raise_interrupt(4)
    assert service.read(5)[0].values == {"status": 4}
    for thing in (tuned, hotplug, service, service_card, card):
        thing.close()
    print("all is well")
"""


@pytest.mark.long  # the child of the first test ends in one of these ways
@pytest.mark.parametrize(
    "ways", [["exception", "with", "multiprocessing"], ["sys.exit", "os._exit", "collected", "failing"]]
)
def test_whatever_way_a_child_ends(cards: Cards, ways: list[str]) -> None:
    """The children fork at the top level of a program, so that their interpreters end as in real programs."""
    first, second = cards(EDU)[:2]
    done = subprocess.run(
        [sys.executable, "-c", ENDINGS, first, second, *ways],
        capture_output=True,
        text=True,
        timeout=PROGRAM_LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr
    assert done.stderr.count("RuntimeError: as it should") == 1
    assert bound_driver(first) is None


def test_a_child_keeps_nothing_when_its_parent_is_killed(edu: str) -> None:
    """Bus mastering ends, and the lock and the memory are free, although a child of the killed driver lives on."""
    undo = binding.bind(edu, DRIVER)
    hugepages()[0].change(1)
    before = (hugepages()[0].total, hugepages()[0].free)
    told, tell = os.pipe()
    waits, go = os.pipe()
    try:
        driver = os.fork()
        if driver == 0:
            try:
                os.close(go)
                card = Edu.open(edu)
                place = card.device.dma.alloc(4096, mask=ALL_ADDRESSES).page
                if os.fork() == 0:
                    os.write(tell, b"y" if place.size > mmap.PAGESIZE else b"n")
                    os.read(waits, 1)  # returns when the test closes the other end
                else:
                    signal.pause()
            finally:
                os._exit(0)
        assert os.read(told, 1) == b"y"
        assert command_register(edu) & BUS_MASTER
        assert ((hugepages()[0].total, hugepages()[0].free) != before) == (DRIVER != VFIO_PCI)
        os.kill(driver, signal.SIGKILL)
        os.waitpid(driver, 0)
        assert not command_register(edu) & BUS_MASTER
        assert (hugepages()[0].total, hugepages()[0].free) == before
        with Edu.open(edu) as card:
            assert card.device.interrupt.masked
            assert card.liveness(5) == 5 ^ 0xFFFFFFFF
    finally:
        for end in (told, tell, waits, go):
            os.close(end)
        hugepages()[0].change(-1)
        undo.undo()


def fork_among_threads(cards: Cards, seconds: float) -> int:
    """Fork while threads are in the middle of their work; no child may wait for a thread that it does not have."""
    stop = threading.Event()
    failures: list[BaseException] = []
    with (
        pyuio.open(cards(EDU)[0], bind=True) as device,
        pyuio.open(cards(PCI_SERIAL)[0], bind=True) as serial,
        pyuio.Hotplug() as hotplug,
    ):
        ports, bar, config, interrupt, dma = serial.bar(0), device.bar(0), device.config, device.interrupt, device.dma

        def port() -> None:
            ports.update8(7, 0xFF, random.randrange(256))

        def nothing_comes() -> None:
            with contextlib.suppress(BlockingIOError):
                hotplug.read(0)

        work: Uses = {
            "ports": port,
            "config": lambda: config.read(0, 64),
            "command": lambda: config.change_command(set=Command.MEMORY_SPACE),
            "mask": interrupt.mask,
            "unmask": interrupt.unmask,
            "poll": lambda: interrupt.poll(0.001),
            "dma": lambda: dma.alloc(64).close(),
            "bar": lambda: device.bar(0),
            "hotplug": nothing_comes,
        }

        def loop(use: Callable[[], object]) -> None:
            try:
                while not stop.is_set():
                    use()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=loop, args=(use,)) for use in work.values()]
        for thread in threads:
            thread.start()
        children = 0
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end and not failures:
                told = answers({**work, "registers": lambda: bar.read32(0) & 0xFFFF, "close": device.close})
                ports_answer = told.pop("ports")
                assert (
                    ports_answer.startswith("ClosedError: ") if DRIVER == VFIO_PCI else ports_answer == "returned None"
                )
                registers = told.pop("registers")
                assert registers.startswith("ClosedError: ") if DRIVER == VFIO_PCI else registers == "returned 237"
                assert told.pop("close") == "returned None"
                assert all(answer.startswith("ClosedError: ") for answer in told.values()), told
                children += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert failures == []
        assert not any(thread.is_alive() for thread in threads)
    return children


def test_fork_among_threads(cards: Cards) -> None:
    assert fork_among_threads(cards, 0.7) > 0


@pytest.mark.long
def test_fork_among_threads_for_a_minute(cards: Cards) -> None:
    print(fork_among_threads(cards, 60), "children")
