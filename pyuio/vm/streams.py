# SPDX-License-Identifier: MIT
"""Pass bytes between the guest's ports and this program's standard streams."""

from __future__ import annotations

import contextlib
import os
import select
import socket

from pyuio.vm.errors import GuestError, OutputClosedError

CHUNK = 65536
# A pipe that polls writable takes this much without blocking; a write that blocks would hold up everything else.
WRITE_CHUNK = select.PIPE_BUF


def fill_standard_streams() -> None:
    """Open /dev/null as each standard stream that is closed, so that no other file gets its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


class Outgoing:
    """Passes a port's bytes to a standard stream, up to the token that marks their end.

    Args:
        source: The port.
        sink: The standard stream's file descriptor.
        token: The bytes that mark the end.
    """

    def __init__(self, source: socket.socket, sink: int, token: bytes) -> None:
        self.source = source
        self.sink = sink
        self._token = token
        self._pending = b""  # to be written
        self._held = b""  # may be the beginning of the token
        self._ended = False

    @property
    def done(self) -> bool:
        """Whether the end was reached and everything was written."""
        return self._ended and not self._pending

    @property
    def waiting(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending)

    def interest(self) -> tuple[int, int] | None:
        """Return the file descriptor to poll and for what, or None when there is nothing more to do."""
        if self._pending:
            return self.sink, select.POLLOUT
        return None if self._ended else (self.source.fileno(), select.POLLIN)

    def advance(self) -> None:
        """Read or write once.

        Raises:
            OutputClosedError: Nobody reads the standard stream any more.
            GuestError: Writing failed for another reason.
        """
        if self._pending:
            try:
                self._pending = self._pending[os.write(self.sink, self._pending[:WRITE_CHUNK]) :]
            except BlockingIOError:
                pass
            except BrokenPipeError as error:
                raise OutputClosedError("the reader of COMMAND's output went away") from error
            except OSError as error:
                raise GuestError(f"COMMAND's output cannot be written: {error.strerror}") from error
            return
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self.source.recv(CHUNK)
        self._take(data)

    def _take(self, data: bytes) -> None:
        whole = self._held + data
        at = whole.find(self._token)
        if at >= 0 or not data:
            self._pending = whole[:at] if at >= 0 else whole
            self._held = b""
            self._ended = True
            return
        keep = next(n for n in range(len(self._token) - 1, -1, -1) if n == 0 or whole.endswith(self._token[:n]))
        self._pending, self._held = whole[: len(whole) - keep], whole[len(whole) - keep :]


class Incoming:
    """Passes a standard stream's bytes, and its end, to a port.

    Args:
        source: The standard stream's file descriptor.
        sink: The port.
        ends: Whether to end the port when the stream ends; a port that also carries output must go on.
    """

    def __init__(self, source: int, sink: socket.socket, *, ends: bool) -> None:
        self.source = source
        self.sink = sink
        self._ends = ends
        self._pending = b""
        self._ended = False

    def interest(self) -> tuple[int, int] | None:
        """Return the file descriptor to poll and for what, or None when there is nothing more to do."""
        if self._pending:
            return self.sink.fileno(), select.POLLOUT
        return None if self._ended else (self.source, select.POLLIN)

    def advance(self) -> None:
        """Read or writes once."""
        if self._pending:
            try:
                self._pending = self._pending[self.sink.send(self._pending, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                pass
            except OSError:  # the guest is gone, or about to be
                self._pending, self._ended = b"", True
            return
        try:
            self._pending = os.read(self.source, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # no standard input at all
            self._pending = b""
        if not self._pending:
            self._ended = True
            if self._ends:
                # Not close(): QEMU would see the hang-up before the bytes that are still on their way.
                with contextlib.suppress(OSError):
                    self.sink.shutdown(socket.SHUT_WR)


class Pending:
    """Passes bytes that this program makes to a port.

    Args:
        sink: The port.
    """

    def __init__(self, sink: socket.socket) -> None:
        self._sink = sink
        self._bytes = b""

    def add(self, data: bytes) -> None:
        """Pass these bytes after those that still wait."""
        self._bytes += data

    def interest(self) -> tuple[int, int] | None:
        """Return the file descriptor to poll and for what, or None when there is nothing to do."""
        return (self._sink.fileno(), select.POLLOUT) if self._bytes else None

    def advance(self) -> None:
        """Write once."""
        try:
            self._bytes = self._bytes[self._sink.send(self._bytes, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            pass
        except OSError:  # the guest is gone, or about to be
            self._bytes = b""
