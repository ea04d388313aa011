# SPDX-License-Identifier: MIT
"""Errors on the link of a card behind a port, nonfatal and fatal, while a driver has the card.

QEMU 7.2 passes on no correctable ones; tests/guest/commands/test_link_errors.py has those.

link_errors_guest.py runs in the guest, and has QEMU inject them (pcie_aer_inject_error).
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Vm
from .qmp import converse

DEVICES = (
    "pcie-root-port,id=root0,chassis=1,addr=10,x-speed=5",
    "virtio-rng-pci,bus=root0,id=card,aer=on,disable-legacy=on",
)


def run_guest(directory: Path, driver: str, *options: str, append: str = "") -> dict[str, Any]:
    """Run link_errors_guest.py, and return its results."""
    vm = Vm()
    vm.append = append
    path = directory / "qmp"
    words = [f"--qemu=-qmp unix:{path},server=on,wait=off", *options, *(f"--device={device}" for device in DEVICES)]
    command = [*vm.command(*words), "--", sys.executable, "-m", "tests.vm.link_errors_guest", driver]
    found = asyncio.run(asyncio.wait_for(converse(command, path), 150))
    assert "failed" not in found, found["failed"]
    assert not vm.left()
    return found


EVENTS = {
    "nonfatal event": "error 0000:01:00.0 1af4:1044: nonfatal 1 (CmpltTO 1)",
    # The kernel does not ask the card which error it was, as the link is not reliable; the port has the message.
    "fatal event": "error 0000:00:10.0 1b36:000c: fatal 1",
}


@pytest.mark.long
def test_uio(tmp_path: Path) -> None:
    """After a fatal error the card has forgotten all, and the waiting goes on; remove and rescan give it back."""
    assert run_guest(tmp_path, "uio_pci_generic") == {
        **EVENTS,
        "reports": True,
        "nonfatal": {"register": 1, "bars": "good"},
        "fatal": {"register": 0, "bars": "blocks"},
        "waiting": [],
        "logged": [],
        "again": {"register": 1, "bars": "good"},
    }


@pytest.mark.long
def test_vfio(tmp_path: Path) -> None:
    """After a fatal error each wait and access ends; opening the card again is enough."""
    iommu = ("--machine=q35,kernel-irqchip=split", "--qemu=-device intel-iommu,intremap=on,caching-mode=on")
    found = run_guest(tmp_path, "vfio-pci", *iommu, append="intel_iommu=on")
    logged = found.pop("logged")
    assert "something was lost; counted by now: nonfatal 1 (CmpltTO 1)" in logged[0]
    assert "a fatal error on its link" in logged[1]
    assert found == {
        **EVENTS,
        "reports": True,
        "nonfatal": {"register": 1, "bars": "good"},
        "fatal": {"register": "DeviceRemovedError", "bars": "good"},
        "waiting": ["DeviceRemovedError"],
        "again": {"register": 1, "bars": "good"},
    }
