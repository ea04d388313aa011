# SPDX-License-Identifier: MIT
"""How many system calls an interrupt costs, counted by the kernel's own tracing."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from tests.guest.support import PROCESSOR, Later, wait_until

TRACING = Path("/sys/kernel/tracing")
EVENT = TRACING / "events/raw_syscalls/sys_enter"
# arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h
NAMES = {
    "x86_64": {0: "read", 1: "write", 7: "poll", 17: "pread64", 18: "pwrite64", 110: "getppid", 271: "ppoll"},
    "aarch64": {63: "read", 64: "write", 67: "pread64", 68: "pwrite64", 73: "ppoll", 173: "getppid"},
}[PROCESSOR]


@pytest.fixture(scope="module", autouse=True)
def event() -> Iterator[None]:
    """Have system calls traced whenever tracing is on.

    Once for all tests: to switch an event on or off, the kernel patches its code on all processors, which now and then
    stops an emulated machine (docs/findings.md). Tracing itself is on or off by a flag.
    """
    if not (TRACING / "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "none", TRACING], check=True)
    (TRACING / "tracing_on").write_text("0")
    (EVENT / "enable").write_text("1")
    yield
    (EVENT / "enable").write_text("0")
    (TRACING / "tracing_on").write_text("1")  # as it was


def traced(work: Callable[[], object], thread: int) -> list[str]:
    """The system calls that a thread makes while `work` runs, and while tracing is switched on and off."""
    (TRACING / "trace").write_text("")
    (EVENT / "filter").write_text(f"common_pid == {thread}")
    (TRACING / "tracing_on").write_text("1")
    try:
        work()
    finally:
        (TRACING / "tracing_on").write_text("0")
    numbers = [int(number) for number in re.findall(r"sys_enter: NR (\d+)", (TRACING / "trace").read_text())]
    return [NAMES.get(number, str(number)) for number in numbers]


def system_calls(work: Callable[[], object]) -> list[str]:
    """The system calls that `work` makes in this thread, by name or number."""

    def between_marks() -> None:
        os.getppid()
        work()
        os.getppid()

    calls = traced(between_marks, threading.get_native_id())
    start, end = (index for index, call in enumerate(calls) if call == "getppid")
    return calls[start + 1 : end]


def sleeps_in(thread: int, call: str) -> bool:
    """Whether a thread of this process sleeps in that system call."""
    number = Path(f"/proc/self/task/{thread}/syscall").read_text().split()[0]
    return number.isdigit() and NAMES.get(int(number)) == call


def test_the_trace_sees_what_is_done(edu: str) -> None:
    path = Path("/sys/bus/pci/devices", edu, "config")
    with path.open("rb", buffering=0) as file:
        assert system_calls(lambda: file.read(4)) == ["read"]
    assert system_calls(lambda: None) == []


def test_one_call_after_waking_and_one_write_to_unmask(device: pyuio.Device) -> None:
    """Pending at the card, masked: look, unmask, sleep, take."""
    card = Edu(device)
    interrupt = device.interrupt
    for _ in range(3):
        card.raise_interrupt()
        assert system_calls(interrupt.read) == ["read", "pwrite64", "ppoll", "read"]
        card.acknowledge()


def test_no_write_when_it_is_unmasked_already(device: pyuio.Device, later: Later) -> None:
    card = Edu(device)
    with pytest.raises(BlockingIOError):
        device.interrupt.read(0)
    thread = threading.get_native_id()

    def raise_when_it_sleeps() -> None:
        wait_until(lambda: sleeps_in(thread, "ppoll"))
        card.raise_interrupt()

    later(raise_when_it_sleeps)
    # Two threads wait for each other by other system calls, too.
    calls = [call for call in system_calls(device.interrupt.read) if call in NAMES.values()]
    # It looks for signals after 0.25 s, and sleeps again.
    assert calls == ["read"] + ["ppoll", "read"] * (len(calls) // 2)
    assert len(calls) > 1
    card.acknowledge()


def test_one_call_for_what_is_pending(device: pyuio.Device) -> None:
    card = Edu(device)
    card.raise_interrupt()
    assert device.interrupt.poll(5)
    assert system_calls(device.interrupt.read) == ["read"]
    card.acknowledge()


def test_a_service_reads_as_the_patch_does(device: pyuio.Device) -> None:
    """One write to unmask, one read, and nothing after waking."""
    card = Edu(device)
    number = 100
    with pyuio.Service(device.interrupt, card.acknowledge_program()) as service:
        thread = next(thread for thread in threading.enumerate() if thread.name == f"service of {device.name}")

        def work() -> None:
            for _ in range(number):
                card.raise_interrupt()
                service.read(5)

        assert thread.native_id is not None
        calls = traced(work, thread.native_id)
    # What tells Python that there are events is a write, too.
    assert calls.count("write") <= number
    calls = [call for call in calls if call != "write"]
    assert set(calls) == {"pwrite64", "read"}
    assert 2 * number - 2 <= len(calls) <= 2 * number + 2
    assert all(one != other for one, other in itertools.pairwise(calls))
