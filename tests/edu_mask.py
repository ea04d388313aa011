# SPDX-License-Identifier: MIT
"""Lets the edu driver reach memory on QEMU's arm64 machine, whose memory begins at 1 GiB, beyond edu's usual 28 bits.

The cards there have a mask of all addresses: `WIDE`.
"""

from __future__ import annotations

import os

from pyuio_drivers.edu import Edu

ALL_ADDRESSES = (1 << 64) - 1
WIDE = f"edu,dma_mask={ALL_ADDRESSES:#x}"  # for QEMU's -device
ARGUMENTS: dict[str, object] = {"driver": "edu"}  # for device_add of QEMU's monitor, in a guest

if os.uname().machine == "aarch64":
    Edu.dma_mask = ALL_ADDRESSES
    ARGUMENTS["dma_mask"] = ALL_ADDRESSES
