# SPDX-License-Identifier: MIT
"""What the guest tests read of the kernel without pyuio, and the names they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyuio.sysfs import PCI_DEVICES, link_name

EDU = "1234:11e8"
PCI_SERIAL = "1b36:0002"  # bound to the kernel's driver "serial" from the start
PCI_TESTDEV = "1b36:0005"  # no INTx pin
SDHCI = "1b36:0007"  # a BAR of 256 bytes
XHCI = "1b36:000d"  # PCI Express, a 64-bit BAR

Cards = Callable[[str], list[str]]


def current_drivers() -> dict[str, str | None]:
    return {entry.name: link_name(entry / "driver") for entry in PCI_DEVICES.iterdir()}


def attribute(address: str, name: str) -> str:
    """A sysfs attribute, read without pyuio."""
    return Path("/sys/bus/pci/devices", address, name).read_text().strip()


def command_register(address: str) -> int:
    """The command register as the kernel's file shows it, read without pyuio."""
    with Path("/sys/bus/pci/devices", address, "config").open("rb") as file:
        return int.from_bytes(file.read(6)[4:], "little")
