# SPDX-License-Identifier: MIT
"""test_iommu.py runs this program in a guest: two functions of one group, which the kernel opens for one process."""

from pyuio_drivers.edu import DMA_BUFFER, Edu

import pyuio
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.kernel.vfio import group_of
from tests.guest.support import start_dma, wait_for_dma

TEXT = b"through the memory of the other"

first, second = (str(device.address) for device in pyuio.devices() if device.ids == "1234:11e8")
assert group_of(PCI_DEVICES / first) == group_of(PCI_DEVICES / second) is not None
with Edu(pyuio.open(first, bind="vfio-pci")) as one:
    with Edu(pyuio.open(second, bind="vfio-pci")) as other:
        numbers = [one.factorial(5), other.factorial(6)]
        mine, others = one.device.dma.alloc(64), other.device.dma.alloc(64)
        others[: len(TEXT)] = TEXT
        start_dma(one, others.address, DMA_BUFFER, len(TEXT), to_memory=False)
        wait_for_dma(one)
        start_dma(one, DMA_BUFFER, mine.address, len(TEXT), to_memory=True)
        wait_for_dma(one)
        text = bytes(mine[: len(TEXT)]).decode()
    later = [one.factorial(4)]  # the group stays open
    with Edu(pyuio.open(second, bind="vfio-pci")) as other:
        later += [other.factorial(3)]
    one.to_device(b"as before")
    assert one.from_device(9) == b"as before"
print(f"one group: {numbers[0]}, {numbers[1]}, {text}; {later[0]}, {later[1]}")
