# SPDX-License-Identifier: MIT
"""A driver that ends by SIGKILL, by SIGSEGV or by an uncaught exception leaves nothing that obstructs the next one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu, EduRegisters

import pyuio
from pyuio.claim import binding, binding_record
from pyuio.kernel import irq_record
from pyuio.kernel.drivers import VFIO_PCI, bound_driver, load_driver
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.kernel.uio import UioNode
from pyuio.region import Region
from tests.guest.crashing import STAGES, WAYS
from tests.guest.support import (
    BUS_MASTER,
    DRIVER,
    EDU,
    INTERRUPT_DISABLE,
    WITH_IOMMU,
    Cards,
    attribute,
    command_register,
    interrupt_threads,
    let_go,
    set_aside_what_the_card_reaches,
    wait_until,
)

STATUS = {"SIGKILL": -9, "SIGSEGV": -11, "exception": 1}
LATENCY = Path("/dev/cpu_dma_latency")
FIRST_DRIVER = "pci-stub"  # stands for whatever driver the kernel has for a card

Crash = Callable[[str, str], int]


@pytest.fixture(scope="module")
def address(cards: Cards) -> Iterator[str]:
    """The address of an edu card that has a kernel driver; without an IOMMU, one hugepage for all who crash."""
    let_go()
    address = cards(EDU)[0]
    load_driver(FIRST_DRIVER)
    override = PCI_DEVICES / address / "driver_override"
    with contextlib.ExitStack() as stack:
        stack.callback(override.write_text, "\n")
        override.write_text(FIRST_DRIVER)
        Path("/sys/bus/pci/drivers_probe").write_text(address)
        stack.callback((override.parent / "driver/unbind").write_text, address)
        if not WITH_IOMMU:
            with pyuio.open(address, bind=True):
                set_aside_what_the_card_reaches()
            stack.callback(hugepages()[0].change, -1)
        yield address


@pytest.fixture(scope="module")
def crash(address: str) -> Iterator[Crash]:
    """A function that makes a process end in a certain way at a certain stage, and returns the exit status."""
    command = [sys.executable, "-m", "tests.guest.crashing", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        sending, receiving = program.stdin, program.stdout

        def run(way: str, stage: str) -> int:
            print(way, stage, file=sending, flush=True)
            return int(receiving.readline())

        yield run
        sending.close()
    assert program.returncode == 0


def latency() -> bytes:
    with LATENCY.open("rb", buffering=0) as file:
        return file.read(4)


# SIGKILL at the stages that no other test here includes. After SIGSEGV the kernel does what it does after SIGKILL. All
# combinations are in make test-long.
SHORT = {("SIGKILL", "armed"), ("SIGKILL", "service"), ("SIGKILL", "dma")}
COMBINATIONS = [
    pytest.param(way, stage, marks=[] if (way, stage) in SHORT else [pytest.mark.long])
    for way in WAYS
    for stage in STAGES
]


@pytest.mark.parametrize(("way", "stage"), COMBINATIONS)
def test_nothing_is_in_the_way(address: str, crash: Crash, way: str, stage: str) -> None:
    before = (hugepages()[0].total, hugepages()[0].free, latency())
    assert crash(way, stage) == STATUS[way]
    assert not command_register(address) & BUS_MASTER
    assert (hugepages()[0].total, hugepages()[0].free, latency()) == before

    with pyuio.open(address, bind=True) as device:
        assert device.interrupt.masked
        assert command_register(address) & INTERRUPT_DISABLE
        card = Edu(device)
        with pytest.raises(BlockingIOError):
            device.interrupt.read(0)
        card.raise_interrupt()
        assert device.interrupt.read(5) == 1
        card.acknowledge()
        card.to_device(b"as before")
        assert card.from_device(9) == b"as before"
    assert DRIVER == VFIO_PCI or command_register(address) & INTERRUPT_DISABLE

    # An interpreter that ended normally has closed the device, which gave it back.
    closed = way == "exception" and stage != "bound"
    assert bound_driver(address) == (FIRST_DRIVER if closed else DRIVER)
    assert closed or binding.unbind(address).given_back
    assert bound_driver(address) == FIRST_DRIVER
    assert attribute(address, "driver_override") == FIRST_DRIVER
    assert binding_record.load(address) is None


@pytest.mark.uio
def test_an_interrupt_that_comes_before_the_next_driver(address: str, crash: Crash) -> None:
    """Killed while armed, a driver leaves the line unmasked: the kernel's handler masks it at the first interrupt."""
    assert crash("SIGKILL", "armed") == STATUS["SIGKILL"]
    try:
        (node,) = UioNode.of_device(PCI_DEVICES / address)
        before = node.event_count
        assert not command_register(address) & INTERRUPT_DISABLE
        with Region(PCI_DEVICES / address / "resource0", 1 << 20) as bar:
            EduRegisters(bar).raise_interrupt.write(1)  # and nobody acknowledges it
            wait_until(lambda: bool(command_register(address) & INTERRUPT_DISABLE))
        assert node.event_count == before + 1
    finally:
        # Left raised, it would come again when the next test enables the card: on PREEMPT_RT, whose handler is a
        # thread, perhaps after that test's driver was opened.
        with Region(PCI_DEVICES / address / "resource0", 1 << 20) as bar:
            EduRegisters(bar).acknowledge_interrupt.write(0xFFFFFFFF)
        binding.unbind(address)


def line_state(number: int) -> tuple[str, list[tuple[int, int]]]:
    """Return the CPUs of an interrupt, and policy and priority of the threads that handle it, without pyuio."""
    threads = list(interrupt_threads(str(number)).values())
    return Path(f"/proc/irq/{number}/smp_affinity_list").read_text().strip(), threads


@pytest.mark.parametrize("by", ["realtime", "unbind"])
def test_what_real_time_set_of_the_interrupt_is_put_back(address: str, crash: Crash, cards: Cards, by: str) -> None:
    """The next real time with the interrupt restores it, or giving the card back; drivers were killed before."""
    if len(cards(EDU)) < 2 or os.sched_getaffinity(0) == {0}:
        pytest.skip("one edu card, or one processor")
    with pyuio.open(cards(EDU)[1], bind=True) as other:  # the line stays while it is open
        number = other.irq
        assert number is not None
        before = line_state(number)
        for _ in range(2 if by == "realtime" else 1):
            assert crash("SIGKILL", "realtime") == STATUS["SIGKILL"]
            left = line_state(number)
            assert left[0] == str(max(os.sched_getaffinity(0))) != before[0]
            assert all(thread == (os.SCHED_FIFO, 95) for thread in left[1])
            assert len(left[1]) == len(before[1]) * 2  # the other card's thread, and that of this one
        if by == "realtime":
            with pyuio.open(address) as device:
                assert device.irq == number
                with pyuio.realtime(heap=0, freeze_garbage=False, interrupt=device, interrupt_cpu=0):
                    assert line_state(number)[0] == "0"
                after = line_state(number)
                assert (after[0], set(after[1])) == (before[0], set(before[1]))
            assert binding.unbind(address).given_back
        else:
            assert binding.unbind(address).given_back
            assert line_state(number) == before
    assert not list(irq_record.DIRECTORY.iterdir())
