# SPDX-License-Identifier: MIT
"""test_iommu.py runs this program in a guest: DMA memory under an IOMMU that translates, and one that does not."""

from pathlib import Path

from pyuio_drivers.edu import Edu

import pyuio
from pyuio.pci import Command
from tests.guest.support import attribute

address = next(device.address for device in pyuio.devices() if device.ids == "1234:11e8")
assert address is not None
kind = attribute(address, "iommu_group/type")
assert kind in ("DMA", "DMA-FQ"), kind
with pyuio.open(address, bind="uio_pci_generic") as device:
    refusal = None
    try:
        device.dma.alloc(64)
    except pyuio.DmaUnavailableError as error:
        refusal = error
    assert isinstance(refusal, OSError), "memory was handed out under an IOMMU that translates"
    print(f"refused: {refusal}")
    assert not device.config.command & Command.BUS_MASTER

# This does for this group alone what iommu=pt does at boot. No driver may be bound.
Path("/sys/bus/pci/devices", address, "iommu_group/type").write_text("identity")
with pyuio.open(address, bind="uio_pci_generic") as device:
    card = Edu(device)
    card.to_device(b"through the IOMMU")
    print("identity:", card.from_device(17).decode())
