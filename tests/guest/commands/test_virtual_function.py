# SPDX-License-Identifier: MIT
"""A virtual function of SR-IOV, whose ids read as all ones although it is there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.inspect.inspection import Inspection
from pyuio.pci.discovery import find
from tests.guest.commands.in_process import command_here
from tests.guest.support import Cards, rebind, wait_until

NVME = "1b36:0010"
CSTS = "bar0+0x1c"  # without queues a virtual function of QEMU has the bit CFS there, and 0 elsewhere
PCI = Path("/sys/bus/pci/devices")


@pytest.fixture
def function(cards: Cards) -> Iterator[str]:
    """The address of a virtual function that no driver has."""
    subprocess.run(["modprobe", "nvme"], check=True)
    physical = next(address for address in cards(NVME) if (PCI / address / "sriov_numvfs").exists())
    rebind(physical, None)
    rebind(physical, "nvme")
    (PCI / physical / "sriov_drivers_autoprobe").write_text("0")
    (PCI / physical / "sriov_numvfs").write_text("1")
    try:
        virtual = PCI / physical / "virtfn0"
        wait_until(virtual.exists)
        yield virtual.resolve().name
    finally:
        (PCI / physical / "sriov_numvfs").write_text("0")
        rebind(physical, None)


@pytest.mark.long
def test_it_is_there(function: str) -> None:
    found = find(function)
    assert found.ids == NVME
    with Inspection(found) as device:
        assert (device.config.vendor_id, device.config.device_id) == (0xFFFF, 0xFFFF)
        assert device.config.answers
        for words in (
            ("read", function, "config+0"),
            ("dump", function, "config", "--length", "16"),
        ):
            done = command_here(*words)
            assert (done.returncode, done.stderr) == (0, "")
            assert "ffff" in done.stdout.replace(" ", "")
        # QEMU's function has, and heeds, a bit in its command register that the specification does not have.
        done = command_here("read", function, CSTS)
        assert (done.returncode, done.stdout) == (0, "0x00000000\n"), done.stderr
        advice = done.stderr.split("memory on: ")[1].split()
        assert command_here(*advice[1:]).returncode == 0
        done = command_here("read", function, CSTS)
        assert (done.stdout, done.stderr) == ("0x00000002\n", "")
    described = json.loads(command_here("info", function, "--json").stdout)
    assert described["ids"] == NVME
    with pyuio.open(function, bind=True) as opened:
        assert not opened.removed
        assert opened.config.read16(0) == 0xFFFF
        assert opened.bar(0).read32(0x1C) == 2
        assert opened.bar(0).read32(0x08) == 0  # a reason to ask whether it is there
