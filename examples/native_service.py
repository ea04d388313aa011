# SPDX-License-Identifier: MIT
"""A native service: C code acknowledges each interrupt at once; Python reads the events when it has time.

In the guest, on QEMU's edu card::

    $ pyuio vm run -- python examples/native_service.py
    100 interrupts raised, and acknowledged without Python; 0 events lost
    status of the first three: 0x1, 0x2, 0x3
"""

from __future__ import annotations

import sys

from pyuio_drivers.edu import Edu

import pyuio

INTERRUPTS = 100


def main(address: str | None = None) -> None:
    """Raise interrupts, wait until each is acknowledged, and only then look at the events."""
    # Edu.acknowledge_program reads the status, keeps it, and writes it back.
    with Edu.open(address) as card, pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        for number in range(INTERRUPTS):
            card.raise_interrupt(number + 1)
            card.registers.interrupt_status.poll(lambda status: status.read() == 0, timeout=1.0)
        events: list[pyuio.Event] = []
        while len(events) < INTERRUPTS:
            events += service.read(timeout=1.0)
        print(f"{len(events)} interrupts raised, and acknowledged without Python; {service.lost} events lost")
    print("status of the first three:", ", ".join(hex(event.values["status"]) for event in events[:3]))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"native_service: {error}")
