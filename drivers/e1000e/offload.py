# SPDX-License-Identifier: MIT
"""Checksums: those that the Intel 82574L inserts into frames, and the same in Python."""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

from pyuio_drivers.e1000e.descriptors import CONTEXT_IP, CONTEXT_TCP, DATA, DEXT, IXSM, TXSM

_IP_CHECKSUM, _SHORTEST_IP = 10, 20  # bytes of the IPv4 header before its checksum, and without options: RFC 791
_MOST = 255  # of an offset, which has 8 bits in the context descriptor


def internet_checksum(data: bytes | bytearray | memoryview) -> int:
    """Return the checksum of RFC 1071 over some bytes, as the number whose big-endian bytes go into a header.

    Over data that contains its right checksum it is 0.
    """
    octets = bytes(data)
    # The sum does not depend on the byte order, but for its own: RFC 1071, section 2.
    total = sum(array("H", octets + b"\0" * (len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes((~total & 0xFFFF).to_bytes(2, sys.byteorder), "big")


class InsertChecksums(NamedTuple):
    """Which checksums the card inserts into frames: data sheet 317694, section 7.2.10.2 (the context descriptor).

    The transport's checksum field must hold the sum over the pseudo header (not inverted) before, which the card adds
    to. The IP checksum field must hold 0.

    Attributes:
        ip: where the IPv4 header begins, in bytes from the start of the frame, 0 to 245; None for no IP checksum.
        transport: where the TCP or UDP header begins, up to 239 for TCP, 249 for UDP; None for no such checksum. The IP
            header ends there. Without it, the IP header must have 20 bytes, that is no options.
        tcp: whether the transport is TCP, and not UDP.
    """

    ip: int | None
    transport: int | None
    tcp: bool = False

    @property
    def context(self) -> tuple[int, int]:
        """The two halves of the context descriptor. ValueError: an offset does not fit, or lies in the IP header."""
        ip, transport = self.ip or 0, self.transport or 0
        offset = 16 if self.tcp else 6  # of the checksum in the transport's header
        least = ip + _SHORTEST_IP if self.ip is not None else 0
        if not 0 <= ip <= _MOST - _IP_CHECKSUM:
            raise ValueError(f"the IP header begins at 0 to {_MOST - _IP_CHECKSUM}, not {ip}")
        if self.transport is not None and not least <= transport <= _MOST - offset:
            raise ValueError(f"the transport's header begins at {least} to {_MOST - offset}, not {transport}")
        ip_end = 0 if self.ip is None else (least if self.transport is None else transport) - 1
        first = ip | (ip + _IP_CHECKSUM) << 8 | ip_end << 16  # IPCSS, IPCSO, IPCSE
        first |= (transport | (transport + offset) << 8) << 32  # TUCSS, TUCSO; a TUCSE of 0 is the end of the frame
        second = DEXT | (CONTEXT_IP if self.ip is not None else 0) | (CONTEXT_TCP if self.tcp else 0)
        return first, second

    @property
    def command(self) -> int:
        """What a data descriptor of such a frame has in its second half."""
        insert = (IXSM if self.ip is not None else 0) | (TXSM if self.transport is not None else 0)
        return DEXT | DATA | insert
