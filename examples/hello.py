# SPDX-License-Identifier: MIT
"""Hello, card: find it, open it, read and write its registers, with `pyuio.open` only and without a driver.

The card is QEMU's edu, whose data sheet is docs/specs/edu.rst in QEMU's sources. In the guest::

    $ pyuio vm run -- python examples/hello.py
    0000:00:01.0 1234:11e8 (driver: none)
    BAR 0: memory at 0x..., 0x100000 bytes, 32-bit
    identification 0x010000ed: edu, version 1.0
    0x12345678 comes back as 0xedcba987
    10! = 3628800
"""

from __future__ import annotations

import sys

import pyuio

IDENTIFICATION, LIVENESS, FACTORIAL, STATUS = 0x00, 0x04, 0x08, 0x20
COMPUTING = 0x01  # in STATUS


def main(which: str = "1234:11e8") -> None:
    """Talk to the card with this address or these ids."""
    for found in pyuio.devices():
        if which in (found.ids, found.address):
            print(found)
    # bind=True: if no UIO driver has the card, uio_pci_generic gets it until the block ends.
    with pyuio.open(which, bind=True) as device:
        print(device.config.bars()[0])
        bar = device.bar(0)
        identification = bar.read32(IDENTIFICATION)  # one load of 32 bits
        version = f"{identification >> 24}.{identification >> 16 & 0xFF}"
        print(f"identification {identification:#010x}: edu, version {version}")
        bar.write32(LIVENESS, 0x12345678)  # one store
        print(f"0x12345678 comes back as {bar.read32(LIVENESS):#x}")
        bar.write32(FACTORIAL, 10)
        bar.poll32(STATUS, COMPUTING, 0, timeout=1.0)
        print("10! =", bar.read32(FACTORIAL))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"hello: {error}")
