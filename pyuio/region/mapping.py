# SPDX-License-Identifier: MIT
"""The mapping under a `Region`, by periphery. The first region imports this module, and so periphery."""

from __future__ import annotations

import mmap

from periphery import MMIO


class Mapping(MMIO):
    """periphery's MMIO without its finalizer, which would complain if it ran before that of the region."""

    mapping: mmap.mmap

    def __del__(self) -> None:
        """Do nothing: the mmap object unmaps when its last user is gone."""
