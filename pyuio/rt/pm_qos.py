# SPDX-License-Identifier: MIT
"""Requests that processors wake up quickly: ``/dev/cpu_dma_latency`` (Documentation/power/pm_qos_interface.rst)."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

_NODE = Path("/dev/cpu_dma_latency")


def checked(microseconds: int | None) -> int | None:
    """Return a latency that the kernel takes. TypeError: it is not an int or None. ValueError: not 0 to 2^31 - 1."""
    if microseconds is None:
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool):
        raise TypeError(f"cpu_dma_latency is an int in microseconds or None, not {type(microseconds).__name__}")
    if not 0 <= microseconds < 1 << 31:
        raise ValueError(f"cpu_dma_latency is 0 to 2^31 - 1 microseconds, not {microseconds}")
    return microseconds


class LatencyRequest:
    """A request, which holds as long as its file is open. Of several requests the kernel obeys the shortest."""

    def __init__(self) -> None:
        self._file: int | None = None

    def write(self, microseconds: int | None) -> None:
        """Request this latency, or withdraw the request if it is None. OSError: the kernel refused."""
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)
        if microseconds is None:
            return
        try:
            self._file = os.open(_NODE, os.O_RDWR | os.O_CLOEXEC)
            os.write(self._file, microseconds.to_bytes(4, sys.byteorder))
        except OSError as error:
            with suppress(OSError):
                self.write(None)
            raise OSError(error.errno, f"asking {_NODE} for {microseconds} us: {error.strerror}") from error

    @property
    def answer(self) -> int:
        """The shortest latency that any process requests now, in microseconds."""
        assert self._file is not None
        return int.from_bytes(os.pread(self._file, 4, 0), sys.byteorder, signed=True)


def remedy(error: OSError) -> str:
    """Return what to do about a request that was refused."""
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return f"this kernel has no idle states to avoid, or the container lacks --device {_NODE}"
    return f'run as root, or with a udev rule: KERNEL=="{_NODE.name}", GROUP="realtime", MODE="0660"'
