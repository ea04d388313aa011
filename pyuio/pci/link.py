# SPDX-License-Identifier: MIT
"""The PCI Express link of a function: its present and its maximum speed and width.

Source: the attributes ``current_link_speed``, ``max_link_width`` and so on (drivers/pci/pci-sysfs.c), which any user
may read. The kernel decodes them from the registers Link Capabilities and Link Status (PCI Express Base Specification
5.0, section 7.5.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel.sysfs import read_optional

_NO_WIDTH = (0, 0xFF)  # the kernel does not know the width: include/linux/pci.h, enum pcie_link_width
_WIDTH = re.compile(r"[0-9]{1,4}")
_SPEED = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,4})?) GT/s")


@dataclass(frozen=True)
class Link:
    """A PCI Express link.

    Attributes:
        speed: of each lane in GT/s; None while the link is down.
        width: lanes; None while the link is down.
        maximum_speed: of this end of the link, in GT/s.
        maximum_width: of this end of the link.
    """

    speed: float | None
    width: int | None
    maximum_speed: float
    maximum_width: int

    @property
    def maximum(self) -> str:
        """What this end can do: "8 GT/s x4"."""
        return f"{self.maximum_speed:g} GT/s x{self.maximum_width}"

    def __str__(self) -> str:
        now = "down" if self.speed is None or self.width is None else f"{self.speed:g} GT/s x{self.width}"
        return f"{now} (maximum {self.maximum})"


def parse_speed(text: str | None) -> float | None:
    """Return the GT/s in an attribute's text, ``8.0 GT/s PCIe``; None if the text does not tell."""
    match = _SPEED.match(text or "")
    return float(match[1]) if match else None


def parse_width(text: str | None) -> int | None:
    """Return the number of lanes in an attribute's text; None if the text does not tell."""
    width = int(text) if text and _WIDTH.fullmatch(text) else 0
    return None if width in _NO_WIDTH else width


def read_link(directory: Path) -> Link | None:
    """Return the link of the function with this directory in sysfs; None if the function has none."""
    maximum_speed = parse_speed(read_optional(directory / "max_link_speed"))
    maximum_width = parse_width(read_optional(directory / "max_link_width"))
    if maximum_speed is None or maximum_width is None:
        return None
    return Link(
        speed=parse_speed(read_optional(directory / "current_link_speed")),
        width=parse_width(read_optional(directory / "current_link_width")),
        maximum_speed=maximum_speed,
        maximum_width=maximum_width,
    )
