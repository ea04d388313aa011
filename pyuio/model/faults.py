# SPDX-License-Identifier: MIT
"""Faults that no real card shows on request: `Card.faults`.

Accesses, interrupts and transfers are counted from 1, from the making of the card or the last `Faults.clear`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, SupportsIndex

from pyuio.model.host import check_seconds

if TYPE_CHECKING:
    from typing import Protocol

    from pyuio.model.pci_function import PciFunction
    from pyuio.model.register_file import Slot

    class Faulty(Protocol):
        """What is used of a `Card`."""

        # ruff: noqa: D102
        name: str
        function: PciFunction
        raised: set[int]

        def after(self, seconds: float, call: Callable[[], object]) -> None: ...
        def remove(self) -> None: ...
        def reset(self) -> None: ...
        def slot(self, register: str) -> Slot: ...


class TransferError(OSError):
    """A transfer of the card failed, as `Faults` wanted. A card that does not catch it stops what it was doing."""


class Faults:
    """The faults of one card, none at first. Each may be set at any time, several together.

    Of two for one interrupt, or for one transfer, the later one holds.

    Attributes:
        accesses: how many accesses to BARs the driver has made.
        interrupts: how many interrupts the card has raised.
        transfers: how many times the card has read or written memory.
        vectors: the interrupts that the card has raised.
        happened: what the faults did so far, in words.
        began: at which access the first of that happened; 0 for before all.
        misleading: whether what happened may have told the driver something false, as a reset and a stuck bit do. From
            then on the card does not complain about what the driver does, which cannot know better: it does nothing,
            as hardware would.
    """

    def __init__(self, card: Faulty) -> None:
        self._card = card
        self.clear()

    def clear(self) -> None:
        """Take all faults away, and begin to count anew."""
        self.accesses = self.interrupts = self.transfers = 0
        self.vectors: set[int] = set()
        self.happened: list[str] = []
        self.began = 0
        self.misleading = False
        self.planned: dict[int, list[tuple[str, Callable[[], object]]]] = {}
        self._at_interrupt: dict[int, tuple[str, float]] = {}
        self._at_transfer: dict[int, str] = {}
        self._stuck: dict[str, tuple[int, int]] = {}
        self.reads_altered = False

    def _note(self, text: str) -> None:
        if not self.happened:
            self.began = self.accesses
        self.happened.append(f"at access {self.accesses}: {text}")

    def _plan(self, access: SupportsIndex, what: str, call: Callable[[], object]) -> None:
        self.planned.setdefault(_from_one(access, "access"), []).append((what, call))

    # ---- To be set ----

    def remove(self, *, at_access: SupportsIndex) -> None:
        """Pull the card out just before this access."""
        self._plan(at_access, "the card is pulled out", self._card.remove)

    def reset(self, *, at_access: SupportsIndex) -> None:
        """Reset the card just before this access, as a power failure would: registers, interrupts, configuration."""

        def reset() -> None:
            self.misleading = True
            self._card.reset()

        self._plan(at_access, "the card resets", reset)

    def spurious_interrupt(self, *, at_access: SupportsIndex, vector: SupportsIndex = 0, seconds: float = 0.0) -> None:
        """Raise an interrupt without a cause just before this access. A line stays asserted for so many seconds."""
        check_seconds(seconds, "spurious_interrupt()")
        card, number = self._card, operator.index(vector)

        def raise_one() -> None:
            card.function.raise_interrupt(number)
            if seconds:
                card.after(seconds, end)
            else:
                end()

        def end() -> None:
            if number not in card.raised:
                card.function.lower_interrupt(number)

        self._plan(at_access, f"a spurious interrupt {number}", raise_one)

    def lose_interrupt(self, number: SupportsIndex) -> None:
        """Let the card raise its n-th interrupt in vain: the cause is there, and nothing is sent."""
        self._at_interrupt[_from_one(number, "interrupt")] = "lost", 0.0

    def double_interrupt(self, number: SupportsIndex) -> None:
        """Send the n-th interrupt twice, if it is a message. A line has no second time."""
        self._at_interrupt[_from_one(number, "interrupt")] = "doubled", 0.0

    def delay_interrupt(self, number: SupportsIndex, seconds: float) -> None:
        """Send the n-th interrupt so many seconds late. ValueError: they are negative, or too many."""
        check_seconds(seconds, "delay_interrupt()")
        self._at_interrupt[_from_one(number, "interrupt")] = "late", float(seconds)

    def fail_transfer(self, number: SupportsIndex) -> None:
        """Let the card's n-th access to memory fail: it raises `TransferError` in the card."""
        self._at_transfer[_from_one(number, "transfer")] = "fails"

    def cut_transfer(self, number: SupportsIndex) -> None:
        """Let the card's n-th access to memory stop half way, with `TransferError`."""
        self._at_transfer[_from_one(number, "transfer")] = "stops half way"

    def corrupt_transfer(self, number: SupportsIndex) -> None:
        """Flip one bit of what the card's n-th access to memory moves."""
        self._at_transfer[_from_one(number, "transfer")] = "is corrupted"

    def read_ones(self, register: str, *, at_access: SupportsIndex | None = None) -> None:
        """Let a register read as all ones, as a card does whose link has failed; from this access on, or from now on.

        Args:
            register: its name in the map.
            at_access: from which access on; None for now.

        Raises:
            RegisterNotFoundError: the card has no such register.
            ValueError: it is write-only.
        """
        self._stick(register, -1, -1, at_access)

    def stick(
        self, register: str, bit: SupportsIndex, value: SupportsIndex, *, at_access: SupportsIndex | None = None
    ) -> None:
        """Let one bit of a register always read as 0 or 1, from this access on, or from now on.

        ValueError: `value` is neither 0 nor 1, or there is no such bit. RegisterNotFoundError: as for `read_ones`.
        """
        number, stuck = operator.index(bit), operator.index(value)
        width = 8 * self._card.slot(register).word
        if not 0 <= number < width or stuck not in (0, 1):
            raise ValueError(f"bit {number} cannot be stuck at {stuck}: {register} has bits 0 to {width - 1}")
        self._stick(register, 1 << number, stuck << number, at_access)

    def _stick(self, register: str, mask: int, value: int, at_access: SupportsIndex | None) -> None:
        if not self._card.slot(register).readable:
            raise ValueError(f"{register} is write-only: no driver reads it, so nothing would happen")

        def begin() -> None:
            before, stuck = self._stuck.get(register, (0, 0))
            self._stuck[register] = before | mask, stuck & ~mask | value & mask
            self.reads_altered = self.misleading = True

        if at_access is None:
            begin()
        else:
            what = "reads as all ones" if mask < 0 else f"has bit {mask.bit_length() - 1} stuck"
            self._plan(at_access, f"{register} {what}", begin)

    # ---- Used by the card, and by `pyuio.model.explore` ----

    def at(self, access: int, call: Callable[[], object]) -> None:
        """Call `call` just before this access. It is no fault, and is not in `happened`."""
        self._plan(access, "", call)

    def before_access(self) -> None:
        """Let happen what was planned for this access, which the card has counted."""
        for what, call in self.planned.pop(self.accesses, ()):
            if what:
                self._note(what)
            call()

    def altered(self, register: str, value: int, width: int) -> int:
        """Return what a register reads as, instead of `value`; `width` is in bytes."""
        mask, stuck = self._stuck.get(register, (0, 0))
        return (value & ~mask | stuck & mask) & (1 << 8 * width) - 1

    def interrupt(self, vector: int) -> None:
        """Count an interrupt that the card raises, and send it, unless something is wrong with it."""
        function, raised = self._card.function, self._card.raised
        self.interrupts += 1
        self.vectors.add(vector)
        fault, seconds = self._at_interrupt.pop(self.interrupts, ("", 0.0))
        if fault:
            self._note(f"interrupt {self.interrupts} is {fault}")
        if fault == "late":
            is_message = bool(function.messages)

            def come_late() -> None:  # unless its cause, or who waits for messages, is gone
                if bool(function.messages) == is_message and (is_message or vector in raised):
                    function.raise_interrupt(vector)

            self._card.after(seconds, come_late)
            return
        if fault != "lost":
            function.raise_interrupt(vector)
        if fault == "doubled":
            function.raise_interrupt(vector)

    def transfer(self, data: Any, move: Callable[[Any], Any]) -> Any:
        """Count an access of the card to memory, and let `move` do it, unless something is wrong with it.

        Args:
            data: the bytes to be written, or the number of bytes to be read.
            move: does it, and returns what was read.

        Raises:
            TransferError: it fails.
        """
        self.transfers += 1
        fault = self._at_transfer.pop(self.transfers, "")
        if not fault:
            return move(data)
        self._note(f"transfer {self.transfers} {fault}")
        if fault == "is corrupted":
            self.misleading = True
            if isinstance(data, int):
                return _flipped(move(data))
            return move(_flipped(data))
        if fault == "stops half way":
            move(data // 2 if isinstance(data, int) else data[: len(data) // 2])
        raise TransferError(f"transfer {self.transfers} of {self._card.name} {fault}")


def _flipped(data: bytes) -> bytes:
    if not data:
        return data
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


def _from_one(number: SupportsIndex, what: str) -> int:
    number = operator.index(number)
    if number < 1:
        raise ValueError(f"the first {what} is number 1, not {number}")
    return number
