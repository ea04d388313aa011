# SPDX-License-Identifier: MIT
"""Read a PL031 clock of a system on chip, and sleep until its alarm.

docs/platform.md shows the device tree that gives the clock to uio_pdrv_genirq. On QEMU's virt machine it prints, for
example:

    7c0: the clock says 2026-11-30 07:10:00
    the alarm came 2 s later
"""

from __future__ import annotations

from datetime import datetime, timezone

from pyuio_drivers.pl031 import Pl031

with Pl031.open() as clock:
    now = clock.time
    print(f"{clock.device.name}: the clock says {datetime.fromtimestamp(now, timezone.utc):%Y-%m-%d %H:%M:%S}")
    clock.set_alarm(now + 2)
    print(f"the alarm came {clock.wait(timeout=10) - now} s later")
