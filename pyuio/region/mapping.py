# SPDX-License-Identifier: MIT
"""The mapping under a `Region`, by periphery, which is imported with this module: when the first region is made."""

from __future__ import annotations

import mmap

from periphery import MMIO


class Mapping(MMIO):
    """periphery's MMIO, which would complain on garbage collection if it came before the region that uses it."""

    mapping: mmap.mmap

    def __del__(self) -> None:
        """Leave it to the mmap object, which unmaps when its last user is gone."""
