# SPDX-License-Identifier: MIT
"""A card in a guest by vfio-user, ``vfio-user-pci``: QEMU 10.1 and later.

QEMU sends what it would ask the kernel by VFIO as messages (QEMU, docs/interop/vfio-user.rst, hw/vfio-user/; the
structures are those of linux/vfio.h). Interrupts are eventfds that QEMU gives. It has the table of MSI-X to itself: the
card's own has, for each vector that QEMU listens to, its number as the message.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct

from pyuio.model.card import Card
from pyuio.model.guest_host import GuestHost, Watcher
from pyuio.model.loop import Loop
from pyuio.model.pci_function import CONFIG_SIZE

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, _, GET_IRQ_INFO, SET_IRQS, READ, WRITE = range(1, 11)
DEVICE_RESET = 13

_HEADER = struct.Struct("<HHIII")  # id, command, size of all, flags, error
_REPLY, _NO_REPLY, _ERROR = 0x1, 0x10, 0x20  # flags
_CAPABILITIES = {"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 4096}}

_ACCESS = struct.Struct("<QII")  # offset, region, count
_MAP = struct.Struct("<IIQQQ")  # argsz, flags, offset in the file, address, size
_UNMAP = struct.Struct("<IIQQ")  # argsz, flags, address, size
_UNMAP_ALL = 1 << 1
_INFO = struct.Struct("<IIII")  # argsz, flags, regions, interrupts
_RESETS, _IS_PCI = 1 << 0, 1 << 1
_REGION = struct.Struct("<IIIIQQ")  # argsz, flags, index, capabilities, size, offset
_READABLE, _WRITABLE = 1 << 0, 1 << 1
_CONFIG_REGION, _REGIONS = 7, 9  # BARs are the first
_IRQ = struct.Struct("<IIII")  # argsz, flags, index, count
_SET = struct.Struct("<IIIII")  # argsz, flags, index, start, count
_EVENTFDS, _MASKABLE, _AUTOMASKED = 1 << 0, 1 << 1, 1 << 2  # what an interrupt can
_SET_EVENTFDS, _SET_MASK, _SET_UNMASK, _SET_TRIGGER = 1 << 2, 1 << 3, 1 << 4, 1 << 5
INTX, MSI, MSIX, _IRQS = 0, 1, 2, 5

_ENTRY = 16  # bytes of an entry of the MSI-X table: address, data, vector control
_MASKED = 1
_MSIX_ADDRESS = 1  # no message of MSI has it: those addresses are multiples of 4


class VfioUser(GuestHost):
    """What a card in a guest is plugged into, by vfio-user. The arguments are those of `GuestHost`."""

    def __init__(self, card: Card, channel: socket.socket, loop: Loop, watcher: Watcher) -> None:
        super().__init__(card, channel, loop, watcher)
        self._eventfds: dict[tuple[int, int], int] = {}  # by kind of interrupt and vector
        self._asserted = False
        self._masked = False
        card.function.host = self

    def set_line(self, asserted: bool) -> None:
        """Assert the INTx line of the card, or deassert it."""
        self._asserted = asserted
        self._trigger_line()

    def _trigger_line(self) -> None:
        """Tell QEMU of an asserted line, once; QEMU unmasks at the driver's next access, and sees it deasserted so."""
        if self._asserted and not self._masked:
            self._masked = True
            self._trigger(INTX, 0)

    def send_message(self, address: int, data: int) -> None:
        """Deliver a message interrupt."""
        if address == _MSIX_ADDRESS:
            self._trigger(MSIX, data)
        else:
            self._trigger(MSI, data & self.function.messages - 1)

    def _trigger(self, kind: int, vector: int) -> None:
        descriptor = self._eventfds.get((kind, vector))
        if descriptor is not None:
            os.eventfd_write(descriptor, 1)

    def close(self) -> None:
        """End it: the card is unplugged, or QEMU has ended."""
        super().close()
        for descriptor in self._eventfds.values():
            os.close(descriptor)
        self._eventfds.clear()

    # ---- Messages ----

    def length(self, header: bytes) -> int:
        """Return the length of a message in bytes, header included."""
        return int(_HEADER.unpack_from(header)[2])

    def take(self, message: bytes, descriptors: list[int]) -> None:
        """Do what a message asks for, and reply."""
        number, command, _, flags, _ = _HEADER.unpack_from(message)
        answer = self._answer(command, message[_HEADER.size :], descriptors)
        if not flags & _NO_REPLY:
            error = 0 if answer is not None else errno.ENOTSUP
            answer = answer or b""
            flags = _REPLY | (_ERROR if error else 0)
            self.send(_HEADER.pack(number, command, _HEADER.size + len(answer), flags, error) + answer)

    def _answer(self, command: int, body: bytes, descriptors: list[int]) -> bytes | None:
        """Do what a message asks for, and return the body of the reply; None if it cannot be done."""
        if command == READ:
            offset, region, count = _ACCESS.unpack_from(body)
            return body[: _ACCESS.size] + self._region_read(region, offset, count)
        if command == WRITE:
            offset, region, count = _ACCESS.unpack_from(body)
            value = int.from_bytes(body[_ACCESS.size : _ACCESS.size + count], "little")
            if region == _CONFIG_REGION:
                self.config_write(offset, count, value)
            else:
                self.bar_write(region, offset, count, value)
            return body[: _ACCESS.size]
        if command == DMA_MAP:
            _, _, offset, address, size = _MAP.unpack_from(body)
            if descriptors:  # otherwise it is no memory of the guest, but a ROM
                self.memory.add(address, size, descriptors.pop(), offset)
            return b""
        if command == DMA_UNMAP:
            _, flags, address, size = _UNMAP.unpack_from(body)
            self.memory.remove(*((0, 1 << 64) if flags & _UNMAP_ALL else (address, size)))
            return body
        if command == SET_IRQS:
            _, flags, kind, start, count = _SET.unpack_from(body)
            self._set_interrupts(flags, kind, start, count, descriptors)
            return b""
        if command == DEVICE_RESET:
            self.reset()
            return b""
        return self._description(command, body)

    def _region_read(self, region: int, offset: int, count: int) -> bytes:
        if region == _CONFIG_REGION:
            return self.config_read(offset, count).to_bytes(count, "little")
        if region in self.function.bars:
            return self.bar_read(region, offset, count).to_bytes(count, "little")
        return bytes(count)

    def _description(self, command: int, body: bytes) -> bytes | None:
        """Return what the card is."""
        function = self.function
        if command == VERSION:
            return body[:4] + json.dumps(_CAPABILITIES).encode() + b"\0"
        if command == GET_INFO:
            return _INFO.pack(_INFO.size, _RESETS | _IS_PCI, _REGIONS, _IRQS)
        if command == GET_REGION_INFO:
            index = _REGION.unpack_from(body.ljust(_REGION.size, b"\0"))[2]
            size = (
                function.bars[index].size if index in function.bars else CONFIG_SIZE if index == _CONFIG_REGION else 0
            )
            return _REGION.pack(_REGION.size, _READABLE | _WRITABLE if size else 0, index, 0, size, 0)
        if command == GET_IRQ_INFO:
            index = _IRQ.unpack_from(body)[2]
            count = {INTX: int(bool(self.card.interrupt_pin)), MSI: function.msi, MSIX: function.msix}.get(index, 0)
            flags = _EVENTFDS | (_MASKABLE | _AUTOMASKED if index == INTX else 0)
            return _IRQ.pack(_IRQ.size, flags if count else 0, index, count)
        return None

    # ---- Interrupts ----

    def _set_interrupts(self, flags: int, kind: int, start: int, count: int, descriptors: list[int]) -> None:
        """Do what VFIO_DEVICE_SET_IRQS does (linux/vfio.h)."""
        if flags & _SET_TRIGGER:
            every = [vector for one, vector in self._eventfds if one == kind]
            for vector in range(start, start + count) if count else every:
                if (kind, vector) in self._eventfds:
                    os.close(self._eventfds.pop((kind, vector)))
                given = bool(flags & _SET_EVENTFDS and descriptors)
                if given:
                    self._eventfds[kind, vector] = descriptors.pop(0)
                if kind == MSIX:
                    self._listen(vector, given)
            self._masked = False
        else:
            self._masked = bool(flags & _SET_MASK)
        if kind == INTX:
            self._trigger_line()

    def _listen(self, vector: int, given: bool) -> None:
        """Unmask a vector in the card's own table of MSI-X, with its number as the message; or mask it."""
        message = struct.pack("<QII", _MSIX_ADDRESS, vector, 0 if given else _MASKED)
        for at in range(0, _ENTRY, 4):
            word = int.from_bytes(message[at : at + 4], "little")
            self.function.bar_write(self.function.msix_bar, _ENTRY * vector + at, 4, word)
