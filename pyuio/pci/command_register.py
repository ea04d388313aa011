# SPDX-License-Identifier: MIT
"""The command register of a PCI function, which two sides of a process write.

`pyuio.pci.config_space.ConfigSpace` changes its bits. The threads that wait for the function's interrupt mask and
unmask by its Interrupt Disable bit, where ``uio_pci_generic`` drives the function. The object in C keeps the two apart
by a lock (``_native/command_register.c``).

The register has a descriptor of its own. So the interrupt can still be masked when the program has closed the
configuration space; the owner of the device closes the register last.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.pci.config_image import Command


class CommandRegister:
    """The command register of an open configuration space.

    Args:
        config: a descriptor of the file of the configuration space, which stays the caller's.
        start: where in the file the configuration space starts, in bytes.

    Attributes:
        native: the object in C, for the interrupt, which masks by it.

    Raises:
        OSError: the device is gone, or no descriptor is left.
    """

    def __init__(self, config: int, start: int = 0) -> None:
        native = _lib.pyuio_command_new(config, start)
        if native == _ffi.NULL:
            raise OSError(_ffi.errno, os.strerror(_ffi.errno))
        self.native: Any = _ffi.gc(native, _lib.pyuio_command_free)

    def change(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits: one 16-bit read and one write, of 16 bits, or of 8 bits if they suffice.

        Raises:
            OSError: the kernel's answer; ENODEV when the register is closed.
        """
        self._require_done(_lib.pyuio_command_change(self.native, set, clear))

    def write(self, offset: int, data: bytes) -> None:
        """Write part of the configuration space that is, or may be, part of the register, by one access.

        Raises:
            OSError: the kernel's answer; ENODEV when the register is closed.
        """
        self._require_done(_lib.pyuio_command_write(self.native, offset, data, len(data)))

    def reset(self, attribute: Path) -> None:
        """Reset the function by its file ``reset`` in sysfs; no thread masks or unmasks meanwhile.

        Raises:
            OSError: the kernel's answer; ENODEV when the register is closed.
        """
        file = os.open(attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._require_done(_lib.pyuio_command_reset(self.native, file))
        finally:
            os.close(file)

    @staticmethod
    def _require_done(result: int) -> None:
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def close(self) -> None:
        """Close it: the interrupt is not masked or unmasked any more. A second close does nothing."""
        _lib.pyuio_command_close(self.native)

    def forget(self) -> None:
        """In a forked child: close it there, and write nothing."""
        _lib.pyuio_command_forget(self.native)

    def abandon(self, *, driven: bool) -> None:
        """Close it for a device that is gone: nothing is written any more, not even to mask the interrupt.

        Args:
            driven: whether a kernel driver has the device by now. If none has, the device was only unbound; then this
                first masks the interrupt and switches bus mastering off.
        """
        if not driven:
            with suppress(OSError):
                self.change(set=Command.INTERRUPT_DISABLE, clear=Command.BUS_MASTER)
        self.close()
