# SPDX-License-Identifier: MIT
"""What a card is plugged into: a test's own process, or a guest. `Host` is what a card needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

LONGEST = 1e9
"""The most seconds that a card or a driver may let pass at once, 30 years: beyond them, the 1 us of an access would be
lost in rounding."""


def check_seconds(seconds: float, what: str) -> None:
    """Check a time that is to pass. ValueError, TypeError: `what` does not take it."""
    try:
        fits = 0 <= seconds <= LONGEST
    except TypeError:
        raise TypeError(f"{what} takes seconds, a number, not {seconds!r}") from None
    if not fits:
        raise ValueError(f"{what} takes seconds from 0 to {LONGEST:g}, not {seconds}")


class Host(Protocol):
    """The machine on the other side of a card's connector."""

    def now(self) -> float:
        """Return the time in seconds, from any start."""

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds`, in the thread in which the card's other methods are called."""

    def set_line(self, asserted: bool) -> None:
        """Assert the INTx line of the card, or deassert it."""

    def send_message(self, address: int, data: int) -> None:
        """Deliver a message interrupt: a write of 32 bits to `address`."""

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes of the machine's memory, for the card. MasterAbortError: there is no memory for it there."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Write bytes to the machine's memory, for the card. MasterAbortError: there is no memory for it there."""

    def remove(self) -> None:
        """Let the machine notice that the card was pulled out."""


class MasterAbortError(OSError):
    """No memory answers at a bus address, or the IOMMU keeps it from the card."""
