# SPDX-License-Identifier: MIT
"""Interrupts into a guest by QEMU's qtest socket (QEMU, docs/devel/testing: qtest protocol; softmmu/qtest.c).

The socket lets QEMU's main loop do what a device would: set an input of the interrupt controller, and write to memory,
which is what a message is. It answers each command with a line when it is done.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from pyuio.model.loop import Loop


class Qtest:
    """Lines and messages of all cards of a guest.

    Args:
        connection: QEMU's qtest socket.
        loop: what reads from it.
    """

    def __init__(self, connection: socket.socket, loop: Loop) -> None:
        self._socket = connection
        self._loop = loop
        self._holders: dict[int, set[object]] = {}
        self._waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._rest = b""
        self._done = 0
        self.sent = 0
        """How many commands were sent."""
        loop.watch(connection, self._read)

    def set_line(self, pin: int, who: object, asserted: bool) -> None:
        """Assert a pin of the interrupt controller for one card, or end that; others may still hold it."""
        holders = self._holders.setdefault(pin, set())
        before = bool(holders)
        if asserted:
            holders.add(who)
        else:
            holders.discard(who)
        if bool(holders) != before:
            self._send(b"set_irq_in ioapic unnamed-gpio-in %d %d\n" % (pin, not before))

    def write(self, address: int, data: int) -> None:
        """Write 32 bits to memory."""
        self._send(b"writel %#x %#x\n" % (address, data))

    def when_done(self, command: int, call: Callable[[], object]) -> None:
        """Call `call` when QEMU has done so many commands."""
        if self._done >= command:
            call()
        else:
            self._waiting.append((command, call))

    def _send(self, command: bytes) -> None:
        self.sent += 1
        try:
            self._socket.sendall(command)
        except OSError:  # QEMU is gone
            self._done = self.sent

    def _read(self) -> None:
        try:
            data = self._socket.recv(4096)
        except ConnectionError:
            data = b""
        if not data:
            self._loop.leave(self._socket)
            self._done = self.sent
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line != b"OK":
                raise RuntimeError(f"QEMU's qtest socket says {line.decode(errors='replace')!r}")
            self._done += 1
        while self._waiting and self._waiting[0][0] <= self._done:
            self._waiting.popleft()[1]()
