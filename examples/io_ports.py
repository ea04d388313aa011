# SPDX-License-Identifier: MIT
"""Registers in I/O ports: a BAR in ports has the methods of a BAR in memory, and each access costs a system call.

The card is QEMU's pci-testdev, whose data sheet is docs/specs/pci-testdev.rst in QEMU's sources. In the guest::

    $ pyuio vm run --device pci-testdev -- python examples/io_ports.py
    BAR 1: io at 0x..., 0x... bytes, 32-bit
    portio-no-eventfd: accesses of 1 bytes at offset 0x...
    portio-wildcard-eventfd: accesses of 1 bytes at offset 0x...
    portio-datamatch-eventfd: accesses of 1 bytes at offset 0x...
    a register in ports takes ... times as long as one in memory
"""

from __future__ import annotations

import sys
import time

import pyuio


class TestHeader(pyuio.RegisterMap):
    """The header that describes the selected test."""

    test = pyuio.Register(0x00, width=8)
    width = pyuio.Register(0x01, width=8, access="ro")
    offset = pyuio.Register(0x04, access="ro")
    name = pyuio.registers.Memory(pyuio.Register(0x10, width=8, access="ro"), 32)


def seconds(region: pyuio.region.Region | pyuio.region.PortRegion) -> float:
    """Return how long 200 reads of a register take."""
    start = time.perf_counter()
    for _ in range(200):
        region.read8(1)
    return time.perf_counter() - start


def main(which: str = "1b36:0005") -> None:
    """List the tests that the card has in its ports."""
    with pyuio.open(which, bind=True) as device:
        print(next(bar for bar in device.config.bars() if bar.kind == "io"))
        ports = device.bar(1)  # a PortRegion; the register map does not care
        header = TestHeader(ports)
        for number in range(3):
            header.test.write(number)
            name = bytes(one.read() for one in header.name).split(b"\0")[0].decode()
            print(f"{name}: accesses of {header.width.read()} bytes at offset {header.offset.read():#x}")
        slower = seconds(ports) / seconds(device.bar(0))
        print(f"a register in ports takes {slower:.1f} times as long as one in memory")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"io_ports: {error}")
