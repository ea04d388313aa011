# SPDX-License-Identifier: MIT
"""How a driver of the Intel 82574L ends: killed, its card removed amid traffic, closed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from pyuio_drivers.e1000e import E1000e

import pyuio
from tests.guest.support import PATIENCE, killed_amid, rebind, wait_until
from tests.guest.test_e1000e import STRANGER, frame, received


@pytest.mark.long
def test_a_killed_driver_and_its_successor(network_cards: list[str]) -> None:

    def begin() -> tuple[int, object]:
        nic, other = (E1000e.open(address, by_interrupt=True) for address in network_cards)
        nic.filters.promiscuous(True)
        other.send([frame(other, nic.mac)] * 100)
        nic.send([frame(nic, other.mac)] * 100)
        some = nic.receive(10, PATIENCE)
        time.sleep(0.05)  # QEMU aborts if MSI-X is disabled 128 us after a message (docs/findings.md), when it is idle
        return len(some), (nic, other)

    assert killed_amid(begin) > 0
    with E1000e.open(network_cards[0]) as one, E1000e.open(network_cards[1]) as other:
        while one.receive(64, 0) or other.receive(64, 0):  # what was on its way
            pass
        one.send([frame(one, other.mac, 60, 1), frame(one, STRANGER)])
        assert received(other, 1) == [frame(one, other.mac, 60, 1)]
    for address in network_cards:  # the one that was killed had bound them
        rebind(address, None)


@pytest.mark.uio
@pytest.mark.long
def test_removal_amid_traffic(network_cards: list[str]) -> None:
    pci = Path("/sys/bus/pci")
    directory = (pci / "devices" / network_cards[1]).resolve()
    with E1000e.open(network_cards[0]) as one, E1000e.open(network_cards[1], by_interrupt=True) as other:
        one.send([frame(one, other.mac)] * 200)
        assert other.receive(10, PATIENCE)
        (directory / "remove").write_text("1")
        try:
            with pytest.raises(pyuio.DeviceRemovedError):
                received(other, 1000)
            with pytest.raises(pyuio.DeviceRemovedError):
                other.send([frame(other, one.mac)] * 1000)
        finally:
            # Nothing has stopped the card's interrupts, and QEMU aborts if the kernel's driver enables MSI-X then
            # (hw/net/e1000e_core.c, e1000e_intrmgr_on_throttling_timer; 7.2). So this driver gets it back first.
            (pci / "drivers_autoprobe").write_text("0")
            (pci / "rescan").write_text("1")
            wait_until((directory / "config").exists)
    with E1000e.open(network_cards[1]) as again, E1000e.open(network_cards[0]) as one:
        one.send([frame(one, again.mac)])
        assert received(again, 1) == [frame(one, again.mac)]
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)  # it loads the kernel's driver
    (pci / "drivers_autoprobe").write_text("1")


def test_a_closed_card(network_cards: list[str]) -> None:
    nic = E1000e.open(network_cards[0])
    nic.close()
    nic.close()
    for use in (lambda: nic.send([bytes(60)]), lambda: nic.receive(1), nic.flush, nic.link):
        with pytest.raises(pyuio.ClosedError):
            use()
