# SPDX-License-Identifier: MIT
"""A `Region` for the register layer that PeakRDL-PyRAL makes, which reaches the card through an ``HWIO``.

This module needs peakrdl-pyral-runtime: ``pip install peakrdl-pyral-runtime``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakrdl_pyral_runtime.hwio import HWIO

if TYPE_CHECKING:
    from pyuio.region import PortRegion, Region

_WORD = 4  # bytes of the access that each bus of a card understands


class RegionHWIO(HWIO):
    """Accesses of a register layer, each by one access of exactly its width to a region.

    Runs of bytes (``read_bytes``, ``write_bytes``) are made of 32-bit accesses, since many cards have a bus that
    understands no others.

    Args:
        region: the region; its start is the address 0.
        offset: bytes that are added to each address.

    Raises:
        ValueError: an access is misaligned or outside of the region, or a value does not fit; raised by the accesses. A
            run of bytes does not start at a multiple of 4, or has a length that is none.
        NotImplementedError: the size of an access is not 1, 2, 4 or 8 bytes.
    """

    def __init__(self, region: Region | PortRegion, offset: int = 0) -> None:
        super().__init__(offset)
        self._region = region
        self._reads = {1: region.read8, 2: region.read16, 4: region.read32, 8: region.read64}
        self._writes = {1: region.write8, 2: region.write16, 4: region.write32, 8: region.write64}

    def _read_impl(self, addr: int, size: int) -> int:
        if size not in self._reads:
            raise NotImplementedError(f"an access has 1, 2, 4 or 8 bytes, not {size}")
        return self._reads[size](addr)

    def _write_impl(self, addr: int, value: int, size: int) -> None:
        if size not in self._writes:
            raise NotImplementedError(f"an access has 1, 2, 4 or 8 bytes, not {size}")
        self._writes[size](addr, value)

    def _read_bytes_impl(self, addr: int, size: int) -> bytearray:
        return bytearray(self._region.read(addr, size, _WORD))

    def _write_bytes_impl(self, addr: int, data: bytes | bytearray) -> None:
        self._region.write(addr, data, _WORD)

    async def _aread_bytes_impl(self, addr: int, size: int) -> bytearray:
        return self._read_bytes_impl(addr, size)

    async def _awrite_bytes_impl(self, addr: int, data: bytes | bytearray) -> None:
        self._write_bytes_impl(addr, data)
