# SPDX-License-Identifier: MIT
"""How many system calls an interrupt costs, counted by the kernel's own tracing."""

from __future__ import annotations

import itertools
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio

TRACING = Path("/sys/kernel/tracing")
# arch/x86/entry/syscalls/syscall_64.tbl
NAMES = {0: "read", 1: "write", 7: "poll", 17: "pread64", 18: "pwrite64", 271: "ppoll"}


def system_calls(work: Callable[[], object], thread: int | None = None) -> list[str]:
    """The system calls made while `work` runs in this thread, or made by another thread, by name or number."""
    if not (TRACING / "events").exists():
        subprocess.run(["mount", "-t", "tracefs", "none", TRACING], check=True)
    event = TRACING / "events/raw_syscalls/sys_enter"
    thread = thread or threading.get_native_id()
    (TRACING / "trace").write_text("")
    (event / "filter").write_text(f"common_pid == {thread}")
    (event / "enable").write_text("1")
    try:
        work()
    finally:
        (event / "enable").write_text("0")
    numbers = [int(number) for number in re.findall(r"sys_enter: NR (\d+)", (TRACING / "trace").read_text())]
    # What switching the tracing on and off takes: the rest of the first write and file, the second file.
    return [NAMES.get(number, str(number)) for number in numbers]


def between(calls: list[str], control: list[str]) -> list[str]:
    """What `calls` has more than `control`, which is the same with nothing done."""
    start = next(index for index, (a, b) in enumerate(zip(calls, control, strict=False)) if a != b)
    return calls[start : len(calls) - (len(control) - start)]


@pytest.fixture
def control() -> list[str]:
    system_calls(lambda: None)
    return system_calls(lambda: None)


def test_the_control_sees_what_is_done(control: list[str], edu: str) -> None:
    path = Path("/sys/bus/pci/devices", edu, "config")
    with path.open("rb", buffering=0) as file:
        assert between(system_calls(lambda: file.read(4)), control) == ["read"]


def test_one_call_after_waking_and_one_write_to_unmask(device: pyuio.Device, control: list[str]) -> None:
    """Pending at the card, masked: look, unmask, sleep, take."""
    card = Edu(device)
    interrupt = device.interrupt
    for _ in range(3):
        card.raise_interrupt()
        assert between(system_calls(interrupt.read), control) == ["read", "pwrite64", "ppoll", "read"]
        card.acknowledge()


def test_no_write_when_it_is_unmasked_already(device: pyuio.Device, control: list[str]) -> None:
    card = Edu(device)
    with pytest.raises(BlockingIOError):
        device.interrupt.read(0)
    threading.Timer(0.2, card.raise_interrupt).start()
    calls = [call for call in between(system_calls(device.interrupt.read), control) if call in NAMES.values()]
    # It looks for signals after 0.25 s, and sleeps again.
    assert calls == ["read"] + ["ppoll", "read"] * (len(calls) // 2)
    assert len(calls) > 1
    card.acknowledge()


def test_one_call_for_what_is_pending(device: pyuio.Device, control: list[str]) -> None:
    card = Edu(device)
    card.raise_interrupt()
    assert device.interrupt.poll(5)
    assert between(system_calls(device.interrupt.read), control) == ["read"]
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

        # Not more often: kernel code that is patched, as tracing does, amid interrupts without end can stop an
        # emulated machine (docs/findings.md).
        work()
        calls = system_calls(work, thread.native_id)
    # What tells Python that there are events is a write, too.
    assert calls.count("write") <= number
    calls = [call for call in calls if call != "write"]
    assert set(calls) == {"pwrite64", "read"}
    assert 2 * number - 2 <= len(calls) <= 2 * number + 2
    assert all(one != other for one, other in itertools.pairwise(calls))
