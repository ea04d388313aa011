# SPDX-License-Identifier: MIT
from __future__ import annotations

from pathlib import Path

import pyuio
from tests.guest.support import EDU, Cards, attribute


def test_lists_every_function_that_the_kernel_lists() -> None:
    found = {device.address for device in pyuio.devices()}
    assert found == {entry.name for entry in Path("/sys/bus/pci/devices").iterdir()}


def test_says_what_the_kernel_says_of_each() -> None:
    for device in pyuio.devices():
        assert device.address is not None
        assert device.ids == attribute(device.address, "vendor")[2:] + ":" + attribute(device.address, "device")[2:]
        assert device.class_code == int(attribute(device.address, "class"), 16)


def test_shows_driver_and_node_of_an_open_device(edu: str) -> None:
    def entry() -> pyuio.FoundDevice:
        return next(device for device in pyuio.devices() if device.address == edu)

    assert (entry().driver, entry().uio) == (None, None)
    with pyuio.open(edu, bind=True) as device:
        assert (entry().driver, entry().uio) == ("uio_pci_generic", device.uio.name)
        assert str(entry()) == f"{edu} {EDU} (driver: uio_pci_generic, /dev/{device.uio.name})"
    assert (entry().driver, entry().uio) == (None, None)


def test_is_in_the_order_of_addresses(cards: Cards) -> None:
    addresses = [device.address or "" for device in pyuio.devices()]
    assert addresses == sorted(addresses)
    assert cards(EDU) == sorted(cards(EDU))
