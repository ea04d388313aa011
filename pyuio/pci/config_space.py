# SPDX-License-Identifier: MIT
"""The configuration space of a function that is present, by its file in sysfs, or by VFIO's file of the function.

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
from typing import NamedTuple

from pyuio._native._access import Presence
from pyuio.errors import ConfigLockedError, DeviceRemovedError, PermissionDeniedError
from pyuio.kernel.sysfs import link_name, read_text, translated
from pyuio.pci.bars import Bar, parse_resources
from pyuio.pci.command_register import CommandRegister
from pyuio.pci.config_guard import ConfigGuard
from pyuio.pci.config_image import ERROR_REPORTING, HEADER_LENGTH, Command, ConfigImage
from pyuio.process.descriptors import replace_descriptor
from pyuio.process.fork import Owned

_log = logging.getLogger("pyuio.config_space")

# Keeps the command registers of open configuration spaces: see `pyuio.interrupt.interrupt`.
_in_use: dict[int, CommandRegister] = {}

_NO_BITS = Command(0)
_POWER_MANAGEMENT = 0x01


class ConfigFile(NamedTuple):
    """The place of a configuration space in a file that is not the one in sysfs.

    Attributes:
        descriptor: of the file.
        start: where in the file it starts, in bytes.
        size: in bytes.
    """

    descriptor: int
    start: int
    size: int


class ConfigSpace(Owned, ConfigImage):
    """The configuration space of a function, and the only writer of its command register in this process.

    Each read and write accesses the device (``drivers/pci/pci-sysfs.c``, pci_read_config). Besides the errors that
    `ConfigImage` names, it raises `ClosedError` and `DeviceRemovedError`. A write raises `PermissionDeniedError`, too,
    and `ConfigLockedError`: outside of `unlocked` only the vendor-specific capabilities can be written.

    Args:
        directory: the function's directory in sysfs.
        presence: the device's presence. It learns when the device is found to be gone, and tells whether it is. None
            for a configuration space that is read while any driver has the device.
        file: where it is, if not in the file in sysfs; it stays the caller's.

    Attributes:
        command_register: the command register, for the interrupt, which masks by it. The owner of the device closes it
            after everything else.

    Raises:
        DeviceRemovedError: there is no such function any more.
        PermissionDeniedError: this user may not open its ``config`` file.
    """

    _by_vfio = False

    def __init__(self, directory: Path, presence: Presence | None = None, file: ConfigFile | None = None) -> None:
        self.directory = directory
        self._presence = presence
        self.name = f"configuration space of {directory.name}"
        # close() waits for a thread that reads or writes. Reentrant, for a signal handler that closes.
        self._lock = threading.RLock()
        self._guard = ConfigGuard(self, directory.name)
        self._file = -1
        self._start = 0 if file is None else file.start
        self._by_vfio = file is not None
        path = directory / "config"
        try:
            if file is None:
                self._writable = os.access(path, os.W_OK)
                self._file = os.open(path, (os.O_RDWR if self._writable else os.O_RDONLY) | os.O_CLOEXEC)
                # The file is as long as the device's configuration space; an unprivileged reader gets 64 bytes of it.
                self.size = len(os.pread(self._file, 4096, 0))
            else:
                self._writable = True
                self._file = os.dup(file.descriptor)
                self.size = file.size
            if self.size < HEADER_LENGTH:
                raise OSError(errno.ENODEV, f"{self.size} of {HEADER_LENGTH} bytes came")
            self.command_register = CommandRegister(self._file, self._start)
        except OSError as error:
            self.close()
            if isinstance(error, FileNotFoundError):
                raise DeviceRemovedError(errno.ENODEV, f"opening {path}: there is no such device") from error
            raise translated(error, f"opening {path}") from error
        _in_use[id(self)] = self.command_register

    def _require_open(self) -> int:
        if self._file < 0:
            raise self.closed_error(f"the {self.name}")
        if self._presence is not None and self._presence.gone:
            self._presence.require()
        return self._file

    def _failed(self, error: OSError, doing: str) -> Exception:
        """Return pyuio's error for the kernel's answer, and tell the presence if the device is gone."""
        failed = translated(error, doing)
        if self._presence is not None and isinstance(failed, DeviceRemovedError):
            self._presence.note_gone()
        return failed

    def abandon(self) -> None:
        """Write nothing more, not even to mask the interrupt: the device is gone, or another driver's by now.

        If the device was unbound, and no driver has it, this first masks the interrupt and switches bus mastering off.
        """
        self.command_register.abandon(driven=link_name(self.directory / "driver") is not None)

    def let_go(self) -> None:
        """Close the file of a device that is gone, so that VFIO can give it back; uses raise `DeviceRemovedError`."""
        self.command_register.close()
        with self._lock:
            if self._file >= 0:
                replace_descriptor(self._file)

    def fileno(self) -> int:
        """Return the descriptor of its file. ClosedError: it is closed."""
        return self._require_open()

    def _load(self, file: int, offset: int, length: int) -> bytes:
        return os.pread(file, length, self._start + offset)

    def _store(self, file: int, offset: int, data: bytes) -> None:
        os.pwrite(file, data, self._start + offset)

    def _get(self, offset: int, length: int) -> bytes:
        with self._lock:
            file = self._require_open()
            try:
                data = self._load(file, offset, length)
            except OSError as error:
                raise self._failed(error, f"reading the {self.name} at {offset:#x}") from error
        if len(data) != length:
            short = OSError(errno.ENODEV, f"{len(data)} of {length} bytes came")
            raise self._failed(short, f"reading the {self.name} at {offset:#x}")
        if self._presence is not None and data and not data.strip(b"\xff"):
            self._presence.require()  # a card that was pulled out reads as all ones
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
            if self._by_vfio:
                self._require_memory_stays(offset, width, value)
            _log.debug("%s: write%d %#x = %#x", self.directory.name, 8 * width, offset, value)
            try:
                if offset // 4 == 1:
                    self.command_register.write(offset, data)
                else:
                    self._store(file, offset, data)
            except OSError as error:
                raise self._failed(error, f"writing the {self.name} at {offset:#x}") from error

    def _require_memory_stays(self, offset: int, width: int, value: int) -> None:
        """Refuse a write after which VFIO would end the process at the next access to a BAR, by SIGBUS.

        It does so while memory decoding is off, and in the power state D3 (``drivers/vfio/pci/vfio_pci_core.c``,
        vfio_pci_mmap_fault; ``vfio_pci_config.c``, __vfio_pci_memory_enabled).
        """
        off = offset == 4 and not value & Command.MEMORY_SPACE
        for capability in self.capabilities():
            state = capability.offset + 4 - offset
            off = off or (capability.id == _POWER_MANAGEMENT and 0 <= state < width and value >> 8 * state & 3 == 3)
        if off:
            reason = f"{self.name}: VFIO ends a program that accesses a BAR after this write (SIGBUS)"
            raise ConfigLockedError(f"{reason}; to try that, bind uio_pci_generic")

    def guarded(self, offset: int, width: int) -> str:
        """Return why a write of `width` bytes at `offset` needs `unlocked`; "" if a driver owns all of them.

        ValueError: the bytes are not within the configuration space.
        """
        self._check(offset, width, 1)
        return self._guard.reason(offset, width)

    def unlocked(self) -> AbstractContextManager[ConfigSpace]:
        """Let this thread write any register in a ``with`` block, BARs and all else that the kernel set up included.

        Masking of the interrupt in other threads still does not interfere.
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

        Masking of the interrupt in other threads does not interfere.

        Raises:
            ValueError: a bit is in both, or is not one of the register's 16.
            TypeError: a wrong type.
            DeviceRemovedError: the device is gone.
            PermissionDeniedError: this user may only read the configuration space.
            ConfigLockedError: it would switch memory decoding off over VFIO, which ends programs for that.
        """
        for bits in (set, clear):
            if not 0 <= operator.index(bits) <= 0xFFFF:
                raise ValueError(f"{self.name}: {bits:#x} does not fit the command register's 16 bits")
        if set & clear:
            raise ValueError(f"{self.name}: {set & clear!r} cannot be set and cleared at once")
        with self._lock:
            self._require_writable()
            if self._by_vfio and clear & Command.MEMORY_SPACE:
                self._require_memory_stays(4, 2, 0)
            try:
                self.command_register.change(set=int(set), clear=int(clear))
            except OSError as error:
                raise self._failed(error, f"writing the {self.name} at 0x4") from error

    def enable_error_reporting(self) -> None:
        """Have the function report errors on its link to the port above it, and so to the kernel, which counts them.

        Linux 6.1 does that for its own drivers, and not for those in user space; later kernels do it for all. These are
        bits 0 to 3 of Device Control: correctable errors, nonfatal and fatal ones, and unsupported requests.

        Raises:
            ValueError: the function is not a PCI Express function, or its capabilities are not visible.
            DeviceRemovedError: the device is gone.
            PermissionDeniedError: this user may only read the configuration space.
        """
        offset = self.device_control
        if offset is None:
            raise ValueError(f"{self.name}: no capability Express is there, or only root may see it")
        with self.unlocked():
            self.write16(offset, self.read16(offset) | ERROR_REPORTING)

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
        """Close the file. The interrupt's masking by `command_register` still works. A second close does nothing."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)
            _in_use.pop(id(self), None)

    def forget(self) -> None:
        """In a forked child: close the file and the command register there."""
        super().forget()
        self._lock = threading.RLock()
        self.command_register.forget()
        self.close()
