# SPDX-License-Identifier: MIT
"""Watch two cards and a pipe at once: `pyuio.wait`.

In the guest, with two of QEMU's edu cards::

    $ pyuio vm run --device edu --device edu -- python examples/two_cards.py
    0000:00:02.0: interrupts: 1, status 0x2
    0000:00:01.0: interrupts: 1, status 0x1
    0000:00:01.0: interrupts: 1, status 0x10
    0000:00:02.0: interrupts: 1, status 0x20
    the pipe: b'stop'
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import ExitStack

from pyuio_drivers.edu import Edu

import pyuio


def main() -> None:
    """Open every edu card, and serve each card that raises its interrupt, until the pipe says stop."""
    with ExitStack() as stack:
        cards = [stack.enter_context(Edu.open(found)) for found in pyuio.devices() if found.ids in Edu.ids]
        by_interrupt = {card.device.interrupt: card for card in cards}
        served, (stop, stopper) = threading.Semaphore(0), os.pipe()

        def raise_them() -> None:
            for index, bits in ((1, 0x2), (0, 0x1), (0, 0x10), (1, 0x20)):
                cards[index].raise_interrupt(bits)
                served.acquire()
            os.write(stopper, b"stop")

        threading.Thread(target=raise_them, daemon=True).start()
        running = True
        while running:
            for ready in pyuio.wait([*by_interrupt, stop], timeout=5):
                if ready == stop:
                    print("the pipe:", os.read(stop, 100))
                    running = False
                    continue
                count, card = ready.read(), by_interrupt[ready]
                status = card.interrupt_status()
                card.acknowledge(status)
                print(f"{card.device.name}: interrupts: {count}, status {status:#x}")
                served.release()


if __name__ == "__main__":
    try:
        main()
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"two_cards: {error}")
