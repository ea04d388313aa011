# SPDX-License-Identifier: MIT
"""The drivers of this package with each fault at each access. ``make test`` tries some; those marked long try all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pyuio_drivers import nvme_queue, xdma_engine
from pyuio_drivers.e1000e import E1000e, nic
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.e1000e import E1000eCard
from pyuio_drivers.models.edu import EduCard
from pyuio_drivers.models.nvme import NvmeCard
from pyuio_drivers.models.serial16550 import Serial16550Card
from pyuio_drivers.models.xdma import XdmaCard
from pyuio_drivers.nvme import Nvme
from pyuio_drivers.serial16550 import Serial16550
from pyuio_drivers.xdma import Xdma

import pyuio
from pyuio.model import Card, explore
from pyuio.model.explore import Fault

DATA = bytes(range(256)) * 80


def drive_edu(device: pyuio.Device) -> tuple[list[int], bytes, bytes]:
    """Poll, and wait for interrupts.

    The time limits are short, because a line that stays asserted keeps the driver busy until then.
    """
    with Edu(device) as edu:
        factorials = [edu.factorial(5, timeout=0.01), edu.factorial_by_interrupt(6, timeout=0.01)]
        edu.to_device(DATA[:100], timeout=0.11)
        polled = bytes(edu.from_device(100, timeout=0.11))
        edu.to_device(DATA[100:200], by_interrupt=True, timeout=0.11)
        return factorials, polled, bytes(edu.from_device(100, by_interrupt=True, timeout=0.11))


def drive_serial(device: pyuio.Device) -> tuple[bytes, bytes]:
    with Serial16550(device) as port:
        port.timeout = port.write_timeout = 0.05
        port.baudrate = 115200
        port.write(DATA[:40])
        port.flush()
        echoed = port.read(40)
        port.loopback = True
        port.write(b"looped")
        looped = port.read(6)
        port.loopback = False
        assert isinstance(port.cts, bool)
        return echoed, looped


class EchoingPort(Serial16550Card):
    """The other end of the line sends back what it gets."""

    def _finish_byte(self, byte: int) -> None:
        super()._finish_byte(byte)
        if not self.regs.mcr.loop:
            self.feed(bytes([byte]))


def drive_nvme(by_interrupt: bool) -> Callable[[pyuio.Device], tuple[bytes, bytes]]:
    def drive(device: pyuio.Device) -> tuple[bytes, bytes]:
        with Nvme(device, writable=True, by_interrupt=by_interrupt, timeout=0.02) as disk:
            disk.smart()
            disk.write(10, DATA)
            read = disk.read(10, 40)
            with disk.queue(4, 4) as queue:
                many = b"".join(bytes(data) for data in queue.read_many(range(10, 50, 4), 4))
            for block in range(10, 40):
                disk.read(block)
            disk.flush()
            return read, many

    return drive


def drive_nic(by_interrupt: bool) -> Callable[[pyuio.Device], tuple[list[bytes], int]]:
    """Send frames, which come back, and receive them."""

    def drive(device: pyuio.Device) -> tuple[list[bytes], int]:
        with E1000e(device, by_interrupt=by_interrupt) as card:
            card.filters.promiscuous(True)
            received: list[bytes] = []
            for number in (1, 8):
                card.send(FRAMES[:number], timeout=0.02)
                while len(received) < number and (frames := card.receive(8, 0.02)):
                    received += map(bytes, frames)
                card.flush(0.02)
            card.wait_for_link(0.02)
            return received[1:], card.statistics.read().transmitted

    return drive


FRAMES = [bytes(6) + bytes([index] * (60 + index)) for index in range(8)]


class EchoingNic(E1000eCard):
    """What it sends comes back."""

    def _transmit(self, frame: bytes) -> None:
        super()._transmit(frame)
        self.arrive(frame)


class LineNic(EchoingNic):
    """Has the interrupt line only."""

    msix_vectors = 0


class LineNvme(NvmeCard):
    """Has the interrupt line only."""

    msix_vectors = 0


def drive_xdma(completion: str) -> Callable[[pyuio.Device], bytes]:
    def drive(device: pyuio.Device) -> bytes:
        with Xdma(device, completion=completion, timeout=0.02) as card:
            card.write(10, DATA)
            with device.dma.scatter(5000) as buffer:
                card.readinto(10, buffer)
                direct = bytes(buffer)
            return direct + card.read(5010, len(DATA) - 5000)

    return drive


def drive_xdma_stream(device: pyuio.Device) -> bytes:
    with Xdma(device, completion="interrupt", user_interrupts=1, timeout=0.02) as card:
        card.h2c[0].send(DATA)
        return b"".join(card.c2h[0].receive(size).data for size in (5000, len(DATA)))


class StreamCard(XdmaCard):
    streams = True


class Explored(NamedTuple):
    """A driver to be explored.

    Attributes:
        scenario: what it does.
        card: its card.
        right: whether a result is right that nothing has falsified.
        accesses: how many there are at least.
        every: which part of the faults a short test tries.
    """

    scenario: Callable[[pyuio.Device], Any]
    card: type[Card]
    right: Callable[[Any], bool]
    accesses: int
    every: int


def nvme_right(result: tuple[bytes, bytes]) -> bool:
    return result == (DATA, DATA)


def nic_right(result: tuple[list[bytes], int]) -> bool:
    # What is late or lost is not received in time; the others come once, in order.
    received, _ = result
    rest = iter(FRAMES)
    return all(frame in rest for frame in received)


DRIVERS = {
    "edu": Explored(drive_edu, EduCard, lambda result: result == ([120, 720], DATA[:100], DATA[100:200]), 150, 7),
    # What is late or lost is not received in time: fewer bytes.
    "serial": Explored(
        drive_serial,
        EchoingPort,
        lambda result: DATA[:40].startswith(result[0]) and b"looped".startswith(result[1]),
        200,
        13,
    ),
    "nic": Explored(drive_nic(by_interrupt=True), EchoingNic, nic_right, 350, 100),
    "nic line": Explored(drive_nic(by_interrupt=True), LineNic, nic_right, 350, 200),
    "nic polled": Explored(drive_nic(by_interrupt=False), EchoingNic, nic_right, 350, 200),
    "nvme": Explored(drive_nvme(by_interrupt=True), NvmeCard, nvme_right, 300, 25),
    "nvme line": Explored(drive_nvme(by_interrupt=True), LineNvme, nvme_right, 300, 61),
    "nvme polled": Explored(drive_nvme(by_interrupt=False), NvmeCard, nvme_right, 300, 61),
    "xdma": Explored(drive_xdma("interrupt"), XdmaCard, lambda result: result == DATA, 60, 25),
    "xdma polled": Explored(drive_xdma("write-back"), XdmaCard, lambda result: result == DATA, 60, 61),
    "xdma stream": Explored(drive_xdma_stream, StreamCard, lambda result: result == DATA, 60, 61),
}


def run(name: str, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Looks at memory take no virtual time, so most of them are in vain.
    monkeypatch.setattr(nvme_queue, "SPINS", 20)
    monkeypatch.setattr(nic, "SPINS", 2)
    monkeypatch.setattr(xdma_engine, "_LOOKS", 5)
    driver = DRIVERS[name]

    def check(result: Any, fault: Fault) -> None:
        assert fault.misleads or driver.right(result), result

    found = explore(driver.scenario, driver.card, check=check, every=every)
    print(found)
    assert len(found.accesses) >= driver.accesses
    found.check()


@pytest.mark.parametrize("name", [name for name in DRIVERS if " " not in name])
def test_some_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, DRIVERS[name].every, monkeypatch)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", DRIVERS)
def test_every_fault_at_every_access(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(name, 1, monkeypatch)
