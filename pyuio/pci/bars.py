# SPDX-License-Identifier: MIT
"""The BARs of a PCI function, as the kernel set them up.

Source: the ``resource`` file (``drivers/pci/pci-sysfs.c``); ``include/linux/ioport.h`` defines its flags.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pyuio.errors import KernelFileError

if TYPE_CHECKING:
    from pyuio.pci.config_image import ConfigImage

_LINE = r"\s*(0x[0-9a-f]{1,16})\s+(0x[0-9a-f]{1,16})\s+(0x[0-9a-f]{1,16})\s*"
_RESOURCE_IO = 0x100
_RESOURCE_MEMORY = 0x200
_RESOURCE_PREFETCH = 0x2000
_RESOURCE_MEMORY_64 = 0x100000


class Bar(NamedTuple):
    """One base address register, as the kernel has set it up.

    Attributes:
        index: 0 to 5. A 64-bit BAR takes two registers and has the index of the first.
        kind: "memory" or "io" (ports).
        width: bits of the address, 32 or 64.
        prefetchable: whether reads have no side effects, so that write combining is allowed.
        address: physical address, or first port; 0 when the kernel could not assign one.
        size: bytes.
    """

    index: int  # type: ignore[assignment]  # in place of tuple.index
    kind: str
    width: int
    prefetchable: bool
    address: int
    size: int

    def __str__(self) -> str:
        prefetchable = ", prefetchable" if self.prefetchable else ""
        return (
            f"BAR {self.index}: {self.kind} at {self.address:#x}, {self.size:#x} bytes, {self.width}-bit{prefetchable}"
        )


def parse_resources(text: str) -> tuple[Bar, ...]:
    """Return the BARs listed in the text of a ``resource`` file.

    Each line has the first address, the last address and the flags. Lines after the sixth (expansion ROM, bridge
    windows, SR-IOV) are not BARs of the function. A line of zeros stands for a BAR that the function does not have.

    Raises:
        KernelFileError: the text does not have that form.
    """
    bars = []
    for index, line in enumerate(text.splitlines()[:6]):
        match = re.fullmatch(_LINE, line, re.IGNORECASE)
        if match is None:
            raise KernelFileError(
                f"line {index + 1} of a resource file should be three hexadecimal numbers: {line[:80]!r}"
            )
        first, last, flags = (int(word, 16) for word in match.groups())
        if flags & (_RESOURCE_IO | _RESOURCE_MEMORY) and last >= first:
            bars.append(
                Bar(
                    index=index,
                    kind="memory" if flags & _RESOURCE_MEMORY else "io",
                    width=64 if flags & _RESOURCE_MEMORY_64 else 32,
                    prefetchable=bool(flags & _RESOURCE_PREFETCH),
                    address=first,
                    size=last - first + 1,
                )
            )
    return tuple(bars)


def lost_bars(config: ConfigImage, bars: tuple[Bar, ...]) -> list[Bar]:
    """Return the BARs that have an address in the kernel's list, and none in the device (PCI 3.0, section 6.2.5.1).

    The device was reset, or an FPGA programmed anew, without the kernel's restoring its configuration space.

    Args:
        config: the device's own; a virtual function has no BARs there (SR-IOV 1.1, section 3.4.1.11).
        bars: as the kernel has set them up.
    """
    registers = {0: 6, 1: 2}.get(config.header_type, 0)
    return [bar for bar in bars if bar.address and bar.index < registers and not _address_in(config, bar)]


def _address_in(config: ConfigImage, bar: Bar) -> int:
    low = config.read32(0x10 + 4 * bar.index) & (~3 if bar.kind == "io" else ~15)
    return low | (config.read32(0x14 + 4 * bar.index) << 32 if bar.width == 64 else 0)
