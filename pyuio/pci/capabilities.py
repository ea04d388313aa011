# SPDX-License-Identifier: MIT
"""The capability lists of a configuration space.

Sources: PCI Local Bus Specification 3.0, section 6.7 (the standard list); PCI Express Base Specification 5.0, section
7.6.3 (the extended list); PCI Code and ID Assignment Specification 1.11, sections 2 and 3 (the IDs). The names are
those that lspci prints, for those who read both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_HEADER_TYPE = 0x0E
_POINTER = 0x34
_CARDBUS_POINTER = 0x14  # PC Card Standard 8.0, volume 7, section 4.5: a header of type 2
_FIRST_STANDARD = 0x40
_FIRST_EXTENDED = 0x100

CAPABILITY_NAMES = {
    0x00: "Null",
    0x01: "Power Management",
    0x02: "AGP",
    0x03: "Vital Product Data",
    0x04: "Slot ID",
    0x05: "MSI",
    0x06: "CompactPCI hot-swap",
    0x07: "PCI-X",
    0x08: "HyperTransport",
    0x09: "Vendor Specific Information",
    0x0A: "Debug port",
    0x0B: "CompactPCI central resource control",
    0x0C: "Hot-plug capable",
    0x0D: "Subsystem",
    0x0E: "AGP3",
    0x0F: "Secure device",
    0x10: "Express",
    0x11: "MSI-X",
    0x12: "SATA HBA",
    0x13: "PCI Advanced Features",
    0x14: "Enhanced Allocation (EA)",
    0x15: "Flattening Portal Bridge",
}

EXTENDED_CAPABILITY_NAMES = {
    0x0000: "Null",
    0x0001: "Advanced Error Reporting",
    0x0002: "Virtual Channel",
    0x0003: "Device Serial Number",
    0x0004: "Power Budgeting",
    0x0005: "Root Complex Link",
    0x0006: "Root Complex Internal Link",
    0x0007: "Root Complex Event Collector Endpoint Association",
    0x0008: "Multi-Function Virtual Channel",
    0x0009: "Virtual Channel",
    0x000A: "Root Complex Register Block",
    0x000B: "Vendor Specific Information",
    0x000C: "Configuration Access Correlation",
    0x000D: "Access Control Services",
    0x000E: "Alternative Routing-ID Interpretation (ARI)",
    0x000F: "Address Translation Service (ATS)",
    0x0010: "Single Root I/O Virtualization (SR-IOV)",
    0x0011: "Multi-Root I/O Virtualization",
    0x0012: "Multicast",
    0x0013: "Page Request Interface (PRI)",
    0x0015: "Physical Resizable BAR",
    0x0016: "Dynamic Power Allocation",
    0x0017: "Transaction Processing Hints",
    0x0018: "Latency Tolerance Reporting",
    0x0019: "Secondary PCI Express",
    0x001A: "Protocol Multiplexing",
    0x001B: "Process Address Space ID (PASID)",
    0x001C: "LN Requester",
    0x001D: "Downstream Port Containment",
    0x001E: "L1 PM Substates",
    0x001F: "Precision Time Measurement",
    0x0020: "PCI Express over M_PHY",
    0x0021: "FRS Queueing",
    0x0022: "Readiness Time Reporting",
    0x0023: "Designated Vendor-Specific",
    0x0024: "Virtual Resizable BAR",
    0x0025: "Data Link Feature",
    0x0026: "Physical Layer 16.0 GT/s",
    0x0027: "Lane Margining at the Receiver",
    0x0028: "Hierarchy ID",
    0x0029: "Native PCIe Enclosure Management",
    0x002A: "Physical Layer 32.0 GT/s",
    0x002B: "Alternate Protocol",
    0x002C: "System Firmware Intermediary",
    0x002D: "Shadow Functions",
    0x002E: "Data Object Exchange",
    0x002F: "Device 3",
    0x0030: "Integrity & Data Encryption",
    0x0031: "Physical Layer 64.0 GT/s",
    0x0032: "Flit Logging",
    0x0033: "Flit Performance Measurement",
    0x0034: "Flit Error Injection",
    0x0035: "Streamlined Virtual Channel",
    0x0036: "MMIO Register Block Locator",
    0x0037: "NOP Flit",
    0x0038: "Scalable I/O Virtualization",
    0x0039: "Physical Layer 128.0 GT/s",
    0x003A: "Captured Data",
}


class Capability(NamedTuple):
    """One entry of a capability list.

    Attributes:
        id: 8 bits, or 16 bits for an extended capability.
        name: the name that lspci prints, or "unknown".
        offset: of its first byte in configuration space.
        version: of an extended capability; None for a standard one.
    """

    id: int
    name: str
    offset: int
    version: int | None = None


def walk_standard(image: bytes) -> Iterator[Capability]:
    """Yield the standard capabilities of a configuration space's first 256 bytes, in the order of the list.

    The walk stops where the list leaves the image or returns to an entry that it has visited.
    """
    seen: set[int] = set()
    offset = image[_CARDBUS_POINTER if image[_HEADER_TYPE] & 0x7F == 2 else _POINTER] & 0xFC
    while _FIRST_STANDARD <= offset <= len(image) - 2 and offset not in seen:
        seen.add(offset)
        identity, following = image[offset], image[offset + 1]
        if identity == 0xFF:
            return
        yield Capability(identity, CAPABILITY_NAMES.get(identity, "unknown"), offset)
        offset = following & 0xFC


def walk_extended(image: bytes) -> Iterator[Capability]:
    """Yield the extended capabilities of a whole configuration space, in the order of the list.

    The walk stops where the list leaves the image or returns to an entry that it has visited. An image of 256 bytes has
    no extended capabilities.
    """
    seen: set[int] = set()
    offset = _FIRST_EXTENDED
    while _FIRST_EXTENDED <= offset <= len(image) - 4 and offset not in seen:
        seen.add(offset)
        header = int.from_bytes(image[offset : offset + 4], "little")
        if header in (0, 0xFFFFFFFF):
            return
        identity = header & 0xFFFF
        name = EXTENDED_CAPABILITY_NAMES.get(identity, "unknown")
        yield Capability(identity, name, offset, version=header >> 16 & 0xF)
        offset = header >> 20 & 0xFFC
