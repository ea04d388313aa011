# SPDX-License-Identifier: MIT
"""What a card in a guest is plugged into, whatever the protocol by which QEMU sends its accesses."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from pyuio.model.card import Card
from pyuio.model.failure import AccessError
from pyuio.model.guest_memory import GuestMemory
from pyuio.model.loop import Loop

_HEADER = 16  # bytes, in both protocols
_DESCRIPTORS = 16  # that come with a message at most


class Watcher(Protocol):
    """Who is told what becomes of a card."""

    def removed(self) -> None:
        """Hear that the card pulled itself out."""

    def failed(self, error: BaseException) -> None:
        """Hear that a method of the card raised an exception."""


class GuestHost(ABC):
    """One card, plugged into a guest: `pyuio.model.host.Host`, without `set_line` and `send_message`.

    Args:
        card: a card that is plugged in nowhere yet.
        channel: the socket to QEMU.
        loop: what reads from it.
        watcher: is told what becomes of the card.
    """

    def __init__(self, card: Card, channel: socket.socket, loop: Loop, watcher: Watcher) -> None:
        self.card = card
        self.now = loop.now
        self.memory = GuestMemory()
        self.read_memory, self.write_memory = self.memory.read, self.memory.write
        self.function = card.function
        self._watcher = watcher
        self._plugged = True
        self._channel = channel
        self._loop = loop
        self._rest = b""  # of a message that has not come completely
        self._descriptors: list[int] = []  # that came with it
        loop.watch(channel, self._read)

    def remove(self) -> None:
        """Let the guest notice that the card was pulled out: it reads as all ones, and is unplugged if it can be."""
        if self._plugged:
            self._watcher.removed()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds`."""

        def go() -> None:
            try:
                call()
            except BaseException as error:
                self._fail(error)

        self._loop.after(seconds, go)

    def _fail(self, error: BaseException) -> None:
        """Tell of an exception of the card, which is out of order now: for QEMU it was pulled out."""
        self._watcher.failed(error)
        self.card.remove()

    def close(self) -> None:
        """End it: the card is unplugged, or QEMU has ended."""
        self._plugged = False  # QEMU knows
        self.card.remove()
        self._loop.leave(self._channel)
        self._channel.close()
        self._close_descriptors()

    # ---- Messages ----

    @abstractmethod
    def length(self, header: bytes) -> int:
        """Return the length of a message in bytes, header included."""

    @abstractmethod
    def take(self, message: bytes, descriptors: list[int]) -> None:
        """Do what a message asks for.

        Args:
            message: with its header.
            descriptors: those that came with it. What is taken out of the list is open until it is closed.
        """

    def send(self, message: bytes) -> None:
        """Send a message to QEMU."""
        with contextlib.suppress(OSError):  # QEMU is gone, which `_read` notices, too
            self._channel.sendall(message)

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._channel.recvmsg(65536, socket.CMSG_SPACE(4 * _DESCRIPTORS))
        except ConnectionError:
            data, ancillary = b"", []
        for _, _, bits in ancillary:
            self._descriptors += array.array("i", bits)
        if not data:
            self.close()
            return
        data = self._rest + data if self._rest else data
        while len(data) >= _HEADER and len(data) >= (end := self.length(data)):
            message, data = data[:end], data[end:]
            if data or not self._descriptors:
                self.take(message, [])
            else:  # the kernel ends what it returns with the message that has descriptors (net/unix/af_unix.c)
                self.take(message, self._descriptors)
                self._close_descriptors()
        self._rest = data

    def _close_descriptors(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    # ---- Accesses ----

    def config_read(self, offset: int, width: int) -> int:
        """Return what a read of configuration space gets."""
        return (1 << 8 * width) - 1 if self.card.removed else self.function.config_read(offset, width)

    def config_write(self, offset: int, width: int, value: int) -> None:
        """Take a write to configuration space."""
        if not self.card.removed:
            self.function.config_write(offset, width, value)

    def bar_read(self, index: int, offset: int, width: int) -> int:
        """Return what a read of a BAR gets."""
        try:
            return self.function.bar_read(index, offset, width)
        except BaseException as error:
            self._fail(AccessError(error, index, offset, width, None))
            return (1 << 8 * width) - 1

    def bar_write(self, index: int, offset: int, width: int, value: int) -> None:
        """Take a write to a BAR."""
        try:
            self.function.bar_write(index, offset, width, value)
        except BaseException as error:
            self._fail(AccessError(error, index, offset, width, value))

    def reset(self) -> None:
        """Reset the card, unless it was pulled out."""
        if not self.card.removed:
            try:
                self.card.reset()
            except BaseException as error:
                self._fail(error)
