# SPDX-License-Identifier: MIT
"""test_hugepages.py runs this program in a guest: DMA memory from the 1 GiB hugepage that was set aside at boot."""

from pyuio_drivers.edu import DMA_BUFFER, Edu

import pyuio
from pyuio.dma.allocator import ALL_ADDRESSES
from pyuio.kernel.hugepages import hugepages
from tests.guest.support import start_dma, wait_for_dma

small, large = hugepages()
assert (small.size, large.size) == (2 << 20, 1 << 30)
assert (large.total, large.free) == (1, 1)

address = next(device.address for device in pyuio.devices() if device.ids == "1234:11e8")
assert address is not None
with Edu.open(address) as card:
    dma = card.device.dma
    dma.mask = ALL_ADDRESSES
    with dma.alloc(5 << 20) as buffer, dma.alloc(3 << 20, align=4 << 20) as other:
        assert buffer.page is other.page
        assert buffer.page.size == large.size
        assert other.address % (4 << 20) == 0
        assert (large.total, large.free) == (1, 0)
        assert bytes(buffer) == bytes(5 << 20)
        buffer.verify()
        # A transfer out and in again, across an address at which smaller hugepages would have a border.
        border = (2 << 20) - 50
        buffer[border : border + 100] = bytes(range(100))
        for source, destination, to_memory in (
            (buffer.address + border, DMA_BUFFER, False),
            (DMA_BUFFER, other.address + border, True),
        ):
            start_dma(card, source, destination, 100, to_memory)
            wait_for_dma(card)
        assert bytes(other[border : border + 100]) == bytes(range(100))
        assert not any(bytes(other[:border]))
        with dma.alloc(100) as little:
            assert little.page.size in (small.size, large.size)
    with dma.alloc(1 << 30) as whole:
        assert whole.page.size == large.size
        whole.verify()
        whole[-1:] = b"e"
        try:
            dma.alloc(8 << 30)
        except pyuio.DmaMemoryError as error:
            print(error)
    with dma.pool(300, 3 << 20) as pool:
        taken = [pool.take() for _ in range(300)]
        assert len({one.address for one in taken}) == 300
assert (large.total, large.free) == (1, 1)
assert small.total == 0
print("all is well")
