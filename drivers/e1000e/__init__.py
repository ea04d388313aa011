# SPDX-License-Identifier: MIT
"""The Intel 82574L, a network card: ``with E1000e.open() as nic: nic.send(frames)``.

It follows the data sheet 317694, revision 2.7, and cites its sections. Read in this order:

1. `basic`: reset the card, read its address, set up the rings; a frame out, a frame in, by polling.
2. `registers` and `descriptors`: what that uses, by name.
3. `transmit` and `receive`: many frames at once.
4. `nic`: the driver that programs use.
5. `interrupts`: sleeping until the card interrupts.
6. `eeprom`, `phy`, `filters`, `offload`, `statistics`, `errors`: one thing each.
"""

from pyuio_drivers.e1000e.errors import E1000eError, EepromError, PhyError
from pyuio_drivers.e1000e.nic import E1000e
from pyuio_drivers.e1000e.offload import InsertChecksums, internet_checksum
from pyuio_drivers.e1000e.phy import Link
from pyuio_drivers.e1000e.receive import Received

__all__ = [
    "E1000e",
    "E1000eError",
    "EepromError",
    "InsertChecksums",
    "Link",
    "PhyError",
    "Received",
    "internet_checksum",
]
