# SPDX-License-Identifier: MIT
from __future__ import annotations

import mmap
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

import pyuio
from pyuio.claim import binding
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from pyuio.pci import Command
from pyuio.pci.bars import Bar
from pyuio.pci.config_space import ConfigSpace
from pyuio.region import PortRegion, Region
from tests.guest.support import PCI_SERIAL, PCI_TESTDEV, SDHCI, XHCI, Cards, command_register

LIVENESS = 0x04
SCRATCH = 7  # of a 16550 serial port: keeps the value written


def test_registers_of_a_real_card(device: pyuio.Device) -> None:
    bar = device.bar(0)
    assert isinstance(bar, Region)
    assert bar.size == 1 << 20
    assert bar.address == device.config.bars()[0].address
    assert bar.read32(0) & 0xFFFF == 0x00ED
    bar.write32(LIVENESS, 0x0F1E2D3C)
    assert bar.read32(LIVENESS) == 0x0F1E2D3C ^ 0xFFFFFFFF


def test_one_update_is_one_read_and_one_write(device: pyuio.Device) -> None:
    """The card inverts the value written, so that every read and every write shows."""
    bar = device.bar(0)
    bar.write32(LIVENESS, 0)  # reads as 0xffffffff
    bar.clear32(LIVENESS, 0x000000FF)  # writes 0xffffff00, reads as 0x000000ff
    assert bar.read32(LIVENESS) == 0x000000FF
    bar.set32(LIVENESS, 0xFF000000)  # writes 0xff0000ff
    assert bar.read32(LIVENESS) == 0x00FFFF00
    bar.update32(LIVENESS, 0x0000FFFF, 0x00001234)  # writes 0x00ff1234
    assert bar.read32(LIVENESS) == 0xFF00EDCB


def test_big_endian(device: pyuio.Device) -> None:
    little, big = device.bar(0), device.bar(0, endian="big")
    assert little is device.bar(0)
    assert big is not little
    assert big.read32(0) == int.from_bytes(little.read32(0).to_bytes(4, "little"), "big")
    assert big.read32(0) == little.read32(0, endian="big")


def test_a_bar_and_a_driver_say_the_widest_access(device: pyuio.Device) -> None:
    """The card answers a read of 64 bits below 0x80 with the lower half, or with 0: an error is better."""

    class Narrow(pyuio.RegisterMap, width=32):
        identification = pyuio.Register(0x00, access="ro")

    class NarrowDriver(pyuio.Driver):
        ids = (str(device.ids),)
        register_maps: ClassVar = {0: Narrow}

    wide, narrow = device.bar(0), device.bar(0, width=32)
    assert (wide.width, narrow.width) == (64, 32)
    assert narrow is device.bar(0, width=32)
    assert narrow.read32(0) == wide.read32(0) == Narrow(narrow).identification.read()
    for refused in (lambda: narrow.read64(0), lambda: narrow.read(0, 8, width=8), lambda: narrow.write64(0x80, 1)):
        with pytest.raises(ValueError, match="at most 32 bits, as its width= says"):
            refused()
    driver = NarrowDriver(device)
    assert driver.device.bar(0).width == 32
    assert driver.device.bar(0, width=64).read64(0x80) == wide.read64(0x80)
    with pytest.raises(ValueError, match="the widest access is of 8, 16, 32 or 64 bits"):
        device.bar(0, width=33)


def test_runs_of_accesses(device: pyuio.Device) -> None:
    bar = device.bar(0)
    bar.write(LIVENESS, bytes.fromhex("01020304"))
    assert bar.read(0, 8) == bytes.fromhex("ed000001") + bytes.fromhex("fefdfcfb")
    # The DMA source register takes 64 bits at once.
    bar.write64(0x80, 0x0123456789ABCDEF)
    assert bar.read64(0x80) == 0x0123456789ABCDEF
    assert bar.read(0x80, 8, width=8) == bytes.fromhex("efcdab8967452301")


def test_64_bit_bar(cards: Cards) -> None:
    with pyuio.open(cards(XHCI)[0], bind=True) as device:
        bar = device.bar(0)
        # xHCI specification 1.2, sections 5.3.1 and 5.3.2: length of the capability registers, version.
        assert bar.read32(0) & 0xFF in range(0x20, 0x100)
        assert bar.read32(0) >> 16 == 0x0100
        with pytest.raises(pyuio.MappingError, match="has no BAR 1 with an address; it has: BAR 0: memory"):
            device.bar(1)


def test_port_bar(cards: Cards) -> None:
    """A 16550's scratch register, 7, and its line control register, 3, keep the value written."""
    with pyuio.open(cards(PCI_SERIAL)[0], bind=True) as device:
        ports = device.bar(0)
        assert isinstance(ports, PortRegion)
        assert ports.size == 8
        for value in (0x00, 0x5A, 0xFF):
            ports.write8(7, value)
            assert ports.read8(7) == value
        ports.write8(7, 0x0F)
        ports.update8(7, 0xF0, 0xA0)
        assert ports.read8(7) == 0xAF
        with pytest.raises(ValueError, match=rf"BAR 0 of {device.address}"):
            ports.read8(8)
        with pytest.raises(ValueError, match="64"):
            ports.read64(0)
    with pytest.raises(pyuio.ClosedError):
        ports.read8(7)


def test_port_bar_takes_every_width(cards: Cards) -> None:
    """pci-testdev's port BAR: writing the first byte selects a test; the header then describes it."""
    with pyuio.open(cards(PCI_TESTDEV)[0], bind=True) as device:
        ports = device.bar(1)
        assert isinstance(ports, PortRegion)
        ports.write8(0, 0)
        assert ports.read8(1) in (1, 2, 4)  # width of the test, docs/specs/pci-testdev.txt
        assert ports.read16(0) >> 8 == ports.read8(1)
        assert ports.read32(0) & 0xFFFF == ports.read16(0)


def test_a_bar_that_is_not_there(device: pyuio.Device) -> None:
    for index in range(1, 6):
        with pytest.raises(pyuio.MappingError, match=f"{device.address} has no BAR {index}"):
            device.bar(index)
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match="0 to 5"):
            device.bar(wrong)
    with pytest.raises(TypeError):
        device.bar("0")  # type: ignore[arg-type]


def test_a_bar_that_a_kernel_driver_keeps_for_itself(edu: str) -> None:
    """uio_cif requests BAR 0 and offers it as map 0 of its node."""
    subprocess.run(["modprobe", "uio_cif"], check=True)
    done = binding.bind(edu, "hilscher")
    try:
        with pytest.raises(pyuio.MappingError, match="a kernel driver keeps the BAR for itself"):
            Region(PCI_DEVICES / edu / "resource0", 1 << 20)
        with pyuio.open(edu) as device:
            bar = device.bar(0)
            assert bar.size == 1 << 20
            assert bar.read32(0) & 0xFFFF == 0x00ED
            bar.write32(LIVENESS, 1)
            assert bar.read32(LIVENESS) == 0xFFFFFFFE
        with pytest.raises(pyuio.ClosedError):
            bar.read32(0)
    finally:
        done.undo()


def test_write_combining_only_where_it_is_allowed(device: pyuio.Device) -> None:
    with pytest.raises(ValueError, match="not prefetchable"):
        device.bar(0, write_combining=True)


def test_bad_offsets_and_values_never_reach_the_card(device: pyuio.Device) -> None:
    bar = device.bar(0)
    bar.write32(LIVENESS, 0)
    for offset in (-4, 5, bar.size, 1 << 70):
        with pytest.raises(ValueError, match=f"BAR 0 of {device.address}"):
            bar.write32(offset, 1)
    for value in (-1, 1 << 32, 1 << 80):
        with pytest.raises(ValueError, match=f"BAR 0 of {device.address}"):
            bar.write32(LIVENESS, value)
    with pytest.raises(TypeError):
        bar.write32(LIVENESS, 1.0)  # type: ignore[arg-type]
    assert bar.read32(LIVENESS) == 0xFFFFFFFF


def test_a_region_closed_on_its_own_is_mapped_anew(device: pyuio.Device) -> None:
    bar = device.bar(0)
    bar.close()
    with pytest.raises(pyuio.ClosedError, match=f"BAR 0 of {device.address}"):
        bar.read32(0)
    assert device.bar(0).read32(0) & 0xFF == 0xED


@pytest.fixture
def page_sharers(cards: Cards) -> Iterator[list[str]]:
    """Two cards with BARs of 256 bytes, which the kernel packs when the firmware gave them no address."""
    addresses = cards(SDHCI)
    if len(addresses) < 2:
        pytest.skip("one such card only")
    for address in addresses:
        config = ConfigSpace(PCI_DEVICES / address)
        with config.unlocked():
            config.write32(0x10, 0)
        config.close()
        (PCI_DEVICES / address / "remove").write_text("1")
    # The kernel's own driver must not take them before the test does.
    autoprobe = Path("/sys/bus/pci/drivers_autoprobe")
    autoprobe.write_text("0")
    Path("/sys/bus/pci/rescan").write_text("1")
    # udev loads that driver meanwhile; once loaded, it takes no device by itself any more.
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)
    autoprobe.write_text("1")
    yield addresses
    assert cards(SDHCI) == addresses


def memory_bar(device: pyuio.Device) -> Bar:
    return next(bar for bar in device.config.bars() if bar.kind == "memory")


def test_bars_that_share_a_page(page_sharers: list[str]) -> None:
    """A BAR in the middle of a page reaches its own registers, and leaves those of its neighbour unchanged.

    SD Host Controller Specification 3.0: argument register at 0x08, capabilities at 0x40.
    """
    first, second = (pyuio.open(address, bind=True) for address in page_sharers)
    with first, second:
        places = [memory_bar(device).address for device in (first, second)]
        assert len({place // mmap.PAGESIZE for place in places}) == 1, "the kernel did not pack them"
        assert any(place % mmap.PAGESIZE for place in places)
        regions = [device.bar(0) for device in (first, second)]
        assert [region.address for region in regions] == places
        for number, region in enumerate(regions):
            region.write32(0x08, 0x1111 * (number + 1))
        assert [region.read32(0x08) for region in regions] == [0x1111, 0x2222]
        assert regions[0].read32(0x40) == regions[1].read32(0x40) != 0
        for region in regions:
            with pytest.raises(ValueError, match="BAR 0"):
                region.read32(0x100)
            assert isinstance(region, Region)
            if region.address is not None and region.address % mmap.PAGESIZE:
                with pytest.raises(pyuio.MappingError, match="into its page"):
                    _ = region.mmio


@pytest.mark.parametrize("end", ["unbind", "remove"])
def test_a_port_bar_of_a_card_that_goes(serial: str, end: str) -> None:
    driver = PCI_DEVICES / serial / "driver"
    with pyuio.open(serial) as device:
        bar = device.bar(0)
        assert isinstance(bar, PortRegion)
        bar.write8(SCRATCH, 0x5A)
        assert bar.read8(SCRATCH) == 0x5A
        if end == "unbind":
            (driver / "unbind").write_text(serial)
            assert bar.read8(SCRATCH) == 0x5A  # the card is there
            assert device.removed
        else:
            (PCI_DEVICES / serial / "remove").write_text("1")
            with pytest.raises(pyuio.DeviceRemovedError):
                bar.read8(SCRATCH)  # the kernel refuses
        uses = (
            lambda: bar.read8(SCRATCH),
            lambda: bar.write8(SCRATCH, 1),
            lambda: bar.set8(SCRATCH, 1),
            lambda: bar.read(SCRATCH, 1, 1),
            lambda: bar.poll32(0, 0, 0, 0),
            lambda: device.bar(0),
        )
        for use in uses:
            with pytest.raises(pyuio.DeviceRemovedError):
                use()
    Path("/sys/bus/pci/rescan").write_text("1")
    binding.bind(serial)


def test_a_card_that_was_unbound_is_left_alone(edu: str) -> None:
    """The next owner of the device also owns its command register."""
    bound = binding.bind(edu)
    with pyuio.open(edu) as device:
        device.dma.alloc(64)
        (PCI_DEVICES / edu / "driver/unbind").write_text(edu)
        assert not command_register(edu) & Command.BUS_MASTER
        (PCI_DRIVERS / bound.driver / "bind").write_text(edu)  # another owner sets it as it needs it
        config = ConfigSpace(PCI_DEVICES / edu)
        config.change_command(set=Command.BUS_MASTER, clear=Command.INTERRUPT_DISABLE)
        config.close()
        wanted = command_register(edu)
    assert command_register(edu) == wanted
    bound.undo()
