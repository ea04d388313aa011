# SPDX-License-Identifier: MIT
"""The PCI side of a card: configuration space with BARs and capabilities, and its interrupts.

Sources: PCI Local Bus Specification 3.0, chapter 6 (configuration space; 6.2.5 BARs; 6.8 MSI and MSI-X).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from pyuio.model.host import Host
from pyuio.pci.config_image import Command, Status

CONFIG_SIZE = 256

_STATUS_CAPABILITIES = int(Status.CAPABILITIES_LIST)
_INTERRUPT_STATUS = int(Status.INTERRUPT_STATUS)
_BUS_MASTER = int(Command.BUS_MASTER)
_INTERRUPT_DISABLE = int(Command.INTERRUPT_DISABLE)
_WRITABLE_COMMANDS = int(
    Command.IO_SPACE
    | Command.MEMORY_SPACE
    | Command.BUS_MASTER
    | Command.PARITY_ERROR_RESPONSE
    | Command.SERR_ENABLE
    | Command.INTERRUPT_DISABLE
)

_MSI, _VENDOR, _MSIX = 0x05, 0x09, 0x11
_FIRST_CAPABILITY = 0x40
_MSI_ENABLE, _MSIX_ENABLE, _MSIX_FUNCTION_MASK = 1 << 0, 1 << 15, 1 << 14  # in the capability's control register
_ENTRY = 16  # bytes of an entry of the MSI-X table: address, data, vector control
_ENTRY_MASKED = 1
_PENDING = 0x800  # where the pending bits start in a BAR for MSI-X, 2048 vectors / 8 bits before its end at 4 KiB


class BarSpace(NamedTuple):
    """What stands behind one BAR.

    Attributes:
        size: in bytes, a power of two.
        ports: whether it is in I/O ports.
        width: bits of the address, 32 or 64.
        prefetchable: whether reads have no side effects.
    """

    size: int
    ports: bool = False
    width: int = 32
    prefetchable: bool = False

    @property
    def flags(self) -> int:
        """The low bits of the register."""
        return 1 if self.ports else (4 if self.width == 64 else 0) | (8 if self.prefetchable else 0)


class Capability(NamedTuple):
    """A capability of the configuration space.

    Attributes:
        id: its ID, as 0x09 for a vendor-specific one.
        body: its bytes after ID and next pointer.
        writable: for each byte of `body`, the bits that software can write; bytes that it does not reach are read-only.
    """

    id: int
    body: bytes
    writable: bytes = b""


class PciFunction:
    """A function: it answers accesses to configuration space and BARs, and sends interrupts.

    Addresses below are offsets in BARs, as `bar_of` finds them. Whoever calls is alone with the card.

    Args:
        ids: vendor, device, subsystem vendor and subsystem id, 16 bits each.
        class_code: 24 bits, base class first.
        revision: 8 bits.
        bars: what stands behind each BAR, by index.
        pin: 1 to 4 for INTA to INTD; 0 for no INTx.
        msi: how many MSI vectors it has, a power of two up to 32; 0 for none.
        msix: how many MSI-X vectors it has, up to 128; 0 for none. The table is in `msix_bar`, at its start.
        msix_bar: the BAR of the MSI-X table, which is one of `bars`.
        capabilities: further ones.
        read: answers a read of a BAR: index, offset and width in bytes.
        write: takes a write to a BAR: index, offset, width in bytes, and value.
    """

    def __init__(
        self,
        *,
        ids: tuple[int, int, int, int],
        class_code: int,
        revision: int,
        bars: Mapping[int, BarSpace],
        pin: int,
        msi: int,
        msix: int,
        msix_bar: int,
        capabilities: Iterable[Capability],
        read: Callable[[int, int, int], int],
        write: Callable[[int, int, int, int], None],
    ) -> None:
        self.bars = dict(bars)
        self.host: Host | None = None
        self.msix, self.msi = msix, msi
        self.msix_bar = msix_bar if msix else -1
        self._read, self._write = read, write
        self._image = bytearray(CONFIG_SIZE)
        self._writable = bytearray(CONFIG_SIZE)
        self._asserted: set[int] = set()  # vectors whose cause is there, for INTx
        self._line = False
        self._table = bytearray(_ENTRY * msix)
        self._pending: set[int] = set()
        self._msi_at = self._msix_at = 0
        vendor, device, subvendor, subsystem = ids
        self._put(0x00, vendor, 2)
        self._put(0x02, device, 2)
        self._put(0x04, 0, 2, _WRITABLE_COMMANDS)
        self._put(0x08, revision | class_code << 8, 4)
        self._put(0x0C, 0, 1, 0xFF)
        self._put(0x0D, 0, 1, 0xFF)
        self._put(0x2C, subvendor, 2)
        self._put(0x2E, subsystem, 2)
        self._put(0x3C, 0, 1, 0xFF)
        self._put(0x3D, pin, 1)
        for index, bar in self.bars.items():
            mask = ~(bar.size - 1)
            self._put(0x10 + 4 * index, bar.flags, 4, mask & 0xFFFF_FFFC if bar.ports else mask & 0xFFFF_FFF0)
            if bar.width == 64:
                self._put(0x14 + 4 * index, 0, 4, mask >> 32 & 0xFFFF_FFFF)
        self._add_capabilities(capabilities)
        self._initial = bytes(self._image)
        self.reset()

    def _put(self, offset: int, value: int, width: int, writable: int = 0) -> None:
        self._image[offset : offset + width] = value.to_bytes(width, "little")
        self._writable[offset : offset + width] = writable.to_bytes(width, "little")

    def _get(self, offset: int, width: int) -> int:
        return int.from_bytes(self._image[offset : offset + width], "little")

    def _add_capabilities(self, capabilities: Iterable[Capability]) -> None:
        at, link = _FIRST_CAPABILITY, 0x34
        own = []
        if self.msi:  # 64-bit addresses, no masks per vector (section 6.8.1)
            control = (self.msi.bit_length() - 1) << 1 | 0x80
            msi = control.to_bytes(2, "little") + bytes(10)
            own.append(Capability(_MSI, msi, bytes([0x71, 0, 0xFC, *[0xFF] * 9])))
        if self.msix:  # section 6.8.2
            words = (self.msix - 1, 2), (self.msix_bar, 4), (_PENDING | self.msix_bar, 4)
            msix = b"".join(word.to_bytes(size, "little") for word, size in words)
            own.append(Capability(_MSIX, msix, bytes([0, 0xC0])))
        for one in (*own, *capabilities):
            size = 2 + len(one.body)
            if at + size > CONFIG_SIZE:
                raise ValueError(f"the capabilities take more than the {CONFIG_SIZE} bytes of the configuration space")
            self._image[link] = at
            self._image[at : at + size] = bytes([one.id, 0, *one.body])
            self._writable[at + 2 : at + 2 + len(one.writable)] = one.writable
            if one.id == _MSI and self.msi:
                self._msi_at = at
            elif one.id == _MSIX and self.msix:
                self._msix_at = at
            link, at = at + 1, -(-(at + size) // 4) * 4
            self._put(0x06, _STATUS_CAPABILITIES, 2)

    # ---- Configuration space ----

    def config_read(self, offset: int, width: int) -> int:
        """Return `width` bytes at `offset`, each byte outside of the configuration space as 0."""
        if offset <= 0x06 < offset + width:
            status = self._get(0x06, 2) & ~_INTERRUPT_STATUS
            self._put(0x06, status | (_INTERRUPT_STATUS if self._asserted else 0), 2)
        return self._get(offset, width)

    def config_write(self, offset: int, width: int, value: int) -> None:
        """Write `width` bytes at `offset`; bits that are read-only stay."""
        for at in range(offset, min(offset + width, CONFIG_SIZE)):
            mask, byte = self._writable[at], value >> 8 * (at - offset) & 0xFF
            self._image[at] = self._image[at] & ~mask | byte & mask
        self._update_line()
        self._send_pending()

    @property
    def command(self) -> int:
        """The command register."""
        return self._get(0x04, 2)

    @property
    def is_master(self) -> bool:
        """Whether bus mastering is on."""
        return bool(self._image[0x04] & _BUS_MASTER)

    def bar_of(self, address: int, *, ports: bool) -> tuple[int, int]:
        """Return the BAR that decodes an address, and the offset in it. LookupError: none does."""
        for index, bar in self.bars.items():
            start = self.bar_address(index)
            if bar.ports == ports and start <= address < start + bar.size:
                return index, address - start
        raise LookupError(f"no BAR decodes {address:#x}")

    def bar_address(self, index: int) -> int:
        """Return the address that software wrote to a BAR."""
        bar = self.bars[index]
        return self._get(0x10 + 4 * index, 8 if bar.width == 64 else 4) & ~(3 if bar.ports else 15)

    # ---- BARs ----

    def handlers(self, index: int) -> tuple[Callable[[int, int, int], int], Callable[[int, int, int, int], None]]:
        """Return what answers reads of a BAR, and what takes writes to it; both are called as `bar_read` is."""
        return (self.bar_read, self.bar_write) if index == self.msix_bar else (self._read, self._write)

    def bar_read(self, index: int, offset: int, width: int) -> int:
        """Return what a read of `width` bytes in a BAR gets."""
        if index == self.msix_bar:
            if offset < _PENDING:
                return int.from_bytes(self._table[offset : offset + width], "little")
            bits = sum(1 << vector for vector in self._pending)
            return bits >> 8 * (offset - _PENDING) & (1 << 8 * width) - 1
        return self._read(index, offset, width)

    def bar_write(self, index: int, offset: int, width: int, value: int) -> None:
        """Take a write of `width` bytes to a BAR."""
        if index == self.msix_bar:
            if offset + width <= len(self._table):
                self._table[offset : offset + width] = value.to_bytes(width, "little")
                self._send_pending()
            return
        self._write(index, offset, width, value)

    # ---- Interrupts ----

    @property
    def messages(self) -> int:
        """How many messages are enabled; 0 if the function uses INTx."""
        if self._msix_at and self._get(self._msix_at + 2, 2) & _MSIX_ENABLE:
            return self.msix
        if self._msi_at and self._get(self._msi_at + 2, 2) & _MSI_ENABLE:
            return 1 << (self._get(self._msi_at + 2, 2) >> 4 & 7)
        return 0

    @property
    def asserted(self) -> bool:
        """Whether the cause of an INTx interrupt is there, whatever the command register says."""
        return bool(self._asserted)

    def raise_interrupt(self, vector: int) -> None:
        """Send the message of a vector; or assert the line, if the function uses INTx."""
        if self._msix_at and self._get(self._msix_at + 2, 2) & _MSIX_ENABLE:
            self._pending.add(vector)
            self._send_pending()
        elif self.messages:
            if self.is_master:  # a message is a write to memory (section 6.8)
                at, count = self._msi_at, self.messages
                self._send(self._get(at + 4, 8), self._get(at + 12, 2) & ~(count - 1) | vector % count)
        else:
            self._asserted.add(vector)
            self._update_line()

    def lower_interrupt(self, vector: int) -> None:
        """Take the cause of an INTx interrupt away. A message that was sent stays sent."""
        self._asserted.discard(vector)
        self._update_line()

    def _update_line(self) -> None:
        line = bool(self._asserted) and not self.messages and not self.command & _INTERRUPT_DISABLE
        if line != self._line:
            self._line = line
            if self.host is not None:
                self.host.set_line(line)

    def _send_pending(self) -> None:
        if not self._pending or not self._msix_at or not self.is_master:
            return
        control = self._get(self._msix_at + 2, 2)
        if control & (_MSIX_ENABLE | _MSIX_FUNCTION_MASK) != _MSIX_ENABLE:
            return
        for vector in sorted(self._pending):
            entry = self._table[_ENTRY * vector : _ENTRY * (vector + 1)]
            if not entry[12] & _ENTRY_MASKED:
                self._pending.discard(vector)
                self._send(int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:12], "little"))

    def _send(self, address: int, data: int) -> None:
        if self.host is not None:
            self.host.send_message(address, data)

    def enable_messages(self, kind: str, messages: Sequence[tuple[int, int]]) -> None:
        """Do what a kernel does to enable MSI-X or MSI.

        Args:
            kind: "MSI-X" or "MSI".
            messages: address and data for each vector, from the first on; those of MSI have data that count up from 0.
        """
        if kind == "MSI-X":
            for vector, (address, data) in enumerate(messages):
                entry = address.to_bytes(8, "little") + data.to_bytes(4, "little") + bytes(4)
                self._table[_ENTRY * vector : _ENTRY * (vector + 1)] = entry
            self.config_write(self._msix_at + 2, 2, self._get(self._msix_at + 2, 2) | _MSIX_ENABLE)
        else:
            self.config_write(self._msi_at + 4, 8, messages[0][0])
            self.config_write(self._msi_at + 12, 2, messages[0][1])
            enabled = (len(messages) - 1).bit_length() << 4 | _MSI_ENABLE
            self.config_write(self._msi_at + 2, 2, self._get(self._msi_at + 2, 2) & ~0x71 | enabled)

    def disable_messages(self) -> None:
        """Do what a kernel does to disable MSI-X and MSI."""
        if self._msix_at:
            self.config_write(self._msix_at + 2, 2, self._get(self._msix_at + 2, 2) & ~_MSIX_ENABLE)
        if self._msi_at:
            self.config_write(self._msi_at + 2, 2, self._get(self._msi_at + 2, 2) & ~_MSI_ENABLE)
        self._pending.clear()

    def state(self) -> tuple[bytes, bytes]:
        """Return what a kernel saves before it resets a function."""
        return bytes(self._image), bytes(self._table)

    def restore(self, state: tuple[bytes, bytes]) -> None:
        """Restore what `state` returned."""
        self._image[:], self._table[:] = state
        self._update_line()

    def reset(self) -> None:
        """Return to the state after power-on, interrupts deasserted."""
        self._image[:] = self._initial
        self._table[:] = bytes(len(self._table))
        for at in range(12, len(self._table), _ENTRY):  # vectors are masked at first (section 6.8.2.9)
            self._table[at] = _ENTRY_MASKED
        self._asserted.clear()
        self._pending.clear()
        self._update_line()
