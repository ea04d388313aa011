# SPDX-License-Identifier: MIT
"""Errors on the link of a card behind a port: the kernel's own injector makes it believe that the card reports them.

tests/vm/test_link_errors.py has QEMU's cards report errors, fatal ones among them.
"""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.cli.description import description
from pyuio.doctor import device as checks
from pyuio.inspect.health import health
from pyuio.inspect.inspection import Inspection
from pyuio.pci.aer import ports_above, read_link_errors
from pyuio.pci.discovery import find
from tests.guest.support import E1000E, PATIENCE, XHCI, Cards

BAD_TLP, COMPLETION_TIMEOUT = 1 << 6, 1 << 14  # PCI Express Base Specification 5.0, 7.8.4.5 and 7.8.4.2

Inject = Callable[[int, int], None]


@pytest.fixture(scope="module")
def card(cards: Cards) -> str:
    """The address of a card behind a port."""
    return next(one for one in cards(E1000E) if any(ports_above(find(one).directory)))


@pytest.fixture(scope="module")
def inject(card: str) -> Iterator[Inject]:
    """A function that injects correctable and uncorrectable errors (drivers/pci/pcie/aer_inject.c)."""
    subprocess.run(["modprobe", "aer_inject"], check=True)
    domain, bus, slot, number = (int(word, 16) for word in card.replace(".", ":").split(":"))

    def write(correctable: int, uncorrectable: int) -> None:
        words = struct.pack("=3Bx7I", bus, slot, number, uncorrectable, correctable, 0, 0, 0, 0, domain)
        Path("/dev/aer_inject").write_bytes(words)

    yield write
    subprocess.run(["rmmod", "aer_inject"], check=True)


def test_each_error_is_told_of_and_counted(card: str, inject: Inject) -> None:
    found = find(card)
    before = read_link_errors(found.directory)
    assert before is not None
    with pyuio.Hotplug(errors=True) as all_functions, pyuio.Hotplug(XHCI, errors=True) as others:
        with pyuio.Hotplug(E1000E, errors=True) as hotplug:
            with pytest.raises(pyuio.DeviceTimeoutError):
                hotplug.read(timeout=0.1)
            inject(BAD_TLP, 0)
            event = hotplug.read(timeout=PATIENCE)
            assert (event.action, event.device, str(event.errors)) == ("error", find(card), "correctable 1 (BadTLP 1)")
            assert str(event) == f"error {card} {E1000E}: correctable 1 (BadTLP 1)"
            inject(0, COMPLETION_TIMEOUT)
            event = asyncio.run(hotplug.read_async(timeout=PATIENCE))
            assert str(event) == f"error {card} {E1000E}: nonfatal 1 (CmpltTO 1)"
        both = all_functions.read(timeout=PATIENCE)
        assert both.device == find(card)
        assert both.errors is not None
        assert both.errors.uncorrectable == 1
        assert both.errors.correctable.total == 1
        with pytest.raises(pyuio.DeviceTimeoutError):
            others.read(timeout=1.2)
    now = read_link_errors(found.directory)
    assert now is not None
    assert now.since(before) == both.errors


@pytest.mark.long
def test_they_are_shown(card: str, inject: Inject) -> None:
    inject(BAD_TLP, 0)
    found = find(card)
    port = next(ports_above(found.directory))
    shown = description(found)
    assert shown["link_errors"]["counted"]
    assert shown["link_errors"]["correctable"]["by_name"]["BadTLP"] >= 1
    assert shown["port"]["address"] == port.name
    assert shown["port"]["link"]["speed"] == shown["link"]["speed"], "it is one link"
    assert shown["port"]["link_errors"]["text"] == "none"
    with Inspection(found) as inspection:
        told = health(found, inspection).link_errors
    assert told is not None
    assert told.correctable.total >= 1
    answer = checks.look_at_link_errors(found)
    assert answer is not None
    assert answer.state == "advice"
    assert answer.found.startswith(f"{card}: correctable ")
    link = checks.look_at_link(found)
    assert link is not None
    assert link.state == "good", "its maximum is less than that of the port"
    assert f"{port.name}, the port above" in link.found
