# SPDX-License-Identifier: MIT
"""The configuration space of a function that is there, by its file in sysfs.

Sources: PCI Local Bus Specification 3.0, chapter 6; ``drivers/pci/pci-sysfs.c``.
"""

from __future__ import annotations

import errno
import logging
import operator
import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from pyuio._native._access import Presence
from pyuio._native._waiting import ffi as _ffi
from pyuio._native._waiting import lib as _lib
from pyuio.errors import DeviceRemovedError, PermissionDeniedError
from pyuio.kernel.sysfs import link_name, read_text, translated
from pyuio.pci.bars import Bar, parse_resources
from pyuio.pci.config_guard import ConfigGuard
from pyuio.pci.config_image import HEADER_LENGTH, Command, ConfigImage
from pyuio.process.fork import Owned

_log = logging.getLogger("pyuio.config_space")

# What open configuration spaces use in C: see `pyuio.interrupt`.
_in_use: dict[int, object] = {}

_NO_BITS = Command(0)


class ConfigSpace(Owned, ConfigImage):
    """The configuration space of a function, and the only writer of its command register in this process.

    Each read and write is an access of the device (``drivers/pci/pci-sysfs.c``, pci_read_config), and raises, besides
    what `ConfigImage` says, `ClosedError`, `DeviceRemovedError`, and when writing `PermissionDeniedError` and
    `ConfigLockedError`: only the vendor-specific capabilities can be written outside of `unlocked`.

    Args:
        directory: the function's directory in sysfs.
        presence: of the device, which is told when it is found to be gone, and whose word is then taken; None for a
            look from outside.

    Raises:
        DeviceRemovedError: there is no such function any more.
        PermissionDeniedError: its ``config`` file may not be opened.
    """

    def __init__(self, directory: Path, presence: Presence | None = None) -> None:
        self.directory = directory
        self._presence = presence
        self.name = f"configuration space of {directory.name}"
        # Closing waits for whoever is reading or writing; a signal handler that closes does not wait for itself.
        self._lock = threading.RLock()
        self._guard = ConfigGuard(self, directory.name)
        self._file = -1
        path = directory / "config"
        try:
            self._writable = os.access(path, os.W_OK)
            self._file = os.open(path, (os.O_RDWR if self._writable else os.O_RDONLY) | os.O_CLOEXEC)
            # The file's length is what the device has; an unprivileged reader gets 64 bytes of it.
            self.size = len(os.pread(self._file, 4096, 0))
            if self.size < HEADER_LENGTH:
                raise OSError(errno.ENODEV, f"{self.size} of {HEADER_LENGTH} bytes came")
            register = _lib.pyuio_command_new(self._file)
            if register == _ffi.NULL:
                raise OSError(_ffi.errno, os.strerror(_ffi.errno))
        except OSError as error:
            self.close()
            if isinstance(error, FileNotFoundError):
                raise DeviceRemovedError(errno.ENODEV, f"opening {path}: there is no such device") from error
            raise translated(error, f"opening {path}") from error
        self.command_register = _ffi.gc(register, _lib.pyuio_command_free)
        """The command register's one writer, for the interrupt, which masks by it."""
        _in_use[id(self)] = self.command_register

    def _require_open(self) -> int:
        if self._file < 0:
            raise self.closed_error(f"the {self.name}")
        if self._presence is not None and self._presence.gone:
            self._presence.require()
        return self._file

    def _failed(self, error: OSError, doing: str) -> Exception:
        """Return pyuio's error, and say so if the device is gone."""
        failed = translated(error, doing)
        if self._presence is not None and isinstance(failed, DeviceRemovedError):
            self._presence.note_gone()
        return failed

    def let_go(self) -> None:
        """Write nothing more, not even to mask the interrupt: the device is gone, or another driver's.

        If it was unbound, and nobody has it, it is masked and its bus mastering switched off before.
        """
        if link_name(self.directory / "driver") is None:
            _lib.pyuio_command_change(self.command_register, int(Command.INTERRUPT_DISABLE), int(Command.BUS_MASTER))
        _lib.pyuio_command_let_go(self.command_register)

    def fileno(self) -> int:
        """Return the descriptor of the ``config`` file. ClosedError: it is closed."""
        return self._require_open()

    def _get(self, offset: int, length: int) -> bytes:
        with self._lock:
            file = self._require_open()
            try:
                data = os.pread(file, length, offset)
            except OSError as error:
                raise self._failed(error, f"reading the {self.name} at {offset:#x}") from error
        if len(data) != length:
            short = OSError(errno.ENODEV, f"{len(data)} of {length} bytes came")
            raise self._failed(short, f"reading the {self.name} at {offset:#x}")
        if self._presence is not None and data and not data.strip(b"\xff"):
            self._presence.require()  # what a card that was pulled out reads as
        return data

    def _require_writable(self) -> int:
        file = self._require_open()
        if not self._writable:
            reason = f"writing the {self.name}: this user may only read it; run as root, or see pyuio setup"
            raise PermissionDeniedError(errno.EACCES, reason)
        return file

    def _write_word(self, offset: int, value: int, width: int) -> None:
        self._check(offset, width, width)
        if not isinstance(value, int):
            raise TypeError(f"{self.name}: the value must be an int, not {type(value).__name__}")
        if not 0 <= value < 1 << 8 * width:
            raise ValueError(f"{self.name}: value {value:#x} does not fit {8 * width} bits")
        data = value.to_bytes(width, "little")
        with self._lock:
            file = self._require_writable()
            self._guard.require(offset, width)
            _log.debug("%s: write%d %#x = %#x", self.directory.name, 8 * width, offset, value)
            if offset // 4 == 1:
                result = _lib.pyuio_command_write(self.command_register, offset, data, width)
                self._written(result, offset)
                return
            try:
                os.pwrite(file, data, offset)
            except OSError as error:
                raise self._failed(error, f"writing the {self.name} at {offset:#x}") from error

    def _written(self, result: int, offset: int) -> None:
        if result < 0:
            error = OSError(-result, os.strerror(-result))
            raise self._failed(error, f"writing the {self.name} at {offset:#x}")

    def guarded(self, offset: int, width: int) -> str:
        """Return why a write of `width` bytes at `offset` needs `unlocked`; "" if a driver owns all of them.

        ValueError: they are not within the configuration space.
        """
        self._check(offset, width, 1)
        return self._guard.reason(offset, width)

    def unlocked(self) -> AbstractContextManager[ConfigSpace]:
        """Let this thread write any register in a ``with`` block: BARs and what else the kernel set up, too.

        The interrupt's masking in other threads still does not get in between.
        """
        return self._guard.unlocked(self)

    def write8(self, offset: int, value: int) -> None:
        """Write `value`, 0 to 0xff, to the byte at `offset`, by one access. ValueError: out of range."""
        self._write_word(offset, value, 1)

    def write16(self, offset: int, value: int) -> None:
        """Write 16 bits at `offset`, a multiple of 2 bytes, by one access. ValueError: misaligned or out of range."""
        self._write_word(offset, value, 2)

    def write32(self, offset: int, value: int) -> None:
        """Write 32 bits at `offset`, a multiple of 4 bytes, by one access. ValueError: misaligned or out of range."""
        self._write_word(offset, value, 4)

    def change_command(self, *, set: Command = _NO_BITS, clear: Command = _NO_BITS) -> None:
        """Set and clear bits of the command register: one 16-bit read, one write of 16 bits, or of 8 if they suffice.

        The interrupt's masking in other threads does not get in between.

        Raises:
            ValueError: a bit is in both, or is none of the register's 16.
            TypeError: a wrong type.
            DeviceRemovedError: the device is gone.
            PermissionDeniedError: the configuration space may only be read.
        """
        for bits in (set, clear):
            if not 0 <= operator.index(bits) <= 0xFFFF:
                raise ValueError(f"{self.name}: {bits:#x} does not fit the command register's 16 bits")
        if set & clear:
            raise ValueError(f"{self.name}: {set & clear!r} cannot be set and cleared at once")
        with self._lock:
            self._require_writable()
            self._written(_lib.pyuio_command_change(self.command_register, int(set), int(clear)), 0x04)

    def bars(self) -> tuple[Bar, ...]:
        """Return the BARs that the function has, by index, as the kernel set them up.

        Raises:
            DeviceRemovedError: the device is gone.
            KernelFileError: the file ``resource`` has another form.
        """
        self._require_open()
        try:
            return parse_resources(read_text(self.directory / "resource"))
        except FileNotFoundError as error:
            gone = OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            raise self._failed(gone, f"reading the BARs of {self.directory.name}") from error

    def close(self) -> None:
        """Close the file; again is harmless."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)
            _in_use.pop(id(self), None)

    def end(self) -> None:
        """Close, and end the masking of the interrupt by the command register, too; again is harmless."""
        self.close()
        _lib.pyuio_command_let_go(self.command_register)

    def forget(self) -> None:
        """In a forked child: close the file there."""
        super().forget()
        self._lock = threading.RLock()
        _lib.pyuio_command_forget(self.command_register)
        self.close()
