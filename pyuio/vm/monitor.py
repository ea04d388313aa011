# SPDX-License-Identifier: MIT
"""QEMU's monitor: commands to it, its replies and events (QEMU, docs/interop/qmp-spec.rst).

qemu.qmp is not used here: it needs a loop of asyncio beside that of the session, and 0.1 s to import at every start.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from pyuio.vm.errors import GuestError

Message = dict[str, Any]


class MonitorError(GuestError):
    """QEMU refused a command, or did not reply in time."""


class Monitor:
    """QEMU's monitor behind a socket; commands may be sent before QEMU runs.

    Args:
        connection: Our end of the socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""
        self._number = 0
        self.send("qmp_capabilities")

    def send(self, command: str, /, *, descriptor: int | None = None, **arguments: object) -> int:
        """Send a command without waiting for the reply.

        Args:
            command: Its name.
            descriptor: A file descriptor that QEMU gets with it.
            arguments: The command's arguments, with ``_`` in place of ``-``.

        Returns:
            The id of its reply.

        Raises:
            OSError: QEMU is gone.
        """
        self._number += 1
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        text = json.dumps({"execute": command, "arguments": named, "id": self._number}).encode() + b"\n"
        if descriptor is None:
            self.socket.sendall(text)
        else:
            socket.send_fds(self.socket, [text], [descriptor])
        return self._number

    def take(self, data: bytes) -> list[Message]:
        """Take bytes from the socket and return the messages that they completed."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole if line.strip()]

    def wait_for(self, number: int | None, limit: float, event: str = "", **facts: object) -> Message:
        """Wait for the reply to a command, or for an event.

        Args:
            number: The reply's id; None for an event.
            limit: Seconds to wait at most.
            event: The event's name.
            facts: Data that the event must have.

        Raises:
            MonitorError: QEMU refused a command, ended, reported that what the event is about failed, or said nothing
                of the kind in time.
        """
        deadline = time.monotonic() + limit
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                data = self.socket.recv(65536)
                if not data:
                    raise MonitorError("QEMU ended")
                for message in self.take(data):
                    if "error" in message:
                        raise MonitorError(str(message["error"].get("desc", message["error"])))
                    if number is not None and message.get("id") == number:
                        return message
                    if number is None and message.get("event") == event:
                        if facts.items() <= message["data"].items():
                            return message
                        if message["data"].get("status") == "failed":
                            raise MonitorError(f"QEMU reports {event}: failed")
        except TimeoutError:
            pass
        except (OSError, ValueError) as error:
            raise MonitorError(f"QEMU's monitor failed: {error}") from error
        finally:
            self.socket.settimeout(None)
        raise MonitorError(f"QEMU's monitor did not answer within {limit:.0f} s")

    def ask(self, command: str, /, limit: float = 5.0, **arguments: object) -> Any:
        """Send a command and return what QEMU replied.

        Raises:
            MonitorError: QEMU refused it, or did not reply within `limit` seconds.
        """
        try:
            return self.wait_for(self.send(command, descriptor=None, **arguments), limit)["return"]
        except OSError as error:
            raise MonitorError(f"QEMU's monitor failed: {error}") from error
