# SPDX-License-Identifier: MIT
"""Tests of devices of a device tree. test_platform.py runs pytest on this in an arm64 guest."""

from __future__ import annotations

import os
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.pl031 import Pl031

import pyuio
from pyuio.kernel import device_tree
from pyuio.pci.discovery import find
from tests.guest.support import forked, pyuio_command

CLOCK, PORT = "/pl031@9010000", "/pl061@9030000"
CLOCK_ADDRESS = 0x0901_0000
# ARM DDI 0190, "PrimeCell General Purpose Input/Output (PL061)", section 3.2.
SENSE, EVENT, MASK, MASKED_STATUS, CLEAR = 0x404, 0x40C, 0x410, 0x418, 0x41C
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/rtc_alarm.py"


@pytest.fixture(scope="module", autouse=True)
def bound() -> Iterator[None]:
    """uio_pdrv_genirq has what is compatible with generic-uio; before it is loaded, nothing has a node."""
    subprocess.run(["modprobe", "uio"], check=True)
    with pytest.raises(pyuio.DeviceNotFoundError, match=rf"no UIO driver has the device tree's {CLOCK}: .*of_id"):
        find(CLOCK)
    subprocess.run(["insmod", os.environ["UIO_PDRV"], "of_id=generic-uio"], check=True)
    yield
    subprocess.run(["rmmod", "uio_pdrv_genirq"], check=True)


def test_names() -> None:
    clock = find(CLOCK)
    assert (clock.address, clock.driver, clock.uio_name) == (None, "uio_pdrv_genirq", "pl031")
    assert clock.compatible == ("arm,pl031", "generic-uio")
    for name in ("pl031", "clock", str(clock.uio), f"/dev/{clock.uio}"):
        assert find(name) == clock, name
    assert find("gpio") == find("port") == find(PORT) != clock
    with pytest.raises(ValueError, match="or a path in the device tree"):
        find("/pl031@0")
    with pytest.raises(pyuio.DeviceNotFoundError, match="no UIO driver has the device tree's /memory"):
        find("/memory@40000000")


def test_maps() -> None:
    with pyuio.open(CLOCK) as device:
        assert [(item.address, item.size, item.offset) for item in device.maps] == [(CLOCK_ADDRESS, 4096, 0)]
        assert device.compatible[0] == "arm,pl031"
        assert [device.map(0).read8(0xFE0 + 4 * number) for number in range(2)] == [0x31, 0x10]
    with pyuio.open("gpio") as device:
        assert device.map("pins").read32(0xFE0) & 0xFF == 0x61


def test_the_clock_and_its_alarm() -> None:
    with Pl031.open() as clock:
        # The guest's own clock is wrong without this one.
        assert 0 <= clock.time - int(os.environ["STARTED"]) < 300
        for _ in range(2):
            now = clock.time
            clock.set_alarm(now + 1)
            assert clock.wait(10) - now in (1, 2)
        with pytest.raises(TimeoutError):
            clock.wait(0.1)


def test_the_example() -> None:
    done = forked(lambda: runpy.run_path(str(EXAMPLE), run_name="__main__"), str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert " the clock says 20" in first
    assert second in ("the alarm came 2 s later", "the alarm came 3 s later")


def test_interrupts_by_irqcontrol() -> None:
    with pyuio.open("gpio") as device:
        pins = device.map("pins")
        assert repr(device.interrupt).count("irqcontrol") == 1
        pins.write32(SENSE, 1)  # by level
        pins.write32(EVENT, 0)  # low, as the pin is
        for _ in range(200):
            pins.write32(MASK, 1)
            assert device.interrupt.read(10) == 1
            assert pins.read32(MASKED_STATUS) == 1
            pins.write32(MASK, 0)
            pins.write32(CLEAR, 1)
        with pytest.raises(BlockingIOError):
            device.interrupt.read(0)
        with pyuio.open("clock") as other:  # each has its own interrupt
            assert other.irq != device.irq
            assert other.irq is not None


def test_a_driver_refuses_another_device() -> None:
    with pytest.raises(pyuio.UnsupportedDeviceError, match="Pl031 serves what is compatible with arm,pl031"):
        Pl031.open("gpio")


def test_caches() -> None:
    assert device_tree.is_coherent(find(CLOCK).directory) is False
    with (
        pyuio.open(CLOCK) as device,
        pytest.raises(pyuio.DmaUnavailableError, match="does not say dma-coherent for it"),
    ):
        device.dma.alloc(4096)
    with Edu.open() as card:
        card.device.dma.mask = (1 << 64) - 1
        with pytest.raises(pyuio.DmaUnavailableError, match="does not say dma-coherent for its host bridge"):
            card.device.dma.alloc(4096)
        card.device.dma.assume_coherent()  # QEMU has no caches
        card.to_device(b"through memory")
        assert card.from_device(14) == b"through memory"


def test_commands() -> None:
    assert "uio_pdrv_genirq" in pyuio_command("list").stdout
    shown = pyuio_command("info", CLOCK).stdout
    assert f"{CLOCK} (arm,pl031, generic-uio)" in shown
    assert "do not follow the device" in shown
    assert "pl031 (pyuio-framework)" in shown
    assert pyuio_command("read", CLOCK, "map0+0xfe0").stdout == "0x00000031\n"
    assert pyuio_command("write", "clock", "map0+4", "7").returncode == 0
    assert pyuio_command("read", "pl031", "map0.match").stdout.startswith("0x00000007")
    assert "part_low" in pyuio_command("dump", "clock", "map0", "--names").stdout
    assert "pl031" in pyuio_command("probe", "clock").stdout


def test_irq_command() -> None:
    with pyuio.open("gpio") as device:
        pins = device.map("pins")
        pins.write32(SENSE, 1)
        pins.write32(EVENT, 0)
        pins.write32(MASK, 1)
    done = pyuio_command("irq", "gpio", "--count", "1", "--acknowledge", f"pins+{MASK:#x}=0")
    assert done.returncode == 0, done.stderr
