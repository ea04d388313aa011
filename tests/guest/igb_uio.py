# SPDX-License-Identifier: MIT
"""Builds igb_uio, a UIO driver with irqcontrol, for the guest's kernel from Debian's package of its source.

``python -m tests.guest.igb_uio VERSION DIRECTORY`` leaves ``DIRECTORY/igb_uio-VERSION.ko``; it runs on the host.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.guest import kernel_module

MODULE = kernel_module.Module("igb_uio", package="dpdk-kmods-dkms")

if __name__ == "__main__":
    print(*kernel_module.build(sys.argv[1], Path(sys.argv[2]), MODULE))
