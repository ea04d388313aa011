# SPDX-License-Identifier: MIT
"""Give Linux a network interface whose driver is Python: join an Intel 82574L to a TAP device. Ctrl-C ends both.

python examples/nic_tap.py tap0 0000:03:00.0 &
ip address add 10.0.3.1/24 dev tap0
ping 10.0.3.2
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress

from pyuio_drivers.e1000e import E1000e

from pyuio import PyuioError

TUNSETIFF, SIOCSIFHWADDR, IFF_TAP, IFF_NO_PI, ARPHRD_ETHER = 0x400454CA, 0x8924, 2, 0x1000, 1  # linux/if_tun.h
BATCH = 64


def open_tap(name: str, mac: bytes) -> int:
    """Make a TAP device with an address, switch it on, and return its descriptor, which does not block."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["sh", "-c", "udevadm settle || :"], check=True)  # udev sets an address of its own a little later
    fcntl.ioctl(tap, SIOCSIFHWADDR, struct.pack("16sH6s16x", name.encode(), ARPHRD_ETHER, mac))
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    return tap


def main(name: str, card: str | None = None) -> None:
    """Pass frames on, in both directions, until a signal comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), E1000e.open(card, by_interrupt=True) as nic:
        nic.filters.promiscuous(False, all_multicast=True)  # IPv6 asks for neighbours so
        tap = open_tap(name, nic.mac)
        print(f"{name} is {nic.device.name}, {nic.mac.hex(':')}", flush=True)
        while True:
            received, to_send = nic.receive(BATCH, 0), list[bytes]()
            for frame in received:
                os.write(tap, frame)
            with suppress(BlockingIOError):  # when Linux has no more to send
                while len(to_send) < BATCH:
                    to_send.append(os.read(tap, 2048))
            nic.send(to_send)
            if not received and not to_send:
                nic.wait([tap])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (PyuioError, OSError) as error:
        sys.exit(f"nic_tap: {error}")
