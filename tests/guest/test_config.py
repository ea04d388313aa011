# SPDX-License-Identifier: MIT
from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci import Command, Status
from pyuio.pci.config_space import ConfigSpace
from tests.guest.support import XHCI, Cards, Later, attribute, command_register


@pytest.fixture(params=sorted(entry.name for entry in PCI_DEVICES.iterdir()))
def config(request: pytest.FixtureRequest) -> Iterator[ConfigSpace]:
    """The configuration space of every function in turn."""
    config = ConfigSpace(PCI_DEVICES / request.param)
    yield config
    config.close()


def test_fields_are_what_the_kernel_says(config: ConfigSpace) -> None:
    address = config.directory.name
    assert config.vendor_id == int(attribute(address, "vendor"), 16)
    assert config.device_id == int(attribute(address, "device"), 16)
    assert config.class_code == int(attribute(address, "class"), 16)
    assert config.revision_id == int(attribute(address, "revision"), 16)
    if config.header_type == 0:
        assert config.subsystem_vendor_id == int(attribute(address, "subsystem_vendor"), 16)
        assert config.subsystem_id == int(attribute(address, "subsystem_device"), 16)


def test_bars_agree_with_the_registers(config: ConfigSpace) -> None:
    """The registers' low bits say kind and width (PCI 3.0, section 6.2.5.1); the kernel's table must match."""
    for bar in config.bars():
        register = config.read32(0x10 + 4 * bar.index)
        assert (bar.kind == "io") == bool(register & 1)
        if bar.kind == "memory":
            assert bar.width == (64 if register & 6 == 4 else 32)
            assert bar.prefetchable == bool(register & 8)
            high = config.read32(0x14 + 4 * bar.index) if bar.width == 64 else 0
            assert bar.address == high << 32 | register & ~0xF
        else:
            assert bar.address == register & ~3
        assert bar.size & (bar.size - 1) == 0
        assert bar.address % bar.size == 0


def test_edu(device: pyuio.Device) -> None:
    config = device.config
    assert (config.vendor_id, config.device_id, config.class_code) == (0x1234, 0x11E8, 0x00FF00)
    assert config.revision_id == 0x10
    assert config.interrupt_pin == 1
    assert Status.CAPABILITIES_LIST in config.status
    assert [str(bar)[:14] for bar in config.bars()] == ["BAR 0: memory "]
    assert config.bars()[0].size == 1 << 20
    assert [(item.id, item.name) for item in config.capabilities()] == [(0x05, "MSI")]
    assert config.extended_capabilities() == []


def test_pci_express_capabilities(cards: Cards) -> None:
    (address,) = cards(XHCI)
    config = ConfigSpace(PCI_DEVICES / address)
    names = [item.name for item in config.capabilities()]
    assert {"MSI-X", "Express"} <= set(names)
    assert config.size == 4096
    (bar,) = config.bars()
    assert (bar.kind, bar.width, bar.size) == ("memory", 64, 0x4000)
    config.close()


def test_command_bits_by_name(device: pyuio.Device) -> None:
    address = str(device.address)
    assert Command.BUS_MASTER not in device.config.command
    device.config.change_command(set=Command.BUS_MASTER)
    assert command_register(address) & 4
    assert Command.BUS_MASTER in device.config.command
    device.config.change_command(clear=Command.BUS_MASTER)
    assert not command_register(address) & 4
    with pytest.raises(ValueError, match="set and cleared at once"):
        device.config.change_command(set=Command.BUS_MASTER, clear=Command.BUS_MASTER)


def test_unmasking_keeps_the_other_command_bits(device: pyuio.Device) -> None:
    device.config.change_command(set=Command.BUS_MASTER)
    device.interrupt.unmask()
    assert command_register(str(device.address)) & (1 << 10 | 4) == 4
    device.interrupt.mask()
    assert command_register(str(device.address)) & (1 << 10 | 4) == 1 << 10 | 4
    with device.config.unlocked() as config:
        config.write16(0x04, command_register(str(device.address)) & ~4)
    device.interrupt.unmask()
    assert command_register(str(device.address)) & (1 << 10 | 4) == 0


def test_command_bits_survive_masking_in_another_thread(device: pyuio.Device, later: Later) -> None:
    """Neither writer of the command register brings back what the other has just changed."""
    stop = threading.Event()

    def mask_and_unmask() -> None:
        while not stop.is_set():
            device.interrupt.mask()
            with contextlib.suppress(BlockingIOError):
                device.interrupt.read(0)

    later(mask_and_unmask)
    for _ in range(250):
        device.config.change_command(set=Command.BUS_MASTER)
        assert Command.BUS_MASTER in device.config.command
        device.config.change_command(clear=Command.BUS_MASTER)
        assert Command.BUS_MASTER not in device.config.command
    stop.set()


def test_disabling_the_interrupt_by_hand_is_masking(device: pyuio.Device) -> None:
    card = Edu(device)
    with pytest.raises(BlockingIOError):
        device.interrupt.read(0)
    device.config.change_command(set=Command.INTERRUPT_DISABLE)
    assert device.interrupt.masked
    card.raise_interrupt()
    assert device.interrupt.read(5) == 1
    card.acknowledge()


def test_writes_reach_the_device(device: pyuio.Device) -> None:
    line = device.config.interrupt_line
    with device.config.unlocked() as config:
        config.write8(0x3C, line ^ 0xFF)
        assert device.config.interrupt_line == line ^ 0xFF
        config.write8(0x3C, line)
        config.write16(0x0C, 0x0008)
    assert device.config.read32(0x0C) & 0xFFFF == 0x0008


def test_bad_input(device: pyuio.Device) -> None:
    config = device.config
    for offset in (-4, config.size, 1, 2):
        with pytest.raises(ValueError, match=f"configuration space of {device.address}"):
            config.read32(offset)
    with pytest.raises(ValueError, match="does not fit 16 bits"):
        config.write16(0x3C, 0x10000)
    with pytest.raises(ValueError, match="does not fit 8 bits"):
        config.write8(0x3C, -1)
    with pytest.raises(TypeError):
        config.write8(0x3C, "1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        config.read8(1.0)  # type: ignore[arg-type]
