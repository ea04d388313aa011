# SPDX-License-Identifier: MIT
"""Accidents that pyuio prevents, and the log of what happens: on real devices."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.kernel.drivers import bound_driver
from tests.guest.support import PCI_SERIAL, Cards, command_register


def config_bytes(address: str) -> bytes:
    return Path("/sys/bus/pci/devices", address, "config").read_bytes()


def test_a_bar_is_not_moved_by_accident(device: pyuio.Device) -> None:
    address = str(device.address)
    before = config_bytes(address)
    with pytest.raises(pyuio.ConfigLockedError, match=rf"{address}: .*0x10 would change a BAR.*config\.unlocked\(\)"):
        device.config.write32(0x10, 0)
    with pytest.raises(pyuio.ConfigLockedError, match=r"the command register; .*change_command\(\)"):
        device.config.write16(0x04, 0)
    for offset in (0x00, 0x06, 0x0C, 0x3C, 0x44, 0xF0):  # 0x44 belongs to MSI, edu's only capability
        with pytest.raises(ValueError, match="would change"):
            device.config.write8(offset, 0xFF)
    assert config_bytes(address) == before
    bar = device.config.read32(0x10)
    with device.config.unlocked() as config:
        config.write32(0x10, bar)
    with pytest.raises(pyuio.ConfigLockedError):
        device.config.write32(0x10, bar)


def test_open_takes_no_device_in_use(cards: Cards) -> None:
    (serial,) = cards(PCI_SERIAL)
    node = next(Path("/sys/bus/pci/devices", serial).glob("**/tty/ttyS*")).name
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.open(f"/dev/{node}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
        os.write(told, b"1")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"1"
        with pytest.raises(pyuio.DeviceBusyError, match=rf"(?s)is in use.*process {child} .*/dev/{node} open.*--force"):
            pyuio.open(serial, bind=True)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert bound_driver(serial) == "serial"


def test_what_happens_is_logged(edu: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pyuio")
    with pyuio.open(edu, bind=True) as device:
        device.dma.alloc(64).close()
        with pyuio.Service(device.interrupt, []):
            pass
        with device.config.unlocked():
            pass
        node = device.uio.name
    with pyuio.realtime(lock_memory=False, freeze_garbage=False, heap=0, stack=0, cpu_dma_latency=None):
        pass
    lines = [(record.name, record.getMessage()) for record in caplog.records]
    thread = f"thread {os.getpid()}"
    assert lines == [
        ("pyuio.binding", f"{edu}: bound to uio_pci_generic, taken from no driver"),
        ("pyuio.device", f"{edu}: opened as {node}"),
        ("pyuio.dma", f"{edu}: bus mastering on"),
        ("pyuio.dma", f"{edu}: bus mastering off"),
        ("pyuio.service", f"{edu}: native service started"),
        ("pyuio.service", f"{edu}: native service ended"),
        ("pyuio.config_guard", f"{edu}: configuration space unlocked"),
        ("pyuio.device", f"{edu}: closing {node}"),
        ("pyuio.binding", f"{edu}: released from uio_pci_generic, with no driver again"),
        ("pyuio.realtime_settings", f"{thread}: real time, policy: fifo 89"),
        ("pyuio.realtime_settings", f"{thread}: real time ends"),
    ]


def test_registers_are_traced_by_name(edu: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    with Edu.open(edu, trace=True) as card:
        assert f"{edu}: bar0 read32 0x000 identification = 0x010000ed" in caplog.messages
        caplog.clear()
        assert card.liveness(0x12345678) == 0xEDCBA987
        assert card.factorial(4) == 24
        lines = [record.getMessage() for record in caplog.records]
        with pytest.raises(ValueError, match="from the start or not"):
            card.device.trace_registers()
    assert lines[:2] == [
        f"{edu}: bar0 write32 0x004 liveness = 0x12345678",
        f"{edu}: bar0 read32 0x004 liveness = 0xedcba987",
    ]
    assert f"{edu}: bar0 write32 0x008 factorial = 0x00000004" in lines
    assert lines[-1] == f"{edu}: bar0 read32 0x008 factorial = 0x00000018"
    with pyuio.open(edu, bind=True) as untraced:
        assert type(untraced.bar(0)) is pyuio.region.Region
    assert command_register(edu) & 1 << 10


def test_ports_are_traced(serial: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    with pyuio.open(serial) as device:
        device.trace_registers()
        ports = device.bar(0)
        ports.write8(7, 0x5A)  # the scratch register
        assert ports.read8(7) == 0x5A
        ports.update8(7, 0x0F, 0x05)
    assert [record.getMessage() for record in caplog.records] == [
        f"{serial}: bar0 write8 0x007 = 0x5a",
        f"{serial}: bar0 read8 0x007 = 0x5a",
        f"{serial}: bar0 update8 0x007 mask, value 0x0f, 0x05",
    ]
