# SPDX-License-Identifier: MIT
"""Whether this kernel is PREEMPT_RT, and which UIO driver must not be used with one.

Source: Documentation/locking/locktypes.rst, "PREEMPT_RT caveats".
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from pyuio.errors import KernelSupportError
from pyuio.kernel.drivers import IGB_UIO
from pyuio.kernel.sysfs import read_optional

# It requests IRQF_NO_THREAD in all its interrupt modes (dpdk-kmods, linux/igb_uio/igb_uio.c,
# igbuio_pci_enable_interrupts).
FREEZES = IGB_UIO

WHY = (
    f"{FREEZES} can freeze a PREEMPT_RT kernel: its interrupt handler is not made a thread there (IRQF_NO_THREAD), and "
    "wakes a waiting program under a lock that may sleep"
)


def says_realtime(version: str) -> bool:
    """Return whether ``uname -v`` printed the version of a PREEMPT_RT kernel."""
    # The patches for kernels before Linux 5.4 used the form "PREEMPT RT".
    return bool(re.search(r"\bPREEMPT[_ ]RT\b", version))


def is_realtime() -> bool:
    """Return whether this kernel is PREEMPT_RT: ``/sys/kernel/realtime`` is 1, or ``uname -v`` says so."""
    return read_optional(Path("/sys/kernel/realtime")) == "1" or says_realtime(os.uname().version)


def refuse_what_freezes(device: str, driver: str | None) -> None:
    """Raise KernelSupportError if an interrupt that a kernel driver delivers could freeze the machine.

    Args:
        device: the device's name, for the message.
        driver: the kernel driver that has the device, or is about to get it.
    """
    if driver == FREEZES and is_realtime():
        raise KernelSupportError(errno.EOPNOTSUPP, f"{device}: {WHY}; bind uio_pci_generic instead, which is safe")
