# SPDX-License-Identifier: MIT
"""How the interrupt of a UIO device is kept from the processor: found out per device, and apart from the reading.

A kernel driver with irqcontrol masks when 0 is written to ``/dev/uioN`` and unmasks when 1 is
(``drivers/uio/uio.c``, uio_write). ``uio_pci_generic`` has none; it masks in its handler by the Interrupt Disable bit
of the command register, and whoever waits clears that bit again. A driver with neither is left alone.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Protocol

from pyuio._native._waiting import lib as _lib
from pyuio.kernel.sysfs import translated
from pyuio.kernel.uio import UioNode
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace


class Masking(Protocol):
    """One way of keeping a device's interrupt from the processor."""

    description: str
    """How, in a few words."""
    advice: str
    """What to look at when no interrupt comes; "" for nothing in particular."""

    def install(self, native: Any) -> None:
        """Tell the native part how it masks."""

    def is_masked(self, native: Any) -> bool:
        """Return whether the interrupt is masked now."""


class NoMasking:
    """The kernel driver offers no way: the interrupt is never masked from here.

    Args:
        driver: the name of the kernel driver.
    """

    description = "not at all"

    def __init__(self, driver: str) -> None:
        self.advice = (
            f"; its kernel driver, {driver}, has no irqcontrol, and cannot be masked from here: if the kernel log says "
            f"'Disabling IRQ', the line flooded; bind uio_pci_generic instead"
        )

    def install(self, native: Any) -> None:
        """Nothing to tell: so the native part starts."""

    def is_masked(self, native: Any) -> bool:
        """Return False."""
        return False


class IrqControlMasking:
    """By writing 1 or 0 to ``/dev/uioN``, which calls the kernel driver's irqcontrol."""

    description = "by irqcontrol"
    advice = ""

    def install(self, native: Any) -> None:
        """Tell the native part to write."""
        _lib.pyuio_mask_by_write(native)

    def is_masked(self, native: Any) -> bool:
        """Return whether it was masked from here, or by an interrupt that was read or waits to be read."""
        return bool(_lib.pyuio_is_masked(native)) or _lib.pyuio_is_pending(native) == _lib.PYUIO_READY


class CommandRegisterMasking:
    """By the Interrupt Disable bit of the command register, as ``uio_pci_generic`` does in its handler.

    Args:
        config: the owner of the command register.
    """

    description = "by the command register"
    advice = ""

    def __init__(self, config: ConfigSpace) -> None:
        self._config = config
        self._register = config.command_register

    def install(self, native: Any) -> None:
        """Tell the native part which command register it is."""
        _lib.pyuio_mask_by_command(native, self._register)

    def is_masked(self, native: Any) -> bool:
        """Return the Interrupt Disable bit, read from the device now."""
        return Command.INTERRUPT_DISABLE in self._config.command


def find_masking(node: UioNode, device: int, config: ConfigSpace | None) -> Masking:
    """Mask a UIO device's interrupt, and return the way in which that was done.

    Args:
        node: the device's UIO node.
        device: a descriptor of it.
        config: its configuration space, or None for what is not a PCI function.

    Raises:
        DeviceRemovedError: the device is gone.
        PermissionDeniedError: this user may not write its configuration space.
    """
    try:
        os.write(device, bytes(4))  # irqcontrol(0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise translated(error, f"masking the interrupt of {node.path}") from error
    else:
        return IrqControlMasking()
    if config is not None and node.driver_name == "uio_pci_generic":
        config.change_command(set=Command.INTERRUPT_DISABLE)
        return CommandRegisterMasking(config)
    return NoMasking(node.driver_name)
