# SPDX-License-Identifier: MIT
"""The two names of a PCI function: its address, ``0000:00:04.0``, and its vendor and device id, ``1234:11e8``."""

from __future__ import annotations

import re

from pyuio.kernel.sysfs import PCI_DEVICES, read_text

_ADDRESS = r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])"
_IDS = r"[0-9a-fA-F]{4}:[0-9a-fA-F]{4}"


def parse_address(text: str) -> str | None:
    """Return a PCI address in the kernel's form, ``0000:00:04.0``, or None if `text` is not a PCI address.

    Without a domain (``00:04.0``) the domain is 0000. Device numbers are 0 to 1f, function numbers 0 to 7.
    """
    match = re.fullmatch(_ADDRESS, text)
    if match is None or int(match[3], 16) > 0x1F:
        return None
    domain, bus, device, function = match.groups(default="0000")
    return f"{int(domain, 16):04x}:{bus.lower()}:{device.lower()}.{function}"


def is_id_pair(text: str) -> bool:
    """Return whether `text` has the form of a vendor and device id, ``1234:11e8``."""
    return re.fullmatch(_IDS, text) is not None


def ids_of(address: str) -> str:
    """Return the id pair of a function. FileNotFoundError: the function is gone."""
    return ":".join(read_text(PCI_DEVICES / address / name).removeprefix("0x") for name in ("vendor", "device"))
