# SPDX-License-Identifier: MIT
"""The descriptors of the Intel 82574L: what the driver and the card tell each other about one buffer in memory.

Each has 16 bytes. "Section" is one of the data sheet 317694.
"""

from __future__ import annotations

from pyuio import DescriptorRing, Device

SIZE = 16  # bytes of a descriptor
DONE = 1  # Descriptor Done (DD): the card sets it in a received descriptor, and at TRANSMIT_DONE in a transmitted one

# Section 7.2.10: the buffer's address in bytes 0 to 7; what to do in bytes 8 to 11, and the status in the rest.
TRANSMIT_FIELDS = {"address": (0, 64), "command": (8, 64)}
EOP = 1 << 24  # End Of Packet; the length is in bits 0 to 15, or 19
IFCS = 1 << 25  # Insert FCS, the CRC
RS = 1 << 27  # Report Status: set TRANSMIT_DONE when the card has fetched the frame
DEXT = 1 << 29  # Descriptor Extension: a context (7.2.10.2), or with DATA frame data (7.2.10.3)
DATA = 1 << 20  # DTYP
VLE = 1 << 30  # VLAN Packet Enable: insert the tag
TRANSMIT_DONE = DONE << 32
IXSM, TXSM = 1 << 40, 1 << 41  # POPTS: insert the IP checksum; the TCP or UDP checksum
VLAN_SHIFT = 48  # the tag, in both kinds of descriptors
CONTEXT_TCP, CONTEXT_IP = 1 << 24, 1 << 25  # TUCMD: the transport is TCP; the network is IPv4

# Section 7.1.4: the driver writes the buffer's address and 0, and the card writes over both.
RECEIVE_FIELDS = {"address": (0, 64), "status": (8, 64)}
EOP_RECEIVED = 1 << 1  # status: End Of Packet
TAG_STRIPPED = 1 << 3  # VP: the tag is in bits 48 to 63
TRANSPORT_CHECKED = 1 << 5  # L4CS: the card has checked the TCP or UDP checksum
IP_CHECKED = 1 << 6  # IPCS
FRAME_ERRORS = 0x97 << 24  # CE, SE, SEQ, CXE and RXE: the frame is damaged
TRANSPORT_ERROR, IP_ERROR = 1 << 29, 1 << 30  # L4E and IPE: a checksum is wrong
LENGTH_SHIFT = 32  # 16 bits


def allocate_ring(device: Device, entries: int, fields: dict[str, tuple[int, int]]) -> DescriptorRing:
    """Return a ring of descriptors that the card does not use yet. DmaMemoryError: there is not enough memory."""
    # The tail registers tell whose a descriptor is, so the field that is written last matters to the reader only.
    return DescriptorRing(device.dma.alloc(entries * SIZE), entry_size=SIZE, fields=fields, owner=list(fields)[1])
