# SPDX-License-Identifier: MIT
"""BARs: `Region` for a BAR in memory, `PortRegion` for a BAR of I/O ports; mapping BARs, and tracing accesses.

Both have the same methods. Offsets are in bytes from the start of the BAR. Registers wider than a byte are
little-endian, as PCI is, unless the region or a single call says ``endian="big"``.
"""

from pyuio.region.memory import Region
from pyuio.region.ports import PortRegion

__all__ = ["PortRegion", "Region"]
