# SPDX-License-Identifier: MIT
"""Access to a device's registers from outside, without opening it and whatever driver has it.

`pyuio.device` is for drivers: it needs a UIO driver and opens the device exclusively. This module is for tools that
work beside the driver.
"""

from __future__ import annotations

import errno
import functools
import os
from pathlib import Path

from pyuio.claim.claim import chosen_node
from pyuio.claim.nodes_in_use import openers
from pyuio.errors import DeviceRemovedError, MappingError
from pyuio.inspect.location import Location
from pyuio.kernel.drivers import is_for_user_space
from pyuio.kernel.uio import UioMap, UioNode
from pyuio.pci.bars import Bar
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice
from pyuio.region import PortRegion, Region
from pyuio.region.bar_mapping import checked_index, find_bar, map_bar
from pyuio.region.map_mapping import find_map, map_region, refuse_bars

_POWER_MANAGEMENT = 0x01  # capability (PCI Bus Power Management Interface Specification 1.2, section 3.2)
_POWER_CONTROL = 4  # offset in it: PMCSR, whose low two bits are the power state


class Inspection:
    """The registers of a PCI function, or of another device with a UIO node.

    Args:
        found: the device.

    Raises:
        DeviceRemovedError: the device is gone.
        PermissionDeniedError: this user may not read its configuration space.
    """

    def __init__(self, found: FoundDevice) -> None:
        self.name = found.name if found.address is None else found.address
        self.address = found.address
        self.ids = found.ids
        self.class_code = found.class_code
        self.uio_name = found.uio_name
        self.compatible = found.compatible
        self._found = found
        self._directory: Path = found.directory
        self._regions: dict[int | str, Region | PortRegion] = {}
        self._config = None if found.address is None else ConfigSpace(found.directory)

    @property
    def config(self) -> ConfigSpace:
        """Its configuration space. MappingError: it is not a PCI function."""
        if self._config is None:
            has = "; ".join(map(str, self._node().maps)) or "no maps"
            reason = f"{self.name} is not a PCI function: it has neither BARs nor configuration space; it has: {has}"
            raise MappingError(errno.EOPNOTSUPP, reason)
        return self._config

    @property
    def has_config(self) -> bool:
        """Whether it is a PCI function, and so has configuration space and BARs."""
        return self._config is not None

    def _node(self) -> UioNode:
        return chosen_node(self._found, UioNode.of_device(self._directory))

    @property
    def kernel_driver(self) -> str | None:
        """The kernel driver that drives it, or None. A driver that hands it on to user space, as UIO, is none."""
        if self.address is None:  # it has a UIO node
            return None
        driver = self._directory / "driver"
        return driver.resolve().name if driver.exists() and not is_for_user_space(self.address) else None

    def processes(self) -> list[str]:
        """Return a sentence for each other process that has the device open through UIO or VFIO."""
        return openers(self._directory.resolve()) if self.address is None or is_for_user_space(self.address) else []

    @functools.cached_property
    def is_driven(self) -> bool:
        """Whether a kernel driver or another process had it when this was asked first.

        To read a register in a bank then, a tool would write the page register amid the accesses of somebody else.
        """
        return self.is_driven_now()

    def is_driven_now(self) -> bool:
        """Return whether a kernel driver or another process has it now."""
        return self.kernel_driver is not None or bool(self.processes())

    def space(self, place: Location) -> ConfigSpace | Region | PortRegion:
        """Return the BAR, the map or the configuration space in which a place is. Errors: as `bar`, `map`, `config`."""
        return self.config if place.is_config else self.registers(place)

    def registers(self, place: Location) -> Region | PortRegion:
        """Return the BAR or the map in which a place is. Errors: as `bar` and `map`."""
        return self.map(place.map) if place.bar is None else self.bar(place.bar)

    def where(self, place: Location) -> int | UioMap:
        """Return the index of the BAR, or the map, in which a place is. MappingError: there is no such map."""
        return find_map(self._node().maps, place.map, self.name) if place.bar is None else place.bar

    def map(self, which: str) -> Region | PortRegion:
        """Return a map of its UIO node.

        Args:
            which: its name, or ``map0`` and so on.

        Raises:
            MappingError: there is no such map, or the kernel refuses to map it.
            PermissionDeniedError: this user may not open the node.
            DriverNotBoundError: it has no UIO node.
            AmbiguousDeviceError: it has several, and none of them was named.
        """
        node = self._node()
        item = find_map(node.maps, which, self.name)
        found = self._regions.get(f"map{item.index}")
        if found is None:
            # Opening it first makes some drivers allocate what they map (drivers/uio/uio_dmem_genirq.c).
            refuse_bars(node, self.name)
            file = node.open()
            try:
                found = map_region(node, find_map(node.maps, which, self.name), self.name, file=file)
            finally:
                os.close(file)
            self._regions[f"map{item.index}"] = found
        return found

    def bar(self, index: int) -> Region | PortRegion:
        """Return a BAR. The command register must have its memory or its I/O ports switched on.

        Args:
            index: 0 to 5.

        Raises:
            MappingError: there is no such BAR, or it does not answer, or the kernel refuses to map it.
            PermissionDeniedError: this user may not map the BAR.
            ValueError: the index is not 0 to 5.
        """
        found = self._regions.get(checked_index(index))
        if found is None:
            bar = find_bar(self.config.bars(), index, self.name)
            self._require_decoding(bar)
            try:
                found = map_bar(bar, self._directory, self.name, nodes=UioNode.of_device(self._directory))
            except MappingError as error:
                driver = self.kernel_driver
                if error.errno == errno.EINVAL and (users := self.processes()):
                    reason = f"{error.strerror}: {'; '.join(users)}, and by VFIO nobody else can map its BARs"
                    raise MappingError(error.errno, reason) from error
                if driver is None or error.errno != errno.EINVAL:
                    raise
                reason = (
                    f"{error.strerror}: {driver}, and the kernel lets nobody else map what a driver has claimed "
                    f"(CONFIG_IO_STRICT_DEVMEM); boot with iomem=relaxed, or take it from there: pyuio bind {self.name}"
                )
                raise MappingError(error.errno, reason) from error
            self._regions[index] = found
        return found

    def require_decoding(self, place: Location) -> None:
        """Raise MappingError if the BAR in which a place is does not answer any more; of a map, nothing tells.

        Raises:
            DeviceRemovedError: the device is gone.
        """
        if place.bar is not None:
            self._require_decoding(find_bar(self.config.bars(), place.bar, self.name))

    def _require_decoding(self, bar: Bar) -> None:
        self.require_answer()
        command = self.config.read16(0x04)
        needed = Command.IO_SPACE if bar.kind == "io" else Command.MEMORY_SPACE
        if not Command(command) & needed and not self._is_virtual:
            kind = "I/O ports are" if bar.kind == "io" else "memory is"
            reason = (
                f"BAR {bar.index} of {self.name} does not answer: its {kind} switched off in the command register "
                f"({command:#06x} has no {needed!s}), and every bit would read as 1; a driver of the device switches "
                f"it on, or as root: {self._switch_on(command | needed)}"
            )
            raise MappingError(errno.EIO, reason)

    def _switch_on(self, command: int) -> str:
        # The attribute "enable" refuses if a driver has the device, and does nothing if it was enabled before.
        return f"pyuio write {self.name} config+4 {command:#06x} --width 16 --force"

    @property
    def _is_virtual(self) -> bool:
        """Whether it is a virtual function, whose memory the physical function switches on (SR-IOV 1.1, 3.3.3.4)."""
        return (self._directory / "physfn").exists()

    def require_answer(self) -> None:
        """Raise DeviceRemovedError if the device does not answer; one without configuration space is not asked."""
        if self._config is not None and not self._config.answers:
            reason = f"{self.name} does not answer: it was pulled out, or has lost its power"
            raise DeviceRemovedError(errno.ENODEV, reason)

    def doubt_of_ones(self) -> str:
        """Return why a register may read as all ones although its value differs; "" if there is no reason to doubt.

        Raises:
            DeviceRemovedError: the device is gone.
        """
        self.require_answer()
        for capability in self._config.capabilities() if self._config is not None else ():
            if capability.id == _POWER_MANAGEMENT:
                state = self.config.read16(capability.offset + _POWER_CONTROL) & 3
                if state:
                    wake = f"echo on > {self._directory}/power/control"
                    return f"the device is in power state D{state}, where it answers nothing: {wake}"
        return ""

    def doubt_of_zeros(self) -> str:
        """Return why a register may read as 0 although its value differs; "" if there is no reason to doubt."""
        if self._config is None:
            return ""
        command = self.config.read16(0x04)
        if not self._is_virtual or Command(command) & Command.MEMORY_SPACE:
            return ""
        # The specification has no such bit in a virtual function; QEMU's models have it, and heed it.
        on = self._switch_on(command | Command.MEMORY_SPACE)
        return f"it is a virtual function, and QEMU's answer nothing before a driver has switched their memory on: {on}"

    def close(self) -> None:
        """Unmap the BARs and maps, and close the configuration space. A second call does nothing."""
        for region in self._regions.values():
            region.close()
        if self._config is not None:
            self._config.close()
            self._config.command_register.close()

    def __enter__(self) -> Inspection:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
