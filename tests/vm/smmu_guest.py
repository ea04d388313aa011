# SPDX-License-Identifier: MIT
"""test_arm64_iommu.py runs this program in an arm64 guest with an SMMU: a card that no kernel driver has had yet."""

from __future__ import annotations

from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import choice
from pyuio.doctor import examine
from pyuio.kernel import vfio
from pyuio.pci.discovery import find
from tests import edu_mask  # noqa: F401  # it changes the driver

found = find("1234:11e8")
address = str(found.address)
assert vfio.group_of(found.directory) is None
chosen = choice.choose(found)
print(f"no group: {chosen.driver}, because {chosen.reason}")
print(f"doctor: {next(one for one in examine(address) if one.name == 'ways').state}")
with Edu(pyuio.open(address, bind=True)) as card:
    device = card.device
    by_line = f"{card.factorial_by_interrupt(5)} by {device.interrupt.kind}"
    card.to_device(b"through the IOMMU")
    through = card.from_device(17).decode()
with Edu(pyuio.open(address, bind=True)) as card:
    (vector,) = card.device.vectors(1)
    card.raise_interrupt(1)
    print(f"{device.driver}: {by_line}, {through}, {vector.read(20)} by {vector.kind}")
with pyuio.open(address, bind="uio_pci_generic") as device:
    try:
        device.dma.alloc(64)
    except pyuio.DmaUnavailableError as error:
        text = "its IOMMU translates"
        print(f"{device.driver}: {text if text in str(error) else error}")
