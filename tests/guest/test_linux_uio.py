# SPDX-License-Identifier: MIT
"""Linux's own UIO drivers for boards, which no Debian kernel has, on an edu card as a board: see linux_uio.py."""

from __future__ import annotations

import mmap
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.device import Device
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.kernel.uio import UioNode
from pyuio.pci.discovery import find
from pyuio.region import Region
from tests.guest.conftest import board_loaded, built_module
from tests.guest.support import EDU, PATIENCE, Cards, pyuio_command
from tests.guest.test_uio_maps import ACKNOWLEDGE, IDENTIFICATION, RAISE, line_in_proc, round_trip

pytestmark = pytest.mark.long
NO_MEMORY = (1 << 64) - 1  # what uio_dmem_genirq shows while the node is not open


@pytest.fixture
def address(cards: Cards) -> str:
    """The address of the card on the board."""
    return cards(EDU)[-1]


@pytest.fixture
def bar(address: str) -> int:
    """The address of its BAR."""
    return int((PCI_DEVICES / address / "resource").read_text().split()[0], 16)


def load(name: str) -> Iterator[None]:
    """Load one of Linux's drivers, and unload it when the caller goes on."""
    subprocess.run(["modprobe", "uio"], check=True)
    subprocess.run(["insmod", built_module(name)], check=True)
    yield
    subprocess.run(["rmmod", name], check=True)


@pytest.fixture
def pdrv() -> Iterator[None]:
    """The board with uio_pdrv_genirq."""
    for _ in load("uio_pdrv_genirq"):
        with board_loaded("pdrv"):
            yield


@pytest.fixture
def dmem() -> Iterator[None]:
    """The board with uio_dmem_genirq."""
    for _ in load("uio_dmem_genirq"):
        with board_loaded("dmem"):
            yield


@pytest.fixture
def cif(address: str) -> Iterator[str]:
    """The card with uio_cif, a driver of a PCI function whose UIO node has maps."""
    directory = PCI_DEVICES / address
    for _ in load("uio_cif"):
        (directory / "driver_override").write_text("hilscher")
        Path("/sys/bus/pci/drivers_probe").write_text(address)
        yield address
        (directory / "driver/unbind").write_text(address)
        (directory / "driver_override").write_text("\n")


def count_interrupts(device: Device, registers: Region, number: int) -> None:
    """Raise interrupts one by one, and read each."""
    for _ in range(number):
        registers.write32(RAISE, 1)
        assert device.interrupt.read(PATIENCE) == 1
        registers.write32(ACKNOWLEDGE, 1)
    with pytest.raises(pyuio.WouldBlockError):
        device.interrupt.read(0)


def test_uio_pdrv_genirq(pdrv: None, bar: int) -> None:
    with pyuio.open("edu-pdrv") as device:
        assert [tuple(item) for item in device.maps] == [
            (0, "registers", bar, mmap.PAGESIZE, 0),
            (1, "dma-registers", bar, mmap.PAGESIZE, 0x80),
        ]
        registers = device.map("registers", size=0x80)
        assert registers.read32(0) == IDENTIFICATION
        part = device.map("dma-registers")
        assert (part.address, part.size) == (bar + 0x80, mmap.PAGESIZE - 0x80)
        exact = device.map(1, size=0x20)
        exact.write32(0, 0x12340000)
        assert part.read32(0) == device.map(0).read32(0x80) == 0x12340000
        assert device.irq == line_in_proc("edu-pdrv")[0]
        count_interrupts(device, registers, 2000)
        with pyuio.realtime(interrupt=device, interrupt_cpu=0, lock_memory=False, freeze_garbage=False):
            assert Path(f"/proc/irq/{device.irq}/smp_affinity_list").read_text().strip() == "0"
        with pytest.raises(pyuio.DmaUnavailableError):
            device.dma.alloc(4096)
    assert find("edu-pdrv").driver == "uio_pdrv_genirq"
    assert pyuio_command("read", "edu-pdrv", "registers").stdout == "0x010000ed\n"
    assert pyuio_command("read", "edu-pdrv", "dma-registers").stdout == "0x12340000\n"
    assert "uio_pdrv_genirq.0" in pyuio_command("doctor", "edu-pdrv").stdout


def test_uio_dmem_genirq(dmem: None, address: str, bar: int) -> None:
    node = UioNode(str(find("edu-dmem").uio))
    assert [item.address for item in node.maps] == [bar, bar + 0x80, NO_MEMORY]
    with pyuio.open("edu-dmem") as device, Region(PCI_DEVICES / address / "resource0", 1 << 20) as registers:
        assert [(item.name, item.size, item.offset) for item in device.maps[:2]] == [("", 0x80, 0), ("", 0x20, 0)]
        with pytest.raises(pyuio.MappingError, match="it has 0x80 bytes, and the kernel maps whole pages"):
            device.map(0)
        with pytest.raises(pyuio.MappingError, match=f"it starts at {bar + 0x80:#x}, 0x80 bytes into a page"):
            device.map(1)
        region = device.map("map2")
        assert region.address is not None
        assert region.size == 2 * mmap.PAGESIZE
        assert region.address == device.maps[2].address != NO_MEMORY
        with device.dma.adopt(region, region.address) as buffer:
            for _ in range(3):
                round_trip(registers, buffer)
        count_interrupts(device, registers, 2000)
    assert node.maps[2].address == NO_MEMORY, "closing has let go of everything"
    done = pyuio_command("read", "edu-dmem", "map2", "--count", "2")  # a command opens it before it maps it
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
    assert node.maps[2].address == NO_MEMORY


def test_uio_cif(cif: str, bar: int) -> None:
    with pyuio.open("CIF_???") as device:
        assert device.address == cif
        assert [tuple(item) for item in device.maps] == [(0, "", bar, 1 << 20, 0)]
        region = device.map(0)
        assert (region.size, region.read32(0)) == (1 << 20, IDENTIFICATION)
        assert device.map("map0") is region
        assert device.bar(0).read32(0) == IDENTIFICATION
    assert pyuio_command("read", cif, "map0").stdout == "0x010000ed\n"
    done = pyuio_command("read", cif, "regs+4")
    assert re.search(rf"{cif} has no map 'regs'; it has: map 0 of 0x100000 bytes", done.stderr)
