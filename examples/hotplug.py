# SPDX-License-Identifier: MIT
"""A driver that survives the removal of its card, and opens it again when it comes back: `pyuio.Hotplug`.

Another thread unplugs the card by sysfs, and later lets the kernel search the bus again. In the guest, on QEMU's edu
card::

    $ pyuio vm run -- python examples/hotplug.py
    0000:00:01.0: open, 5! = 120
    0000:00:01.0: gone while its interrupt was waited for
    remove 0000:00:01.0 1234:11e8
    add 0000:00:01.0 1234:11e8
    0000:00:01.0: open, 5! = 120
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pyuio_drivers.edu import Edu

import pyuio


def unplug(address: str, again: threading.Event) -> None:
    """Remove the card, and let the kernel find it again when `again` is set."""
    Path("/sys/bus/pci/devices", address, "remove").write_text("1")
    again.wait()
    Path("/sys/bus/pci/rescan").write_text("1")


def main(address: str | None = None) -> None:
    """Drive the card, whenever it is plugged in, until nothing happens any more."""
    again = threading.Event()
    with pyuio.Hotplug(Edu.ids) as hotplug:
        with Edu.open(address) as card:
            name = card.device.name
            print(f"{name}: open, 5! = {card.factorial(5)}")
            threading.Thread(target=unplug, args=(name, again), daemon=True).start()
            try:
                card.device.interrupt.read(timeout=30)
            except pyuio.DeviceRemovedError:
                print(f"{name}: gone while its interrupt was waited for")
        again.set()
        for event in hotplug.events(timeout=10):
            print(event)
            if event.action == "add":
                with Edu.open(event.device) as card:
                    print(f"{card.device.name}: open, 5! = {card.factorial_by_interrupt(5)}")
                break  # a real driver would go on


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"hotplug: {error}")
