# SPDX-License-Identifier: MIT
"""Memory-mapped register access of exact width. See `pyuio.region.Region` for what a driver uses.

Every call makes exactly the accesses that it names, in program order. Each access is one load or store of the width in
the call's name. A call keeps the global interpreter lock throughout. Offsets are in bytes from the start of the window.

Every access raises these errors, always before it touches the hardware:

* `TypeError`: an argument is not an integer. (A bool is an integer here, and so is anything with ``__index__``.)
* `ValueError`: the offset is negative, not a multiple of the width, or past the end; a value, or a mask, has more bits
  than the register; ``endian`` is none of ``"little"``, ``"big"`` and None (the window's); 64 bits on a 32-bit
  processor.
* `pyuio.errors.ClosedError`: the window was closed.
* `pyuio.errors.DeviceRemovedError`: the window belongs to a device that is known to be gone. A read whose bits are all
  1, or all 0, makes the access ask the kernel, and raises this afterwards if the kernel says that the device is gone.

On x86-64 and arm64, an access that the kernel answers by SIGBUS raises `pyuio.errors.BusError`, or `DeviceRemovedError`
if the device is gone.
"""

from typing import Literal, SupportsIndex, TypeAlias

from typing_extensions import Buffer

Endian: TypeAlias = Literal["little", "big"]

class Presence:
    """Whether an open device is still there. Each `pyuio.Device` has one; all parts of the device ask it, or tell it.

    A device that is known to be gone stays gone: one that comes back is another device. Asking takes one or two system
    calls.

    Args:
        name: of the device, for messages.
    """

    def __init__(self, name: str) -> None: ...
    def ask_config(self, file: int, start: int = 0, /) -> None:
        """Ask by the configuration space from now on. OSError: the descriptor cannot be duplicated.

        Args:
            file: a descriptor of its file.
            start: where in the file the configuration space starts, in bytes.
        """

    def ask_node(self, file: int) -> None:
        """Ask by this descriptor of an attribute of the UIO node from now on. OSError: it cannot be duplicated."""

    def ask_request(self, file: int) -> None:
        """Ask by this eventfd, which VFIO makes readable when it wants the device back. OSError: as above."""

    @property
    def gone(self) -> bool:
        """Whether the device is known to be gone, without asking the kernel."""

    def note_gone(self) -> None:
        """Tell that the device is gone: every later access to its registers raises `DeviceRemovedError`."""

    def is_gone(self) -> bool:
        """Return whether the device is gone; ask the kernel."""

    def require(self) -> None:
        """Ask the kernel, and raise `DeviceRemovedError` if the device is gone."""

    def note_write(self) -> None:
        """Tell of a write to a register of the device that has no `Window`."""

    def asserts_interrupt(self) -> bool:
        """Return whether the function asserts INTx now, masked or not; False if that cannot be known.

        Source: Interrupt Status, PCI Local Bus Specification 3.0, section 6.2.3.
        """

    def close(self) -> None:
        """Close the files; what is known stays known. A second close does nothing."""

class Window:
    """`size` bytes of registers that start `offset` bytes into a writable buffer, usually a `mmap.mmap`.

    The buffer stays exported until `close`, so the mapping can be neither closed nor resized. In a `mmap.mmap` the
    window may end beyond the mapping's length, in its last page, because the kernel maps whole pages.

    A subclass gets methods of its own when it is made, because Python calls those faster.

    Args:
        buffer: writable and contiguous.
        offset: in bytes, from 0.
        size: in bytes, at least 1.
        name: for error messages.
        endian: byte order of the registers wider than a byte.

    Raises:
        BufferError: the buffer is read-only.
        TypeError: a wrong type, or a second initialisation.
        ValueError: the window is not inside the buffer.
    """

    def __init__(
        self, buffer: Buffer, *, offset: int, size: int, name: str, endian: Endian, width: int = 64
    ) -> None: ...
    @property
    def size(self) -> int:
        """Size in bytes, also after `close`."""

    @property
    def name(self) -> str:
        """The name in error messages."""

    @property
    def endian(self) -> Endian:
        """Byte order of the registers."""

    @property
    def width(self) -> int:
        """The widest access in bits: 8, 16, 32 or 64. Wider ones raise ValueError."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    @property
    def presence(self) -> Presence | None:
        """Whether the device is still there; None for memory of no device."""

    def _join(self, presence: Presence, /) -> None:
        """Belong to a device: accesses raise DeviceRemovedError once it is gone. ClosedError: the window was closed."""

    def close(self) -> None:
        """Release the buffer. Later accesses raise `pyuio.errors.ClosedError`; a second close does nothing."""

    def read(
        self, offset: SupportsIndex, /, length: SupportsIndex, width: SupportsIndex = 4, *, fixed: bool = False
    ) -> bytes:
        """Return `length` bytes, by ascending loads of `width` bytes each (1, 2, 4 or 8).

        If `fixed` is true, each load is at `offset`: so the loads take entries out of a queue. The bytes have the order
        in which they lie in the device's memory, whatever the window's ``endian``.
        """

    def write(self, offset: SupportsIndex, /, data: Buffer, width: SupportsIndex = 4, *, fixed: bool = False) -> None:
        """Write `data`, by stores of `width` bytes each (1, 2, 4 or 8), at the places and in the order of `read`."""

    def read8(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 8 bits: one load."""

    def write8(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 8 bits: one store."""

    def update8(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one load, one store."""

    def set8(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one load, one store."""

    def clear8(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one load, one store."""

    def read16(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 16 bits: one load."""

    def write16(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 16 bits: one store."""

    def update16(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one load, one store."""

    def set16(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one load, one store."""

    def clear16(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one load, one store."""

    def read32(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 32 bits: one load."""

    def write32(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 32 bits: one store."""

    def update32(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one load, one store."""

    def set32(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one load, one store."""

    def clear32(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one load, one store."""

    def read64(self, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        """Return a register of 64 bits: one load."""

    def write64(self, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Write a register of 64 bits: one store."""

    def update64(
        self, offset: SupportsIndex, mask: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        """Give the bits in `mask` the ones in `value`, which may have no others: one load, one store."""

    def set64(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Set the bits in `mask`: one load, one store."""

    def clear64(self, offset: SupportsIndex, mask: SupportsIndex, /, *, endian: Endian | None = None) -> None:
        """Clear the bits in `mask`: one load, one store."""
