# SPDX-License-Identifier: MIT
"""How an interrupt is masked and unmasked; for a UIO device this is found out.

- A kernel driver with irqcontrol masks when a program writes 0 to ``/dev/uioN``, and unmasks when it writes 1
  (``drivers/uio/uio.c``, uio_write).
- ``uio_pci_generic`` has no irqcontrol. Its handler masks by the Interrupt Disable bit of the command register. The
  thread that waits unmasks by clearing that bit: `CommandRegisterMasking`, which is ``pyuio_command_mask`` in C.
- A kernel driver with neither is left alone.
- VFIO masks an INTx interrupt in its handler, and unmasks it by an ioctl.
- Nothing masks a message (MSI, MSI-X), which VFIO delivers.

The masking itself happens in ``_native/interrupt.c`` and ``_native/command_register.c``, which these classes set up.
"""

from __future__ import annotations

import errno
import os
from typing import Any, Protocol

from pyuio._native._interrupt import lib as _lib
from pyuio.kernel.drivers import UIO_PCI_GENERIC
from pyuio.kernel.sysfs import translated
from pyuio.kernel.uio import UioNode
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace


class Masking(Protocol):
    """One way of masking a device's interrupt."""

    description: str
    """The way, in a few words."""
    advice: str
    """What to check when no interrupt comes; "" for no advice."""

    def install(self, native: Any) -> None:
        """Tell the interrupt's object in C to mask in this way."""

    def is_masked(self, native: Any) -> bool:
        """Return whether the interrupt is masked now."""


class NoMasking:
    """The kernel driver offers no way: this process never masks the interrupt.

    Args:
        driver: the name of the kernel driver.
        is_pci: whether the device is a PCI function.
    """

    description = "not at all"

    def __init__(self, driver: str, is_pci: bool) -> None:
        remedy = "bind uio_pci_generic instead" if is_pci else "a driver with irqcontrol, as uio_pdrv_genirq, masks"
        self.advice = (
            f"; its kernel driver, {driver}, has no irqcontrol, so pyuio cannot mask the interrupt: if the kernel log "
            f"says 'Disabling IRQ', the line flooded; {remedy}"
        )

    def install(self, native: Any) -> None:
        """Do nothing: the object in C masks nothing unless it is told to."""

    def is_masked(self, native: Any) -> bool:
        """Return False."""
        return False


class _NotedMasking:
    """A masking that the object in C notes, besides doing it."""

    advice = ""

    def is_masked(self, native: Any) -> bool:
        """Return whether this process masked it, or an interrupt that was read or is pending did."""
        if _lib.pyuio_interrupt_is_masked(native):
            return True
        return bool(_lib.pyuio_interrupt_is_pending(native) == _lib.PYUIO_READY)


class IrqControlMasking(_NotedMasking):
    """The kernel driver's irqcontrol masks, which writing 0 or 1 to ``/dev/uioN`` calls."""

    description = "by irqcontrol"

    def install(self, native: Any) -> None:
        """Tell the object in C to write to ``/dev/uioN``."""
        _lib.pyuio_interrupt_mask_by_write(native)


class VfioMasking(_NotedMasking):
    """VFIO masks an INTx interrupt by an ioctl, and in its handler.

    Args:
        device: a descriptor of the function, which stays open until the interrupt is closed.
    """

    description = "by VFIO"

    def __init__(self, device: int) -> None:
        self._device = device

    def install(self, native: Any) -> None:
        """Tell the object in C to use this descriptor."""
        _lib.pyuio_interrupt_mask_by_vfio(native, self._device)


class NominalMasking(_NotedMasking):
    """Nothing masks a message. What was masked by hand is noted, and interrupts are counted all the same."""

    description = "in name only, as a message cannot be masked"

    def install(self, native: Any) -> None:
        """Tell the object in C only to note it."""
        _lib.pyuio_interrupt_mask_nominally(native)


class CommandRegisterMasking:
    """The Interrupt Disable bit of the command register masks; ``uio_pci_generic`` sets it in its handler.

    Args:
        config: the configuration space, which owns the command register.
    """

    description = "by the command register"
    advice = ""

    def __init__(self, config: ConfigSpace) -> None:
        self._config = config
        self._register = config.command_register

    def install(self, native: Any) -> None:
        """Tell the object in C to use this command register."""
        _lib.pyuio_interrupt_mask_by_command(native, self._register.native)

    def is_masked(self, native: Any) -> bool:
        """Read Interrupt Disable from the device and return it."""
        return Command.INTERRUPT_DISABLE in self._config.command


def find_masking(node: UioNode, device: int, config: ConfigSpace | None) -> Masking:
    """Mask a UIO device's interrupt, and return the way in which this was done.

    Args:
        node: the device's UIO node.
        device: a descriptor of the node.
        config: the device's configuration space; None if it is not a PCI function.

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
    if config is not None and node.driver_name == UIO_PCI_GENERIC:
        config.change_command(set=Command.INTERRUPT_DISABLE)
        return CommandRegisterMasking(config)
    return NoMasking(node.driver_name, config is not None)
