# SPDX-License-Identifier: MIT
"""What `pyuio.Device` needs of a way to a device. `Device`, drivers and their tests know nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pyuio._native._access import Endian, Presence
    from pyuio.errors import PyuioError
    from pyuio.interrupt import Interrupt
    from pyuio.kernel.uio import UioNode
    from pyuio.pci.config_space import ConfigSpace
    from pyuio.region import PortRegion, Region


class Backend(Protocol):
    """An open way to a device, alone.

    Attributes:
        name: what messages call the device.
        directory: of the device in sysfs.
        node: its UIO node.
        config: its configuration space; None for what is not a PCI function.
        presence: tells whether the device is still there.
        interrupt: its interrupt, masked; or why it has none that can be used.
    """

    name: str
    directory: Path
    node: UioNode
    config: ConfigSpace | None
    presence: Presence
    interrupt: Interrupt | PyuioError

    def map_bar(
        self,
        index: int,
        *,
        write_combining: bool,
        endian: Endian,
        kinds: tuple[type[Region], type[PortRegion]],
    ) -> Region | PortRegion:
        """Return a new region for a BAR; see `Device.bar`.

        Args:
            index: 0 to 5.
            write_combining: let the processor merge writes.
            endian: "little" or "big".
            kinds: what to make of a BAR in memory, and of one in I/O ports.
        """

    def close(self) -> None:
        """Mask the interrupt, close everything, and give the device back; goes on where an exception broke it off."""

    def forget(self) -> None:
        """In a forked child: close everything there, and touch nothing of the device, which is the parent's."""
