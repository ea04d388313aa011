# SPDX-License-Identifier: MIT
"""The short way of `pyuio.Interrupt.read` and `poll`: one call into C and back, without a Python frame.

The derived class in Python raises what there is to raise: ``_reader.c`` lists the methods that it supplies.
"""

from typing import Any

from pyuio._native._access import Presence

class Reader:
    """What reads an interrupt. It releases the global interpreter lock while it waits."""

    def read(self, timeout: float | None = None) -> int:
        """Return how many interrupts came since the last read, waiting for one if there is none.

        If some are pending, it returns at once, and the interrupt stays masked. Otherwise it unmasks the interrupt and
        waits; the next interrupt masks it again.

        Args:
            timeout: seconds to wait; None waits for ever, 0 does not wait.

        Returns:
            1 to 2^32 - 1; the kernel's own count wraps at 2^32.

        Raises:
            DeviceTimeoutError: a `TimeoutError`; none came in time. The interrupt is unmasked. If `timeout` is 0, it is
                its subclass `WouldBlockError`, also a `BlockingIOError`.
            ClosedError: the interrupt was closed, before or meanwhile.
            DeviceRemovedError: the device was removed or unbound, before or meanwhile.
            TypeError: the timeout is not a number.
            ValueError: the timeout is negative or NaN.
        """

    def poll(self, timeout: float | None = 0) -> bool:
        """Return whether an interrupt is pending, after waiting for one up to `timeout` seconds, unmasked meanwhile.

        None waits for ever. The interrupt stays pending, for `read`. The errors are those of `read`, except for
        `DeviceTimeoutError`.
        """

    _unwritten: int
    """How many reads came in a row without a write to a register of the device by this process in between."""
    _patience: int
    """From so many on, `_look_at_line` is called before each read; 2^32 - 1 for never."""

    def _note_read(self) -> None:
        """Note that interrupts were read, by other means than `read`."""

    def _connect(
        self,
        interrupt: int,
        read: int,
        wait: int,
        owner: Any,
        presence: Presence | None,
        loops: dict[Any, Any],
        patience: int,
        /,
    ) -> None:
        """Tell what to read: the addresses of the interrupt in C, of ``pyuio_interrupt_read`` and ``_wait``.

        Args:
            interrupt: its address.
            read: that of the one function.
            wait: that of the other.
            owner: what frees the interrupt in C; the reader keeps it.
            presence: of the device; None if there is none.
            loops: empty while no asyncio task waits.
            patience: see `_patience`.
        """
