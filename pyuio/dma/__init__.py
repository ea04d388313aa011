# SPDX-License-Identifier: MIT
"""Memory that a device reads and writes by itself: the allocator `Dma`, buffers, pools, pinned pages, rings."""

from pyuio._native._memory import dma_rmb, dma_wmb
from pyuio.dma.allocator import ALL_ADDRESSES, Dma
from pyuio.dma.buffer import DmaBuffer
from pyuio.dma.cyclic import CyclicBuffer
from pyuio.dma.pool import DmaPool
from pyuio.dma.ring import DescriptorRing
from pyuio.dma.scatter import ScatterBuffer, Segment

__all__ = [
    "ALL_ADDRESSES",
    "CyclicBuffer",
    "DescriptorRing",
    "Dma",
    "DmaBuffer",
    "DmaPool",
    "ScatterBuffer",
    "Segment",
    "dma_rmb",
    "dma_wmb",
]
