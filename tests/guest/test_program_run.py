# SPDX-License-Identifier: MIT
"""`Device.run` on real devices: registers in memory, I/O ports, traced, closed and removed."""

from __future__ import annotations

import logging

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.program import Append, Operation, Poll, Read, When, While, Write
from tests.guest.support import PCI_SERIAL, Cards, keep_bound, wait_until


def test_a_program_in_memory(card: Edu) -> None:
    registers, bar = card.registers, card.bar
    program = [
        Write(registers.liveness, 0x12345678),
        Read("alive", registers.liveness),
        Read("id", registers.identification),
        When("id", 0xFF, 0xED, [Write(bar, 0x08, 5)]),
        While("busy", 1, 1, [Append("looks", bar, 0x20), Read("busy", bar, 0x20)], most=2000),
        Read("factorial", bar, 0x08),
    ]
    program.insert(4, Read("busy", bar, 0x20))
    for _ in range(2):
        outcome = card.device.run(program)
        assert outcome.values["alive"] == 0xEDCBA987
        assert outcome.values["id"] & 0xFF == 0xED
        wait_until(lambda: bar.read32(0x20) & 1 == 0)
        assert bar.read32(0x08) == 120
        # The card may end between the two reads of a round, the last.
        assert all(status & 1 for status in outcome.lists["looks"][:-1])
    polled = card.device.run([Write(bar, 0x08, 6), Poll("busy", bar, 0x20, 1, 0, 1.0), Read("factorial", bar, 0x08)])
    assert (polled.values["factorial"], polled.late) == (720, False)


def test_hundreds_of_writes_again_and_again(card: Edu) -> None:
    program: list[Operation] = [Write(card.bar, 0x04, number) for number in range(300)]
    program.append(Read("last", card.bar, 0x04))
    for _ in range(3):
        assert card.device.run(program).values["last"] == ~299 & 0xFFFFFFFF


def test_io_ports(cards: Cards) -> None:
    keep_bound(cards(PCI_SERIAL)[0])
    with pyuio.open(cards(PCI_SERIAL)[0], bind=True) as device:
        ports = device.bar(0)
        program = [Write(ports, 7, 0x5A, 8), Read("scratch", ports, 7, 8), Poll("same", ports, 7, 0xFF, 0x5A, 0.1, 8)]
        assert device.run(program) == ({"scratch": 0x5A, "same": 0x5A}, {}, False)


def test_traced(edu: str, caplog: pytest.LogCaptureFixture) -> None:
    keep_bound(edu)
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    with pyuio.open(edu, bind=True) as device:
        device.trace_registers()
        device.run([Write(device.bar(0), 4, 1), Read("inverse", device.bar(0), 4)])
    texts = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert texts == ["bar0 write32 0x004 = 0x00000001", "bar0 read32 0x004 = 0xfffffffe"]


def test_another_devices_registers(device: pyuio.Device, cards: Cards) -> None:
    with pyuio.open(cards(PCI_SERIAL)[0], bind=True) as other, pytest.raises(ValueError, match="another device's"):
        device.run([Write(other.bar(0), 7, 1, 8)])


def test_closed_and_unbound(edu: str) -> None:
    keep_bound(edu)
    with pyuio.open(edu, bind=True) as device:
        bar = device.bar(0)
        program = [Write(bar, 4, 1), Read("inverse", bar, 4)]
        device.run(program)
        bar.close()
        with pytest.raises(pyuio.ClosedError, match="BAR 0 of"):
            device.run(program)
    with pytest.raises(pyuio.ClosedError, match=f"{device.name} is closed"):
        device.run(program)


@pytest.mark.uio
def test_a_device_that_was_unbound(edu: str) -> None:
    """Over VFIO the kernel waits for the device to be closed."""
    keep_bound(edu)
    with pyuio.open(edu, bind=True) as device:
        bar = device.bar(0)
        zeros = [Write(bar, 4, 0xFFFFFFFF), Read("inverse", bar, 4)]
        assert device.run(zeros).values == {"inverse": 0}
        (PCI_DEVICES / edu / "driver" / "unbind").write_text(edu)
        for _ in range(2):
            with pytest.raises(pyuio.DeviceRemovedError):
                device.run(zeros)
