# SPDX-License-Identifier: MIT
"""The fields and capabilities of a configuration space, and the bits of its command and status registers.

Sources: PCI Local Bus Specification 3.0, chapter 6 (configuration space) and appendix H (capability IDs); PCI Express
Base Specification 5.0, section 7.6 (extended capabilities). Section numbers below are those of the first.
"""

from __future__ import annotations

import enum

from pyuio.pci.capabilities import Capability, walk_extended, walk_standard

HEADER_LENGTH = 64
_CONFIGURATION_LENGTHS = (64, 256, 4096)


class RegisterBits(enum.IntFlag):
    """The bits of a register by name; `str` gives ``MEMORY_SPACE|BUS_MASTER`` or the like."""

    def __str__(self) -> str:
        return "|".join(str(bit.name) for bit in type(self) if bit in self) or "0"

    def __format__(self, spec: str) -> str:  # Python 3.10 formats a flag that has its own `__str__` as a string only
        return format(int(self), spec) if spec else str(self)


class Command(RegisterBits):
    """The command register, offset 0x04 (section 6.2.2)."""

    IO_SPACE = 1 << 0
    MEMORY_SPACE = 1 << 1
    BUS_MASTER = 1 << 2
    SPECIAL_CYCLES = 1 << 3
    MEMORY_WRITE_AND_INVALIDATE = 1 << 4
    VGA_PALETTE_SNOOP = 1 << 5
    PARITY_ERROR_RESPONSE = 1 << 6
    SERR_ENABLE = 1 << 8
    FAST_BACK_TO_BACK_ENABLE = 1 << 9
    INTERRUPT_DISABLE = 1 << 10


class Status(RegisterBits):
    """The status register, offset 0x06 (section 6.2.3), without the two-bit `ConfigSpace.devsel_timing`."""

    INTERRUPT_STATUS = 1 << 3
    CAPABILITIES_LIST = 1 << 4
    MHZ_66_CAPABLE = 1 << 5
    FAST_BACK_TO_BACK_CAPABLE = 1 << 7
    MASTER_DATA_PARITY_ERROR = 1 << 8
    SIGNALED_TARGET_ABORT = 1 << 11
    RECEIVED_TARGET_ABORT = 1 << 12
    RECEIVED_MASTER_ABORT = 1 << 13
    SIGNALED_SYSTEM_ERROR = 1 << 14
    DETECTED_PARITY_ERROR = 1 << 15


ERROR_REPORTING = 0xF
"""Bits of Device Control: report correctable, nonfatal and fatal errors, and unsupported requests."""
_SUBSYSTEM, _PCI_X, _EXPRESS = 0x0D, 0x07, 0x10  # capabilities

_STATUS_BITS = sum(Status)
_COMMAND_BITS = sum(Command)


class ConfigImage:
    """The fields of a configuration space, read from bytes that were recorded from a device.

    `pyuio.pci.config_space.ConfigSpace` has the same fields and reads them from a present device.

    Args:
        image: 64, 256 or 4096 bytes from offset 0.
        name: its name in error messages.

    Raises:
        ValueError: the image has another length.
    """

    def __init__(self, image: bytes, name: str = "a recorded configuration space") -> None:
        if len(image) not in _CONFIGURATION_LENGTHS:
            raise ValueError(f"{name} has {len(image)} bytes; a configuration space has 64, 256 or 4096")
        self._image = image
        self.name = name
        self.size = len(image)
        """How many bytes can be read: 4096 (PCI Express), 256, or 64 without the privilege to read more."""

    # -- plain access --

    def _check(self, offset: int, length: int, align: int) -> None:
        for what, number in (("offset", offset), ("length", length)):
            if not isinstance(number, int):
                raise TypeError(f"{self.name}: the {what} must be an int, not {type(number).__name__}")
        if offset % align:
            raise ValueError(f"{self.name}: offset {offset:#x} is not a multiple of {align}")
        if offset < 0 or length < 0 or offset + length > self.size:
            more = "" if self.size > HEADER_LENGTH else " (the kernel shows the rest to root only)"
            raise ValueError(
                f"{self.name}: {length} bytes at {offset:#x} are not within its {self.size:#x} bytes{more}"
            )

    def _get(self, offset: int, length: int) -> bytes:
        return self._image[offset : offset + length]

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`. The kernel chooses the width of the accesses.

        Raises:
            ValueError: the bytes are not within the configuration space.
        """
        self._check(offset, length, 1)
        return self._get(offset, length)

    def _read_word(self, offset: int, width: int) -> int:
        self._check(offset, width, width)
        return int.from_bytes(self._get(offset, width), "little")

    def read8(self, offset: int) -> int:
        """Return the byte at `offset`: 0 to 0xff, by one access. ValueError: outside the configuration space."""
        return self._read_word(offset, 1)

    def read16(self, offset: int) -> int:
        """Return the 16 bits at `offset`, a multiple of 2 bytes, by one access. ValueError: misaligned or outside."""
        return self._read_word(offset, 2)

    def read32(self, offset: int) -> int:
        """Return the 32 bits at `offset`, a multiple of 4 bytes, by one access. ValueError: misaligned or outside."""
        return self._read_word(offset, 4)

    # -- the header, section 6.2 --

    @property
    def device_control(self) -> int | None:
        """Offset of the register Device Control; None if there is no capability Express, or it is not visible.

        Source: PCI Express Base Specification 5.0, section 7.5.3.4.
        """
        return next((one.offset + 8 for one in self.capabilities() if one.id == _EXPRESS), None)

    @property
    def reports_errors(self) -> bool | None:
        """Whether the function reports all errors on its link; None if that is not known, or it has no link.

        Linux 6.1 switches that on in the functions of its own drivers only; later kernels do in all.
        """
        offset = self.device_control
        if offset is None or offset + 2 > self.size:
            return None
        return self.read16(offset) & ERROR_REPORTING == ERROR_REPORTING

    @property
    def answers(self) -> bool:
        """Whether the function answers: one that was pulled out reads as all ones.

        This reads revision and class, which no function has as all ones. A virtual function that is there has all ones
        as its vendor and device id (SR-IOV 1.1, sections 3.4.1.1 and 3.4.1.2).
        """
        return self.read32(0x08) != 0xFFFFFFFF

    @property
    def vendor_id(self) -> int:
        """Vendor ID, 16 bits, offset 0x00; 0xffff in a virtual function, whose ids `FoundDevice.ids` has."""
        return self.read16(0x00)

    @property
    def device_id(self) -> int:
        """Device ID, 16 bits, offset 0x02; 0xffff in a virtual function."""
        return self.read16(0x02)

    @property
    def command(self) -> Command:
        """The command register's bits by name, read from the device now."""
        return Command(self.read16(0x04) & _COMMAND_BITS)

    @property
    def status(self) -> Status:
        """The status register's bits by name, read from the device now."""
        return Status(self.read16(0x06) & _STATUS_BITS)

    @property
    def devsel_timing(self) -> int:
        """DEVSEL timing, bits 9 and 10 of the status register: 0 fast, 1 medium, 2 slow."""
        return self.read16(0x06) >> 9 & 3

    @property
    def revision_id(self) -> int:
        """Revision ID, 8 bits, offset 0x08."""
        return self.read8(0x08)

    @property
    def class_code(self) -> int:
        """Class code, 24 bits from offset 0x09: base class, subclass, programming interface."""
        return self.read32(0x08) >> 8

    @property
    def cache_line_size(self) -> int:
        """Cache line size in 32-bit words, offset 0x0c."""
        return self.read8(0x0C)

    @property
    def latency_timer(self) -> int:
        """Latency timer in bus clocks, offset 0x0d."""
        return self.read8(0x0D)

    @property
    def header_type(self) -> int:
        """Layout of the header, 7 bits, offset 0x0e: 0 a function, 1 a PCI bridge, 2 a CardBus bridge."""
        return self.read8(0x0E) & 0x7F

    @property
    def multi_function(self) -> bool:
        """Whether the device has more than one function: bit 7 at offset 0x0e."""
        return bool(self.read8(0x0E) & 0x80)

    @property
    def subsystem_vendor_id(self) -> int | None:
        """Subsystem vendor ID, 16 bits; None if this header has none.

        It is at offset 0x2c of a type 0 header, at 0x40 of a type 2 header, and in the capability Subsystem of a type 1
        header (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2.5.13).
        """
        return self._subsystem(0)

    @property
    def subsystem_id(self) -> int | None:
        """Subsystem ID, 16 bits, after the subsystem vendor ID; None if this header has none."""
        return self._subsystem(1)

    def _subsystem(self, which: int) -> int | None:
        offset: int | None = None
        if self.header_type == 0:
            offset = 0x2C
        elif self.header_type == 2:
            offset = 0x40  # PC Card Standard 8.0, volume 7, section 4.5
        else:
            places = (found.offset + 4 for found in self.capabilities() if found.id == _SUBSYSTEM)
            offset = next(places, None)
        return None if offset is None or offset + 4 > self.size else self.read16(offset + 2 * which)

    @property
    def interrupt_line(self) -> int:
        """Interrupt line, 8 bits, offset 0x3c: where the firmware routed INTx; the device does not use it."""
        return self.read8(0x3C)

    @property
    def interrupt_pin(self) -> int:
        """Interrupt pin, offset 0x3d: 0 for none, 1 to 4 for INTA# to INTD#."""
        return self.read8(0x3D)

    # -- for people --

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the header and the capabilities, in tables."""
        from pyuio.process.html import table

        header = [
            ("vendor and device", f"{self.vendor_id:04x}:{self.device_id:04x}, revision {self.revision_id:#04x}"),
            ("class", f"{self.class_code:#08x}"),
            ("command", f"{int(self.command):#06x} {self.command}"),
            ("status", f"{int(self.status):#06x} {self.status}"),
            ("interrupt pin", ("none", *"ABCD")[self.interrupt_pin] if self.interrupt_pin < 5 else self.interrupt_pin),
        ]
        if self.subsystem_vendor_id is not None:
            header.insert(1, ("subsystem", f"{self.subsystem_vendor_id:04x}:{self.subsystem_id:04x}"))
        found = [*self.capabilities(), *self.extended_capabilities()]
        rows = [(f"{one.offset:#05x}", f"{one.id:#04x}", one.name) for one in found]
        shown = table(f"{self.name[:1].upper()}{self.name[1:]}, {self.size} bytes", header)
        return shown + "\n" + table("Capabilities", rows, ("offset", "id", "name")) if rows else shown

    # -- capabilities --

    def capabilities(self) -> list[Capability]:
        """Return the standard capabilities in the order of the list (section 6.7); [] if there are none."""
        if self.status & Status.CAPABILITIES_LIST == 0:
            return []
        return list(walk_standard(self.read(0, min(self.size, 256))))

    def extended_capabilities(self) -> list[Capability]:
        """Return the extended capabilities in the order of the list; [] if it is not a PCI Express or PCI-X function.

        Another function may show its first 256 bytes again where they would be.
        """
        if not any(found.id in (_PCI_X, _EXPRESS) for found in self.capabilities()):
            return []
        return list(walk_extended(self.read(0, self.size)))
