# SPDX-License-Identifier: MIT
"""The examples of the Intel 82574L on cards in Python."""

from __future__ import annotations

import runpy
import socket
import struct
from pathlib import Path
from typing import Any

from pyuio_drivers.e1000e import E1000e, internet_checksum
from pyuio_drivers.models.e1000e import E1000eCard, connect

import pyuio.model

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MAC, ASKING = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
IP, ASKING_IP = socket.inet_aton("10.0.3.2"), socket.inet_aton("10.0.3.1")
ARP = b"\xff" * 6 + ASKING + b"\x08\x06" + bytes.fromhex("0001080006040001") + ASKING + ASKING_IP + bytes(6) + IP


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def ping(payload: bytes, to: bytes = IP, kind: int = 8) -> bytes:
    icmp = struct.pack(">BBHHH", kind, 0, 0, 7, 1) + payload
    icmp = icmp[:2] + internet_checksum(icmp).to_bytes(2, "big") + icmp[4:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 9, 0, 64, 1, 0) + ASKING_IP + to
    ip = ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:]
    return (MAC + ASKING + b"\x08\x00" + ip + icmp).ljust(60, b"\0")


def test_ping() -> None:
    answer = example("nic_ping")["answer"]
    assert answer(ARP.ljust(60, b"\0"), MAC, IP) == (
        ASKING + MAC + b"\x08\x06" + bytes.fromhex("0001080006040002") + MAC + IP + ASKING + ASKING_IP
    )
    assert answer(ARP, MAC, ASKING_IP) is None
    for size in (0, 1, 18, 19, 1400):
        asked = ping(bytes(range(1, 200)) * 8 if size == 1400 else bytes(range(1, size + 1)))
        found = answer(asked, MAC, IP)
        assert found[:12] == ASKING + MAC
        assert (found[26:30], found[30:34]) == (IP, ASKING_IP)
        assert internet_checksum(found[14:34]) == 0
        assert internet_checksum(found[34:]) == 0
        assert found[34] == 0
        end = 14 + int.from_bytes(asked[16:18], "big")
        assert found[38:] == asked[38:end]
    for other in (ping(b"x", ASKING_IP), ping(b"x", kind=0), MAC + ASKING + b"\x86\xdd" + bytes(50), bytes(14)):
        assert answer(other, MAC, IP) is None


def test_forward() -> None:
    forward = example("nic_forward")["forward"]
    far, near = E1000eCard(), E1000eCard()
    ends = E1000eCard(MAC), E1000eCard(ASKING)
    connect(ends[0], far)
    connect(near, ends[1])
    far_nic, near_nic = (E1000e(pyuio.model.open(card)) for card in (far, near))
    one, other = (E1000e(pyuio.model.open(card)) for card in ends)
    with far_nic, near_nic, one, other:
        for nic in (far_nic, near_nic):
            nic.filters.promiscuous(True)
        sent = [ASKING + MAC + b"\x88\xb5" + bytes([index] * (46 + index)) for index in range(200)]
        one.send(sent)
        found: list[bytes] = []
        one.flush()
        while forward(far_nic, near_nic):
            near_nic.flush()
            found += [bytes(frame) for frame in other.receive(200, 0.1)]
        found += [bytes(frame) for frame in other.receive(200, 0.1)]
        assert found == sent
        assert forward(near_nic, far_nic) == 0
