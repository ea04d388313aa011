# SPDX-License-Identifier: MIT
"""The interface of a way to a device. `pyuio.Device`, drivers and their tests use nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex

if TYPE_CHECKING:
    from pyuio._native._access import Endian, Presence
    from pyuio.dma.memory_source import MemorySource
    from pyuio.interrupt import Interrupt
    from pyuio.kernel.uio import UioMap, UioNode
    from pyuio.pci.config_space import ConfigSpace
    from pyuio.process.timeouts import TimeSource
    from pyuio.region import PortRegion, Region


class Backend(Protocol):
    """An open way to a device, which nobody else has open.

    Attributes:
        name: the device's name in messages.
        directory: the device's directory in sysfs.
        node: its UIO node; None if it has none, because VFIO hands it out.
        driver: the kernel driver that hands it on to user space; None if that is gone.
        config: its configuration space; None if it is not a PCI function.
        presence: tells whether the device is still there.
        memory: the source of its memory for DMA.
        clock: its time; the module `time`, unless it is a model.
    """

    name: str
    directory: Path
    node: UioNode | None
    driver: str | None
    config: ConfigSpace | None
    presence: Presence
    memory: MemorySource[Any]
    clock: TimeSource

    @property
    def interrupt(self) -> Interrupt:
        """Its interrupt, masked unless someone waits for it; see `Device.interrupt`."""

    @property
    def most_vectors(self) -> int:
        """How many message interrupts `vectors` can enable."""

    def vectors(self, count: int) -> tuple[Interrupt, ...]:
        """Enable `count` message interrupts, and return them; see `Device.vectors`."""

    def reset(self, method: str | None) -> None:
        """Reset the device; see `Device.reset`."""

    def map_bar(
        self,
        index: int,
        *,
        write_combining: bool,
        endian: Endian,
        width: int | None,
        region_classes: tuple[type[Region], type[PortRegion]],
    ) -> Region | PortRegion:
        """Return a new region for a BAR; see `Device.bar`.

        Args:
            index: 0 to 5.
            write_combining: let the processor merge writes.
            endian: "little" or "big".
            width: bits of the widest access that the device takes; None for what the kind of BAR allows.
            region_classes: the class to make for a BAR in memory, and the class for a BAR in I/O ports.
        """

    @property
    def maps(self) -> tuple[UioMap, ...]:
        """The maps of its node, by index; () if there are none."""

    def map_region(
        self, item: UioMap, *, size: SupportsIndex | None, endian: Endian, width: int | None, region_class: type[Region]
    ) -> Region:
        """Return a new region for one of `maps`; see `Device.map`.

        Args:
            item: the map.
            size: bytes of it; None for all.
            endian: "little" or "big".
            width: bits of the widest access that the device takes; None for 64.
            region_class: the class to make.
        """

    def close(self) -> None:
        """Mask the interrupt, close everything, and give the device back; after an exception, a new call continues."""

    def forget(self) -> None:
        """Close everything in a forked child, without touching the device, which belongs to the parent."""
