# SPDX-License-Identifier: MIT
"""DMA on real memory, real pagemap and QEMU's edu card."""

from __future__ import annotations

import random

from pyuio_drivers.edu import Edu

from tests.guest.support import command_register

BUS_MASTER = 1 << 2


def test_round_trip(card: Edu) -> None:
    data = random.randbytes(4095)
    card.to_device(data)
    assert card.from_device(4095) == data
    card.to_device(b"interrupt", 100, by_interrupt=True)
    assert card.from_device(9, 100, by_interrupt=True) == b"interrupt"


def test_bus_mastering_follows_the_buffers(card: Edu) -> None:
    address = str(card.device.address)
    assert not command_register(address) & BUS_MASTER
    first = card.device.dma.alloc(100)
    second = card.device.dma.alloc(100)
    assert command_register(address) & BUS_MASTER
    first.close()
    assert command_register(address) & BUS_MASTER
    second.close()
    assert not command_register(address) & BUS_MASTER
