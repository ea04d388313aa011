# SPDX-License-Identifier: MIT
"""Events of cards that appear and disappear: sysfs removes an edu card and finds it again, many times."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pyudev

import pyuio
from pyuio.pci.discovery import FoundDevice
from tests.guest.support import EDU, XHCI, Cards, Later, wait_until

RESCAN = Path("/sys/bus/pci/rescan")


def settle() -> None:
    """Wait until udev has told of all that happened: on a busy machine it takes seconds."""
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)


@pytest.fixture
def edu(cards: Cards) -> Iterator[str]:
    """The address of an edu card; the fixture makes it present again afterwards."""
    address = cards(EDU)[0]
    yield address
    RESCAN.write_text("1")
    assert Path("/sys/bus/pci/devices", address).exists()
    settle()  # or the next test would still be told of it


def remove(address: str) -> None:
    Path("/sys/bus/pci/devices", address, "remove").write_text("1")


def test_it_tells_of_a_card_that_goes_and_comes(edu: str) -> None:
    with pyuio.Hotplug() as hotplug:
        remove(edu)
        went = hotplug.read(timeout=10)
        assert went.device is not None
        assert (went.action, went.device.address, went.device.ids) == ("remove", edu, EDU)
        assert went.device.class_code == 0x00FF00
        assert str(went) == f"remove {edu} {EDU}"
        RESCAN.write_text("1")
        came = hotplug.read(timeout=10)
        assert came.action == "add"
        assert came.device == next(device for device in pyuio.devices() if device.address == edu)
        with pytest.raises(pyuio.WouldBlockError):
            hotplug.read(timeout=0)


@pytest.mark.parametrize("rounds", [2, pytest.param(6, marks=pytest.mark.long)])
def test_a_card_that_came_can_be_opened_at_once(edu: str, rounds: int) -> None:
    with pyuio.Hotplug(EDU) as hotplug:
        for _ in range(rounds):
            with pyuio.open(edu, bind=True) as device:
                remove(edu)
                with pytest.raises(pyuio.DeviceRemovedError):
                    device.interrupt.read(timeout=10)
            assert hotplug.read(timeout=10).action == "remove"
            RESCAN.write_text("1")
            event = hotplug.read(timeout=10)
            assert event.action == "add"
            assert event.device is not None
            with pyuio.open(event.device, bind=True) as device:
                assert device.bar(0).read32(0) & 0xFFFF == 0x00ED


def test_only_the_ids_asked_for(edu: str) -> None:
    with pyuio.Hotplug(XHCI) as others, pyuio.Hotplug(["1234:11E8", XHCI]) as both:
        remove(edu)
        assert both.read(timeout=10).action == "remove"
        with pytest.raises(pyuio.DeviceTimeoutError):
            others.read(timeout=0.2)


def test_iterating_ends_when_nothing_comes_any_more(edu: str) -> None:
    with pyuio.Hotplug(EDU) as hotplug:
        remove(edu)
        RESCAN.write_text("1")
        settle()
        assert [event.action for event in hotplug.events(timeout=0.1)] == ["remove", "add"]


def test_a_function_is_called(edu: str) -> None:
    seen: queue.Queue[pyuio.HotplugEvent] = queue.Queue()
    with pyuio.Hotplug(EDU) as hotplug:
        hotplug.call(seen.put)
        remove(edu)
        assert seen.get(timeout=10).action == "remove"
    wait_until(lambda: not any(thread.name == "pyuio hotplug" for thread in threading.enumerate()))


def test_asyncio(edu: str) -> None:
    async def watch() -> list[str]:
        with pyuio.Hotplug(EDU) as hotplug:
            with pytest.raises(pyuio.DeviceTimeoutError):
                await hotplug.read_async(timeout=0.05)
            loop = asyncio.get_running_loop()
            loop.call_soon(remove, edu)
            seen: list[str] = []
            async for event in hotplug:
                seen.append(event.action)
                if event.action == "remove":
                    loop.run_in_executor(None, RESCAN.write_text, "1")
                else:
                    loop.call_later(0.05, hotplug.close)
            return seen

    assert asyncio.run(asyncio.wait_for(watch(), 30)) == ["remove", "add"]


def test_an_overflow_is_told_once_and_later_events_come(edu: str) -> None:
    """Four ways to read, each with a queue of its own that had no room for a burst of events."""
    expected = ["lost", "remove", "add"]
    called: queue.Queue[pyuio.HotplugEvent] = queue.Queue()

    def burst() -> None:
        for _ in range(10):
            Path("/sys/bus/pci/devices", edu, "uevent").write_text("change")
        settle()

    def come_and_go() -> None:
        remove(edu)
        RESCAN.write_text("1")

    async def watch(hotplug: pyuio.Hotplug) -> list[str]:
        seen: list[str] = [(await hotplug.read_async(timeout=10)).action]
        with pytest.raises(pyuio.WouldBlockError):
            await hotplug.read_async(timeout=0)
        come_and_go()
        async for event in hotplug:
            seen.append(event.action)
            if event.action == "add":
                return seen
        return seen

    with contextlib.ExitStack() as stack:
        read, iterated, awaited, told = (stack.enter_context(pyuio.Hotplug(EDU)) for _ in range(4))
        for hotplug in (read, iterated, awaited, told):
            # The smallest queue that the kernel admits holds one or two of these events.
            hotplug._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        burst()
        for hotplug in (read, iterated, awaited, told):
            hotplug._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        assert str(read.read(timeout=10)) == "lost: events were dropped; pyuio.devices() tells what there is now"
        with pytest.raises(pyuio.WouldBlockError):
            read.read(timeout=0)
        told.call(called.put)
        assert called.get(timeout=10).action == "lost"
        assert [event.action for event in iterated.events(timeout=0.1)] == ["lost"]
        assert asyncio.run(asyncio.wait_for(watch(awaited), 30)) == expected
        assert [event.action for event in iterated.events(timeout=0.1)] == expected[1:]
        assert [called.get(timeout=10).action for _ in range(2)] == expected[1:]
        assert [read.read(timeout=10).action for _ in range(2)] == expected[1:]


def test_a_function_that_goes_while_it_is_listed(edu: str) -> None:
    listed = {device.sys_name: device for device in pyudev.Context().list_devices(subsystem="pci")}
    remove(edu)
    with pytest.raises(pyuio.DeviceRemovedError, match=f"{edu} is gone"):
        FoundDevice.from_udev(listed[edu])


def test_close_ends_a_wait(later: Later) -> None:
    hotplug = pyuio.Hotplug("ffff:ffff")
    ended: queue.Queue[BaseException] = queue.Queue()

    def wait() -> None:
        try:
            hotplug.read()
        except pyuio.ClosedError as error:
            ended.put(error)

    later(wait)
    with pytest.raises(queue.Empty):
        ended.get(timeout=0.2)
    hotplug.close()
    assert isinstance(ended.get(timeout=10), pyuio.ClosedError)
    assert list(hotplug) == []
    with pytest.raises(pyuio.ClosedError):
        hotplug.call(print)


def test_nothing_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, of names that go meanwhile

    gc.collect()  # collect what other tests left behind
    before = descriptors()
    kept = [pyuio.Hotplug(EDU) for _ in range(5)]
    assert descriptors() > before
    for hotplug in kept:
        hotplug.close()
        hotplug.close()
    assert descriptors() == before


def test_what_has_not_the_form_of_ids_is_refused() -> None:
    for wrong in ("edu", "00:01.0", ["1234:11e8", ""]):
        with pytest.raises(ValueError, match="no id pair"):
            pyuio.Hotplug(wrong)
