# SPDX-License-Identifier: MIT
"""What VFIO virtualises of a configuration space, for a program that has the function by ``vfio-pci``.

Source: ``drivers/vfio/pci/vfio_pci_config.c`` (init_pci_cap_basic_perm and its kin, pci_cap_length,
pci_ext_cap_length).
"""

from __future__ import annotations

from typing import NamedTuple

from pyuio.pci.config_image import ConfigImage

# Capabilities that VFIO leaves out of its lists, by ID.
_HIDDEN = frozenset((0x04, 0x06, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F, 0x14, 0x15))
_HIDDEN_EXTENDED = frozenset((0x05, 0x06, 0x07, 0x0A, 0x0C, 0x11, 0x14, 0x19, 0x1A, 0x1B))

_HEADER = (
    ("BARs, expansion ROM", "virtual: a write moves nothing; sizing works"),
    ("command", "INTx Disable is virtual, a mask of its own; Memory Space, I/O Space, Bus Master are the device's"),
    ("interrupt line and pin", "virtual"),
)
_CAPABILITIES = {
    0x01: "the kernel changes the power state",
    0x03: "the kernel reads and writes it",
    0x05: "address and data are virtual; only device.vectors enables it",
    0x09: "read and written as it is",
    0x10: "Max_Payload_Size is virtual; the kernel carries out a function-level reset, and bounds the read request",
    0x11: "only device.vectors enables it",
    0x13: "the kernel carries out a function-level reset",
}


class Virtualised(NamedTuple):
    """A part of a configuration space that VFIO does not pass on as it is.

    Attributes:
        place: the registers or the capability.
        what: what VFIO makes of it.
    """

    place: str
    what: str


def virtualised(config: ConfigImage) -> list[Virtualised]:
    """Return what VFIO virtualises of a function with this configuration space."""
    found = [Virtualised(*each) for each in _HEADER]
    capabilities = list(config.capabilities())
    found += [Virtualised(one.name, _CAPABILITIES[one.id]) for one in capabilities if one.id in _CAPABILITIES]
    hidden = [one.name for one in capabilities if one.id in _HIDDEN]
    hidden += [one.name for one in config.extended_capabilities() if one.id in _HIDDEN_EXTENDED]
    found += [Virtualised(name, "hidden") for name in hidden]
    return [
        *found,
        Virtualised("all else", "read as it is; a write is dropped, but for cache line, latency, BIST and gaps"),
    ]
