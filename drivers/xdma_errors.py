# SPDX-License-Identifier: MIT
"""The errors of the XDMA driver, and the words for the bits of a channel's status.

The words are those of PG195, sections "H2C Channel Status (0x40)" and "C2H Channel Status (0x40)".
"""

from __future__ import annotations

import errno

from pyuio_drivers.xdma_registers import ChannelStatus, Target

from pyuio import DeviceTimeoutError, PyuioError

_PCIE = ("unsupported request", "completer abort", "parity error", "header EP", "unexpected completion")
_AXI = ("decode error", "slave error")
_BITS = {
    Target.H2C: {"read_error": _PCIE, "write_error": _AXI, "descr_error": _PCIE},
    Target.C2H: {"read_error": _AXI, "descr_error": _PCIE},
}
ERRORS = ChannelStatus.mask(
    "align_mismatch", "magic_stopped", "invalid_length", "read_error", "write_error", "descr_error"
)
"""The bits of a channel's status that are errors."""


class XdmaError(PyuioError, OSError):
    """The base class of the driver's errors about the engine (errno EIO)."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class ChannelError(XdmaError):
    """A channel ended a transfer with an error. It was stopped, and can be used again.

    Some of the data may have been transferred.

    Attributes:
        status: the channel's status register, with all its fields.
        completed: how many descriptors the channel completed.
    """

    def __init__(self, doing: str, what: str, status: ChannelStatus, completed: int) -> None:
        self.status = status
        self.completed = completed
        super().__init__(f"{doing}: {what} (status {status.read():#x}, {completed} descriptors completed)")


class ChannelTimeoutError(XdmaError, DeviceTimeoutError):
    """A channel did not complete a transfer in time. The message says whether it stopped.

    Some of the data may have been transferred.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ETIMEDOUT


class ChannelNotFoundError(PyuioError, IndexError):
    """The bitstream has no channel of this number."""


class AlignmentError(PyuioError, ValueError):
    """The channel cannot transfer from or to such an address, or so many bytes (its register ``alignments``)."""


def error_words(target: Target, status: ChannelStatus) -> str:
    """Return the errors in a channel's status in words, as in ``read_error: decode error``; "" if there is none."""
    words = [name for name in ("align_mismatch", "magic_stopped", "invalid_length") if getattr(status, name)]
    for name in ("read_error", "write_error", "descr_error"):
        value: int = getattr(status, name)
        known = _BITS[target].get(name, ())
        words += [f"{name}: {known[bit] if bit < len(known) else f'bit {bit}'}" for bit in range(5) if value >> bit & 1]
    return ", ".join(words)
