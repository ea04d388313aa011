# SPDX-License-Identifier: MIT
"""Print an NVMe disk's identity, health and speed of reading, without the kernel's driver. It writes nothing.

In the guest, on a disk that QEMU fills with zeros::

    $ pyuio vm run --device nvme,drive=z,serial=1 --qemu '-blockdev null-co,node-name=z,size=268435456,read-zeroes=on' \
    -- python examples/nvme_disk.py
    QEMU NVMe Ctrl (serial 1, firmware ...), NVMe 1.4.0
    namespace 1: 524288 blocks of 512 bytes, 256 MiB
    ... degrees Celsius, 0 % used, 0 media errors
    0 of 100 pieces of 4096 bytes hold data
    20000 random reads, 32 outstanding: ... per second
"""

from __future__ import annotations

import random
import sys
import time

from pyuio_drivers.nvme import Nvme

import pyuio

READS = 20_000


def main(address: str | None = None) -> None:
    """Print what the disk is, and read at random places all over it."""
    with Nvme.open(address) as disk:
        controller, namespace, smart = disk.controller, disk.namespace, disk.smart()
        version = ".".join(map(str, disk.capabilities.version))
        print(f"{controller.model} (serial {controller.serial}, firmware {controller.firmware}), NVMe {version}")
        blocks, size = namespace.blocks, namespace.block_size
        print(f"namespace {namespace.number}: {blocks} blocks of {size} bytes, {namespace.size >> 20} MiB")
        health = ", ".join(smart.warnings) or f"{smart.media_errors} media errors"
        print(f"{smart.temperature} degrees Celsius, {smart.percentage_used} % used, {health}")

        count = max(1, 4096 // size)  # blocks of each read
        blocks_to_read = [random.randrange(blocks // count) * count for _ in range(READS)]
        holding = sum(any(data) for data in disk.read_many(blocks_to_read[:100], count))
        print(f"{holding} of 100 pieces of {count * size} bytes hold data")
        start = time.perf_counter()
        for _ in disk.read_many(blocks_to_read, count, depth=32):
            pass
        print(f"{READS} random reads, 32 outstanding: {READS / (time.perf_counter() - start):,.0f} per second")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"nvme_disk: {error}")
