# SPDX-License-Identifier: MIT
"""Be a host on the network, in Python alone: answer ARP and ping on an Intel 82574L. Ctrl-C ends it.

python examples/nic_ping.py 10.0.3.2 0000:03:00.0
"""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import suppress

from pyuio_drivers.e1000e import E1000e, internet_checksum

import pyuio

ARP, IPV4, ICMP, ECHO_REQUEST = b"\x08\x06", b"\x08\x00", 1, 8  # RFC 792
ARP_REQUEST, ARP_REPLY = bytes.fromhex("0001080006040001"), bytes.fromhex("0001080006040002")  # RFC 826


def arp_reply(frame: bytes, mac: bytes, ip: bytes) -> bytes | None:
    """Return the answer to who has our address; None if that is not the question."""
    if frame[14:22] != ARP_REQUEST or frame[38:42] != ip:
        return None
    return frame[6:12] + mac + ARP + ARP_REPLY + mac + ip + frame[22:32]


def echo_reply(frame: bytes, mac: bytes, ip: bytes) -> bytes | None:
    """Return the answer to a ping; None if it is none, or not for us."""
    start, end = 14 + 4 * (frame[14] & 15), 14 + int.from_bytes(frame[16:18], "big")  # of the ICMP message
    if frame[23] != ICMP or frame[30:34] != ip or frame[start] != ECHO_REQUEST:
        return None
    checksum = internet_checksum(b"\0\0\0\0" + frame[start + 4 : end]).to_bytes(2, "big")
    # To exchange source and destination does not change the checksum of the IP header.
    header = frame[14:26] + ip + frame[26:30] + frame[34:start]
    return frame[6:12] + mac + IPV4 + header + b"\0\0" + checksum + frame[start + 4 : end]


def answer(frame: bytes, mac: bytes, ip: bytes) -> bytes | None:
    """Return the answer to a frame, or None."""
    kinds = {ARP: arp_reply, IPV4: echo_reply}
    return kinds[frame[12:14]](frame, mac, ip) if len(frame) >= 42 and frame[12:14] in kinds else None


def main(address: str, card: str | None = None) -> None:
    """Answer until a signal comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), E1000e.open(card, by_interrupt=True) as nic:
        print(f"{address} is at {nic.mac.hex(':')}", flush=True)
        while True:
            answers = [answer(bytes(frame), nic.mac, socket.inet_aton(address)) for frame in nic.receive(timeout=None)]
            nic.send([one for one in answers if one])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (pyuio.PyuioError, OSError) as error:
        sys.exit(f"nic_ping: {error}")
