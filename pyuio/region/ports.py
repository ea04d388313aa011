# SPDX-License-Identifier: MIT
"""A BAR that is read and written through a file, as I/O ports are. Import `PortRegion` from `pyuio.region`."""

from __future__ import annotations

import errno
import operator
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from pyuio.errors import ClosedError, DeviceRemovedError, MappingError
from pyuio.kernel.sysfs import translated
from pyuio.process.descriptors import replace_descriptor
from pyuio.region.common import Common, checked_endian, checked_size, refused

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from pyuio._native._access import Endian, Presence


class PortRegion(Common):
    """A BAR of I/O ports. It has the methods of `Region`; each access is one system call, of 8, 16 or 32 bits.

    It also serves a BAR in memory that VFIO does not let a program map, because the BAR shares its page with others.

    The call releases the global interpreter lock. A lock of the region keeps the accesses of several threads apart, so
    that no other access comes between the read and the write of `update32` and the like.

    Args:
        path: the BAR's file, ``/sys/bus/pci/devices/*/resourceN``.
        size: the size of the BAR in bytes, at least 1.
        address: the first port, which `address` returns; not used otherwise.
        name: the name in error messages, as in "BAR 1 of 0000:00:04.0"; the path if None.
        endian: byte order of registers wider than a byte.
        width: bits of the widest access that the device takes: 8, 16 or 32. Wider ones raise ValueError.
        presence: tells whether the device is still there, so that reading from a removed device raises an error; None
            for a region that cannot go.
        file: a descriptor of a file that has the BAR, which stays the caller's; None to open `path`, which is for
            messages only otherwise.
        start: where in the file the BAR starts, in bytes.

    Every access raises, before it touches the hardware: TypeError for a wrong type; ValueError for an offset that is
    negative, past the end or not a multiple of the width, for a value that does not fit, and for 64 bits, which I/O
    ports do not have; ClosedError after `close`. It raises DeviceRemovedError if the device is gone.

    Raises:
        MappingError: there is no such BAR.
        PermissionDeniedError: the file may not be opened.
        DeviceRemovedError: the device is gone.
        ValueError: the size is below 1, or there is no such width.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_endian",
        "_fd",
        "_inherited",
        "_lock",
        "_name",
        "_native",
        "_path",
        "_presence",
        "_reached",
        "_size",
        "_start",
        "_width",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: int,
        *,
        address: int | None = None,
        name: str | None = None,
        endian: Endian = "little",
        width: int = 32,
        presence: Presence | None = None,
        file: int | None = None,
        start: int = 0,
    ) -> None:
        self._fd: int | None = None
        self._start = start
        self._reached: set[int] = set()  # descriptors that native code uses
        self._inherited = file is None
        self._native = file is None  # see _order
        _regions.add(self)
        # Reentrant, as a signal handler that closes the region may interrupt an access.
        self._lock = threading.RLock()
        self._path = os.fspath(path)
        self._name = self._path if name is None else name
        self._size = checked_size(size, self._name)
        self._endian: Endian = checked_endian(endian)
        if width not in (8, 16, 32):
            raise ValueError(f"{self._name}: the widest access of I/O ports has 8, 16 or 32 bits, not {width!r}")
        self._width = width
        self._address = address
        self._presence = presence
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC) if file is None else os.dup(file)
        except OSError as error:
            raise refused(error, f"opening {self._name}, {self._path}", self._path) from error

    @property
    def name(self) -> str:
        """The name in error messages."""
        return self._name

    @property
    def size(self) -> int:
        """Size in bytes, also after `close`."""
        return self._size

    @property
    def address(self) -> int | None:
        """The first port, or None if it was not given."""
        return self._address

    @property
    def endian(self) -> Endian:
        """Byte order of registers wider than a byte."""
        return self._endian

    @property
    def width(self) -> int:
        """The widest access in bits: 8, 16 or 32."""
        return self._width

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd is None

    @property
    def presence(self) -> Presence | None:
        """Tells whether the device is still there; None for a region that cannot go."""
        return self._presence

    @property
    def mmio(self) -> NoReturn:
        """I/O ports have no mapping: raises MappingError."""
        raise MappingError(errno.EOPNOTSUPP, f"{self._name} is accessed by system calls, and has no mapping")

    def reach(self, offset: int, stack: ExitStack) -> tuple[int, int, bool]:
        """Return where and how native code reads and writes a register until `stack` is closed.

        Returns:
            A file descriptor; the offset in its file; and whether the register's bytes there are in the other order
            than the processor's.

        Raises:
            ClosedError: the region was closed.
            DeviceRemovedError: the device is gone.
        """
        with self._lock:
            if self._fd is None:
                raise ClosedError(f"{self._name} is closed")
            if self._presence is not None:
                self._presence.require()
            duplicate = os.dup(self._fd)
            self._reached.add(duplicate)
        stack.callback(self._close_reached, duplicate)
        return duplicate, self._start + offset, self._order(None) != sys.byteorder

    def _close_reached(self, duplicate: int) -> None:
        with self._lock:  # `let_go` in another thread must not find it closed, and its number another file's
            self._reached.discard(duplicate)
            os.close(duplicate)

    def let_go(self) -> None:
        """Close the file of a device that is gone, for VFIO; accesses raise `DeviceRemovedError`."""
        with self._lock:
            for descriptor in (*self._reached, *(() if self._fd is None else (self._fd,))):
                replace_descriptor(descriptor)

    def inherit(self) -> None:
        """Let children that are forked from now on use the region: `pyuio.Device.let_children_access`."""
        self._inherited = True

    def forget(self) -> None:
        """In a forked child of a process that has the device by VFIO: close the region, unless it was inherited."""
        self._lock = threading.RLock()
        for descriptor in self._reached:
            replace_descriptor(descriptor)
        if not self._inherited:
            self.close()

    def close(self) -> None:
        """Close the file. Accesses raise ClosedError afterwards; a second close does nothing."""
        with self._lock:  # otherwise another file could get the descriptor's number during an access
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

    def __del__(self) -> None:
        """Close the file of a region that nobody closed, or whose construction failed."""
        if getattr(self, "_fd", None) is not None:
            self.close()

    def read(
        self, offset: SupportsIndex, /, length: SupportsIndex, width: SupportsIndex = 4, *, fixed: bool = False
    ) -> bytes:
        """Return `length` bytes, by ascending reads of `width` bytes each (1, 2 or 4), in the order of the bus.

        If `fixed` is true, each read is at `offset`.
        """
        length, width = operator.index(length), operator.index(width)
        starts = self._run(offset, length, width, "read", fixed=fixed)
        return b"".join([self._bus_order(self._transfer(start, width, None)) for start in starts])

    def write(self, offset: SupportsIndex, /, data: Buffer, width: SupportsIndex = 4, *, fixed: bool = False) -> None:
        """Write `data`, by writes of `width` bytes each (1, 2 or 4), at the places and in the order of `read`."""
        view, width = memoryview(data).cast("B"), operator.index(width)
        for done, start in enumerate(self._run(offset, len(view), width, "write", fixed=fixed)):
            self._transfer(start, width, self._bus_order(bytes(view[done * width : (done + 1) * width])))

    def read8(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 8 bits: one read."""
        return self._read(offset, 8, endian)

    def write8(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 8 bits: one write."""
        self._write(offset, value, 8, endian)

    def update8(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one read, one write."""
        self._change(offset, mask, value, 8, "update", endian)

    def set8(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one read, one write."""
        self._change(offset, mask, mask, 8, "set", endian)

    def clear8(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one read, one write."""
        self._change(offset, mask, 0, 8, "clear", endian)

    def read16(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 16 bits: one read."""
        return self._read(offset, 16, endian)

    def write16(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 16 bits: one write."""
        self._write(offset, value, 16, endian)

    def update16(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one read, one write."""
        self._change(offset, mask, value, 16, "update", endian)

    def set16(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one read, one write."""
        self._change(offset, mask, mask, 16, "set", endian)

    def clear16(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one read, one write."""
        self._change(offset, mask, 0, 16, "clear", endian)

    def read32(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 32 bits: one read."""
        return self._read(offset, 32, endian)

    def write32(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 32 bits: one write."""
        self._write(offset, value, 32, endian)

    def update32(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one read, one write."""
        self._change(offset, mask, value, 32, "update", endian)

    def set32(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one read, one write."""
        self._change(offset, mask, mask, 32, "set", endian)

    def clear32(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one read, one write."""
        self._change(offset, mask, 0, 32, "clear", endian)

    def read64(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Raise ValueError: I/O ports have no 64-bit access."""
        return self._read(offset, 64, endian)

    def write64(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Raise ValueError: I/O ports have no 64-bit access."""
        self._write(offset, value, 64, endian)

    def update64(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Raise ValueError: I/O ports have no 64-bit access."""
        self._change(offset, mask, value, 64, "update", endian)

    def set64(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Raise ValueError: I/O ports have no 64-bit access."""
        self._change(offset, mask, mask, 64, "set", endian)

    def clear64(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Raise ValueError: I/O ports have no 64-bit access."""
        self._change(offset, mask, 0, 64, "clear", endian)

    def _read(self, offset: SupportsIndex, bits: int, endian: Endian | None) -> int:
        offset = operator.index(offset)
        order = self._order(endian)
        self._check_offset(offset, bits // 8, bits, "read")
        return int.from_bytes(self._transfer(offset, bits // 8, None), order)

    def _write(self, offset: SupportsIndex, value: SupportsIndex, bits: int, endian: Endian | None) -> None:
        offset, value = operator.index(offset), operator.index(value)
        order = self._order(endian)
        self._check_offset(offset, bits // 8, bits, "write")
        self._check_value(offset, value, bits, "write", "value")
        self._transfer(offset, bits // 8, value.to_bytes(bits // 8, order))

    def _change(
        self,
        offset: SupportsIndex,
        mask: SupportsIndex,
        value: SupportsIndex,
        bits: int,
        verb: str,
        endian: Endian | None,
    ) -> None:
        offset, mask, value = operator.index(offset), operator.index(mask), operator.index(value)
        order = self._order(endian)
        self._check_offset(offset, bits // 8, bits, verb)
        self._check_value(offset, mask, bits, verb, "mask")
        self._check_value(offset, value, bits, verb, "value")
        if value & ~mask:
            raise ValueError(f"{self._at(offset, bits, verb)}: value {value:#x} has bits outside mask {mask:#x}")
        with self._lock:
            old = int.from_bytes(self._transfer(offset, bits // 8, None), order)
            self._transfer(offset, bits // 8, (old & ~mask | value).to_bytes(bits // 8, order))

    def _run(self, offset: SupportsIndex, length: int, width: int, verb: str, *, fixed: bool) -> Sequence[int]:
        """Check a run of accesses of `width` bytes each, and return the offset of each of them."""
        offset = operator.index(offset)
        if self.closed:
            raise ClosedError(f"{self._name} is closed")
        if width not in (1, 2, 4, 8):
            raise ValueError(f"{self._name}: the width must be 1, 2 or 4 bytes, not {width}")
        if length < 0 or length % width:
            raise ValueError(f"{self._at(offset, width * 8, verb)}: the length is not a whole number of accesses")
        # Check a run of 0 bytes like one access, so that it cannot hide a wrong offset.
        self._check_offset(offset, width if fixed else max(length, width), width * 8, verb)
        return [offset] * (length // width) if fixed else range(offset, offset + length, width)

    def _order(self, endian: Endian | None) -> Endian:
        """Return the byte order in which to read and write a register's bytes in the file.

        Sysfs has the value that inl() returned, in this processor's byte order (drivers/pci/pci-sysfs.c,
        pci_resource_io()); inl() has converted it from little-endian. VFIO has the bytes as they are on the bus
        (drivers/vfio/pci/vfio_pci_rdwr.c: vfio_ioread32 is ioread32be on a big-endian processor).
        """
        endian = self._endian if endian is None else checked_endian(endian)
        if sys.byteorder == "little" or not self._native:
            return endian
        return "little" if endian == "big" else "big"

    def _bus_order(self, data: bytes) -> bytes:
        """Turn the bytes of one access from the file's order into that of the bus, or the other way round."""
        return data[::-1] if sys.byteorder == "big" and self._native else data

    def _at(self, offset: int, bits: int, verb: str) -> str:
        return f"{self._name} (size {self._size:#x}): {bits}-bit {verb} at offset {offset:#x}"

    def _check_offset(self, offset: int, length: int, bits: int, verb: str) -> None:
        if self.closed:
            raise ClosedError(f"{self._name} is closed")
        if bits == 64 > self._width:
            raise ValueError(
                f"{self._at(offset, bits, verb)}: I/O ports have no 64-bit access, nor have BARs that VFIO does not map"
            )
        if bits > self._width:
            reason = f"accesses of this region have at most {self._width} bits, as its width= says"
            raise ValueError(f"{self._at(offset, bits, verb)}: {reason}")
        if offset % (bits // 8):
            raise ValueError(f"{self._at(offset, bits, verb)}: the offset is not a multiple of {bits // 8}")
        if not 0 <= offset <= self._size - length:
            raise ValueError(f"{self._at(offset, bits, verb)}: {length} bytes there are not inside the region")

    def _check_value(self, offset: int, value: int, bits: int, verb: str, what: str) -> None:
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{self._at(offset, bits, verb)}: {what} {value:#x} is not in 0..{(1 << bits) - 1:#x}")

    def _transfer(self, offset: int, width: int, data: bytes | None) -> bytes:
        """Read `width` bytes, or write `data`, in one system call."""
        with self._lock:
            if self._fd is None:
                raise ClosedError(f"{self._name} is closed")
            if self._presence is not None and self._presence.gone:
                self._presence.require()
            try:
                if data is None:
                    data = os.pread(self._fd, width, self._start + offset)
                    count = len(data)
                    # A removed device may read as all ones before the kernel reports that it is gone.
                    if self._presence is not None and data == b"\xff" * width:
                        self._presence.require()
                else:
                    count = os.pwrite(self._fd, data, self._start + offset)
                    if self._presence is not None:
                        self._presence.note_write()
            except DeviceRemovedError:
                raise
            except OSError as error:
                raise self._failed(error, offset, width) from error
        if count != width:
            raise MappingError(
                errno.EIO, f"{self._name}: the kernel moved {count} of {width} bytes at offset {offset:#x}; wrong size?"
            )
        return data

    def _failed(self, error: OSError, offset: int, width: int) -> Exception:
        """Return pyuio's error for the kernel's answer, and tell the presence if the device is gone."""
        failed = translated(error, f"{self._name}, {width} bytes at offset {offset:#x} of {self._path}")
        if self._presence is not None and isinstance(failed, DeviceRemovedError):
            self._presence.note_gone()
        return failed


_regions: weakref.WeakSet[PortRegion] = weakref.WeakSet()


def renew_locks() -> None:
    """Give the regions new locks in a forked child: a thread of the parent may have held the old ones."""
    for region in list(_regions):
        region._lock = threading.RLock()
