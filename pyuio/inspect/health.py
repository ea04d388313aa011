# SPDX-License-Identifier: MIT
"""What the kernel and the configuration space tell of a device while it runs: driver, interrupts, link, errors.

Nothing here opens a node or waits for an interrupt, so nothing is taken from the device's driver.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import DeviceRemovedError
from pyuio.inspect.inspection import Inspection
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.irq import parse_line
from pyuio.kernel.sysfs import link_name, read_optional_number, read_text
from pyuio.kernel.uio import UioNode
from pyuio.pci.aer import LinkErrors, read_link_errors
from pyuio.pci.assigned_interrupt import message_interrupts
from pyuio.pci.config_image import Status
from pyuio.pci.discovery import FoundDevice
from pyuio.pci.link import Link, read_link

_ERRORS = (
    Status.MASTER_DATA_PARITY_ERROR
    | Status.SIGNALED_TARGET_ABORT
    | Status.RECEIVED_TARGET_ABORT
    | Status.RECEIVED_MASTER_ABORT
    | Status.SIGNALED_SYSTEM_ERROR
    | Status.DETECTED_PARITY_ERROR
)


class InterruptCount(NamedTuple):
    """Interrupts of a device, as the kernel counts them.

    Attributes:
        total: modulo 2^32.
        source: who counts: "uio0", "interrupts 24 to 27", or "interrupt 11, shared by 2".
    """

    total: int
    source: str

    def since(self, before: InterruptCount | None) -> int | None:
        """Return how many came after `before`; None if that was counted by another, or there is none."""
        if before is None or before.source != self.source:
            return None
        return (self.total - before.total) % (1 << 32)


class Health(NamedTuple):
    """What the kernel and the configuration space tell of a device at one time.

    Attributes:
        driver: the kernel driver that is bound to it, or None.
        interrupts: None if nothing counts them.
        link: None if the device has no PCI Express link.
        errors: the bits of its status register that tell of errors; 0 for a device without configuration space.
        link_errors: those on its link that it has reported; None if the kernel has no counters for it.
    """

    driver: str | None
    interrupts: InterruptCount | None
    link: Link | None
    errors: Status
    link_errors: LinkErrors | None = None


def health(found: FoundDevice, inspection: Inspection) -> Health:
    """Return what is told of a device now.

    Raises:
        DeviceRemovedError: the device is gone; for one that is not a PCI function, also: no UIO driver has it any more.
    """
    inspection.require_answer()
    errors = inspection.config.status & _ERRORS if inspection.has_config else Status(0)
    driver = link_name(found.directory / "driver")
    link, link_errors = read_link(found.directory), read_link_errors(found.directory)
    return Health(driver, interrupt_count(found, driver), link, errors, link_errors)


def interrupt_count(found: FoundDevice, driver: str | None) -> InterruptCount | None:
    """Return a device's interrupts; None if the kernel counts none for it, as no driver handles them.

    Args:
        found: the device.
        driver: the kernel driver that is bound to it, or None.

    Raises:
        DeviceRemovedError: it is gone; for one that is not a PCI function, also: no UIO driver has it any more.
    """
    nodes = UioNode.of_device(found.directory)
    if nodes:
        counted = [node for node in nodes if node.name == found.uio] or nodes
        total = sum(node.event_count for node in counted) % (1 << 32)
        return InterruptCount(total, " and ".join(node.name for node in counted))
    if found.address is None:
        raise DeviceRemovedError(errno.ENODEV, f"{found.name} is gone: it was removed, or its driver was unbound")
    numbers = message_interrupts(found.directory)
    if not numbers and driver is not None:
        line = read_optional_number(found.directory / "irq")
        return _of_line(found, line, driver) if line else None
    return _of_messages(numbers) if numbers else None


def _of_messages(numbers: list[int]) -> InterruptCount:
    text = read_text(Path("/proc/interrupts"))
    total = sum(line.count for line in (parse_line(text, number) for number in numbers) if line is not None)
    first, last = numbers[0], numbers[-1]
    return InterruptCount(total % (1 << 32), f"interrupt {first}" if first == last else f"interrupts {first} to {last}")


def _of_line(found: FoundDevice, number: int, driver: str) -> InterruptCount | None:
    """Return the count of an INTx line, which several devices may share."""
    line = parse_line(read_text(Path("/proc/interrupts")), number)
    if line is None or not line.handlers:
        return None
    if driver == VFIO_PCI:  # it has a handler, vfio-intx(ADDRESS), while a program has the interrupt
        own = [name for name in line.handlers if str(found.address) in name]
        if not own:
            return None
    else:
        own = line.handlers[:1]
    shared = f", shared by {len(line.handlers)}" if len(line.handlers) > len(own) else ""
    return InterruptCount(line.count % (1 << 32), f"interrupt {number}{shared}")
