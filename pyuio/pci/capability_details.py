# SPDX-License-Identifier: MIT
"""The decoded registers of the capabilities that a driver's author asks about first.

Sources: PCI Local Bus Specification 3.0, section 6.8 (MSI, MSI-X); PCI Bus Power Management Interface Specification
1.2, section 3.2; PCI Express Base Specification 5.0, sections 7.5.3 (PCI Express), 7.9.3 (serial number), 7.9.4 and
7.9.5 (vendor-specific), 9.3.3 (SR-IOV); PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5.13 (subsystem).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pyuio.pci.capabilities import Capability
from pyuio.pci.config_image import ConfigImage

Details: TypeAlias = dict[str, int | str | bool]

_PORT_TYPES = {
    0x0: "Endpoint",
    0x1: "Legacy Endpoint",
    0x4: "Root Port",
    0x5: "Upstream Port",
    0x6: "Downstream Port",
    0x7: "PCI-Express to PCI/PCI-X Bridge",
    0x8: "PCI/PCI-X to PCI-Express Bridge",
    0x9: "Root Complex Integrated Endpoint",
    0xA: "Root Complex Event Collector",
}


def _field(data: bytes, offset: int, width: int = 4) -> int:
    return int.from_bytes(data[offset : offset + width], "little")


def _power_management(data: bytes) -> Details:
    return {"version": data[2] & 7, "state": ("D0", "D1", "D2", "D3hot")[data[4] & 3]}


def _msi(data: bytes) -> Details:
    control = _field(data, 2, 2)
    return {
        "enabled": bool(control & 1),
        "messages": 1 << (control >> 1 & 7),
        "messages_enabled": 1 << (control >> 4 & 7),
        "address_bits": 64 if control & 0x80 else 32,
        "maskable": bool(control & 0x100),
    }


def _msi_x(data: bytes) -> Details:
    control, table, pending = _field(data, 2, 2), _field(data, 4), _field(data, 8)
    return {
        "enabled": bool(control & 0x8000),
        "masked": bool(control & 0x4000),
        "messages": (control & 0x7FF) + 1,
        "table_bar": table & 7,
        "table_offset": table & ~7,
        "pending_bar": pending & 7,
        "pending_offset": pending & ~7,
    }


def _express(data: bytes) -> Details:
    flags, capabilities, control = _field(data, 2, 2), _field(data, 4), _field(data, 8, 2)
    return {
        "version": flags & 0xF,
        "port": _PORT_TYPES.get(flags >> 4 & 0xF, "unknown"),
        "payload": 128 << (control >> 5 & 7),
        "maximum_payload": 128 << (capabilities & 7),
        "read_request": 128 << (control >> 12 & 7),
        "function_level_reset": bool(capabilities & 1 << 28),
    }


def _vendor_specific(data: bytes) -> Details:
    return {"length": data[2]}


def _subsystem(data: bytes) -> Details:
    return {"ids": f"{_field(data, 4, 2):04x}:{_field(data, 6, 2):04x}"}


def _serial_number(data: bytes) -> Details:
    return {"serial_number": data[11:3:-1].hex("-")}


def _extended_vendor_specific(data: bytes) -> Details:
    header = _field(data, 4)
    return {"vendor_specific_id": header & 0xFFFF, "revision": header >> 16 & 0xF, "length": header >> 20}


def _virtual_functions(data: bytes) -> Details:
    return {
        "enabled": bool(data[8] & 1),
        "initial": _field(data, 0x0C, 2),
        "total": _field(data, 0x0E, 2),
        "number": _field(data, 0x10, 2),
    }


# For each capability ID: how many bytes its decoder needs, and the decoder.
_STANDARD: dict[int, tuple[int, Callable[[bytes], Details]]] = {
    0x01: (6, _power_management),
    0x05: (4, _msi),
    0x09: (3, _vendor_specific),
    0x0D: (8, _subsystem),
    0x10: (10, _express),
    0x11: (12, _msi_x),
}
_EXTENDED: dict[int, tuple[int, Callable[[bytes], Details]]] = {
    0x0003: (12, _serial_number),
    0x000B: (8, _extended_vendor_specific),
    0x0010: (18, _virtual_functions),
}


def details(config: ConfigImage, capability: Capability) -> Details:
    """Return the values in a capability's registers, by name.

    Payloads and requests are in bytes. Offsets are in bytes from the start of the BAR. The result is {} if this module
    has no decoder for the capability, or if the image ends within it.
    """
    known = _STANDARD if capability.version is None else _EXTENDED
    length, decode = known.get(capability.id, (0, None))
    if decode is None or capability.offset + length > config.size:
        return {}
    return decode(config.read(capability.offset, length))
