# SPDX-License-Identifier: MIT
"""A card in a guest by QEMU's multi-process proxy, ``x-pci-proxy-dev``: QEMU 6.2 to 8.1, under TCG.

QEMU sends each access to configuration space and BARs as a message, and waits for the reply (QEMU,
include/hw/remote/mpqemu-link.h, hw/remote/proxy.c). A message has a header, command and size of what follows, in this
machine's byte order, and file descriptors beside it. The proxy has BARs of 32-bit addresses and 256 bytes of
configuration space. It knows of interrupts only under KVM: here they go by `pyuio.model.qtest`.
"""

from __future__ import annotations

import socket
import struct

from pyuio.model.card import Card
from pyuio.model.guest_host import GuestHost, Watcher
from pyuio.model.loop import Loop
from pyuio.model.qtest import Qtest

SYNC_SYSMEM, RET, CONFIG_WRITE, CONFIG_READ, BAR_WRITE, BAR_READ, SET_IRQFD, DEVICE_RESET = range(8)

_HEADER = struct.Struct("=i4xQ")  # command, size of what follows
_REPLY = struct.Struct("=i4xQQ")
_CONFIG = struct.Struct("=IIi")  # offset, value, width
_BAR = struct.Struct("=QQI?3x")  # bus address, value, width, in memory
_REGIONS = 8
_MEMORY = struct.Struct(f"={_REGIONS}Q{_REGIONS}Q{_REGIONS}q")  # addresses, sizes, offsets in the files
_FIRST_BAR, _LAST_BAR = 0x10, 0x27  # offsets in configuration space


def unfit(card: type[Card]) -> str:
    """Return why the proxy cannot give a card to a guest; empty if it can."""
    for index, bar in card().function.bars.items():
        if bar.width == 64:
            return (
                f"BAR {index} has an address of 64 bits, and the proxy of this QEMU gives 32-bit BARs only: "
                f"say BarSpace(..., width=32), or use QEMU 10.1 or later"
            )
    return ""


class Proxy(GuestHost):
    """What a card in a guest is plugged into, by QEMU's proxy.

    Args:
        card: a card that is plugged in nowhere yet.
        channel: the socket to QEMU.
        loop: what reads from it.
        watcher: is told what becomes of the card.
        qtest: takes interrupts.
        pin: the input of the interrupt controller to which the card's INTx line leads.
    """

    def __init__(
        self, card: Card, channel: socket.socket, loop: Loop, watcher: Watcher, qtest: Qtest, pin: int
    ) -> None:
        super().__init__(card, channel, loop, watcher)
        self._qtest = qtest
        self._pin = pin
        self._find_bars()
        card.function.host = self

    def set_line(self, asserted: bool) -> None:
        """Assert the INTx line of the card, or deassert it."""
        self._qtest.set_line(self._pin, self, asserted)

    def send_message(self, address: int, data: int) -> None:
        """Deliver a message interrupt."""
        self._qtest.write(address, data)

    def close(self) -> None:
        """End it: the card is unplugged, or QEMU has ended."""
        super().close()
        self._qtest.set_line(self._pin, self, False)

    def length(self, header: bytes) -> int:
        """Return the length of a message in bytes, header included."""
        return _HEADER.size + int(_HEADER.unpack_from(header)[1])

    def take(self, message: bytes, descriptors: list[int]) -> None:
        """Do what a message asks for, and reply."""
        sent = self._qtest.sent
        value = 0
        command, _ = _HEADER.unpack_from(message)
        if command == BAR_READ:
            address, _, width, memory = _BAR.unpack_from(message, _HEADER.size)
            value = self.bar_read(*self._decode(address, memory), width)
        elif command == BAR_WRITE:
            address, value, width, memory = _BAR.unpack_from(message, _HEADER.size)
            self.bar_write(*self._decode(address, memory), width, value)
        elif command == CONFIG_READ:
            offset, _, width = _CONFIG.unpack_from(message, _HEADER.size)
            value = self.config_read(offset, width)
        elif command == CONFIG_WRITE:
            offset, value, width = _CONFIG.unpack_from(message, _HEADER.size)
            self.config_write(offset, width, value & (1 << 8 * width) - 1)
            if offset <= _LAST_BAR and offset + width > _FIRST_BAR:
                self._find_bars()
        elif command == SYNC_SYSMEM:
            fields = _MEMORY.unpack_from(message, _HEADER.size)
            pieces = zip(*(fields[at : at + _REGIONS] for at in range(0, 3 * _REGIONS, _REGIONS)), strict=True)
            self.memory.set((start, size, descriptors.pop(0), at) for start, size, at in pieces if size)
            return
        elif command == SET_IRQFD:
            return
        elif command == DEVICE_RESET:
            self.reset()
            self._find_bars()
        else:
            raise RuntimeError(f"QEMU's proxy sends command {command}, which no known QEMU has")
        if self._qtest.sent != sent and command != DEVICE_RESET:
            # A driver that has acknowledged an interrupt must not find the line still asserted. During a reset QEMU's
            # main loop itself waits for this reply, and would not see the line change before.
            self._qtest.when_done(self._qtest.sent, lambda: self._reply(value))
        else:
            self._reply(value)

    def _reply(self, value: int) -> None:
        self.send(_REPLY.pack(RET, 8, value))

    def _find_bars(self) -> None:
        """Note where in the address space the BARs are."""
        self._bars = []
        for index, bar in self.function.bars.items():
            start = self.function.bar_address(index)
            self._bars.append((not bar.ports, range(start, start + bar.size), index))

    def _decode(self, address: int, memory: bool) -> tuple[int, int]:
        """Return the index of the BAR at a bus address, and the offset in it."""
        for kind, addresses, index in self._bars:
            if address in addresses and kind == memory:
                return index, address - addresses.start
        raise RuntimeError(f"QEMU asks for {address:#x}, which is in no BAR of {self.card.name}")
