# SPDX-License-Identifier: MIT
"""Forward all frames between two Intel 82574L cards, in both directions, and print how many there were.

    python examples/nic_forward.py 0000:03:00.0 0000:04:00.0

Ctrl-C ends it. Nothing is copied from the first card but into the memory of the second.
"""

from __future__ import annotations

import signal
import sys
import time

from pyuio_drivers.e1000e import E1000e

import pyuio

BATCH = 256  # frames, half the ring
IDLE = 0.0005  # seconds to sleep when both were idle


def forward(one: E1000e, other: E1000e) -> int:
    """Forward what has come to one card, and return how many frames that were."""
    frames = one.receive(BATCH, 0)
    other.send(frames)
    return len(frames)


def main(first: str, second: str) -> None:
    """Forward until a signal comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    forwarded = [0, 0]
    with E1000e.open(first) as one, E1000e.open(second) as other:
        for nic in (one, other):
            nic.filters.promiscuous(True)
        print(f"forwarding between {first} and {second}", flush=True)
        try:
            while True:
                there, back = forward(one, other), forward(other, one)
                forwarded[0] += there
                forwarded[1] += back
                if not there and not back:
                    time.sleep(IDLE)
        except KeyboardInterrupt:
            print(f"{forwarded[0]} frames there, {forwarded[1]} back")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: nic_forward.py ADDRESS ADDRESS")
    try:
        main(*sys.argv[1:])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"nic_forward: {error}")
