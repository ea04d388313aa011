# SPDX-License-Identifier: MIT
"""The interrupts of the Intel 82574L: three messages by MSI-X, or one line for all. Data sheet 317694, section 7.4.

With MSI-X there is a vector for received frames, one for transmitted ones, and one for the link. A message clears its
cause (EIAC) and masks it (IAM), so that no more messages come while the program is busy; a wait unmasks it, and looks
once more before it sleeps. The line stays asserted until the causes are read and cleared (ICR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from pyuio_drivers.e1000e.registers import (
    ALL_ONES,
    E1000eRegisters,
    InterruptCauses,
    InterruptThrottling,
    InterruptVectorAllocation,
)

import pyuio
from pyuio import DeviceTimeoutError

if TYPE_CHECKING:
    from pyuio import Device
    from pyuio.interrupt import Interrupt
    from pyuio.interrupt.wait import HasFileno

_RECEIVE, _TRANSMIT, _LINK = range(3)  # vectors
_RECEIVED = InterruptCauses.value(rxq0=True)
_TRANSMITTED = InterruptCauses.value(txq0=True)
_OTHER = InterruptCauses.value(other=True)
_LINK_CHANGED = InterruptCauses.value(lsc=True)
_OF_THE_LINE = InterruptCauses.value(rxt0=True, rxo=True, rxdmt0=True, lsc=True)
_WRITTEN_BACK = InterruptCauses.value(txdw=True)
_UNIT = 256e-9  # seconds, of ITR and EITR


class Interrupts:
    """The interrupts of one card.

    Args:
        device: the open device.
        registers: its registers.

    Attributes:
        by_message: whether each kind has a vector.
        link_changes: how often the link went up or down, as far as interrupts told: on the line in each wait, with
            messages in `wait_for_link` only.
    """

    def __init__(self, device: Device, registers: E1000eRegisters) -> None:
        self._registers, self._clock = registers, device.clock
        self.by_message = device.most_vectors > _LINK
        self._vectors: tuple[Interrupt, ...] = (
            device.vectors(_LINK + 1) if self.by_message else (device.interrupt,) * (_LINK + 1)
        )
        self.link_changes = 0
        self._interval = 0.0

    def start(self) -> None:
        """Tell the card which vector each cause has, after a reset, and enable the causes that stay so."""
        registers = self._registers
        self.throttle(self._interval)
        registers.rdtr.write(0)
        registers.radv.write(0)
        registers.icr.write(ALL_ONES)
        if not self.by_message:
            registers.ims.write(_OF_THE_LINE)
            return
        with registers.ctrl_ext.change() as ctrl_ext:
            ctrl_ext.pba_support = ctrl_ext.eiame = True
        registers.ivar.write(
            InterruptVectorAllocation.value(
                rxq0=_RECEIVE, rxq0_valid=True, txq0=_TRANSMIT, txq0_valid=True, other=_LINK, other_valid=True
            )
        )
        registers.eiac.write(_RECEIVED | _TRANSMITTED | _OTHER)
        registers.iam.write(_RECEIVED | _TRANSMITTED)
        registers.ims.write(_OTHER | _LINK_CHANGED)

    def throttle(self, interval: float) -> None:
        """Let the card interrupt at most once in `interval` seconds: 0 to 0.0167; 0 for no limit (section 7.4.4).

        ValueError: the interval is out of range.
        """
        units = round(interval / _UNIT)
        if not 0 <= units < 1 << 16:
            raise ValueError(f"the least time between interrupts is 0 to {0xFFFF * _UNIT:.4f} s, not {interval}")
        self._interval = interval
        for register in self._registers.eitr if self.by_message else (self._registers.itr,):
            register.write(InterruptThrottling.value(interval=units))

    # -- waiting --

    def wait_for_frames(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Sleep until the condition holds, which a received frame makes so; return whether it does."""
        return self._wait(_RECEIVE, _RECEIVED, condition, timeout)

    def wait_for_room(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Sleep until the condition holds, which a transmitted frame makes so; return whether it does."""
        if self.by_message:
            return self._wait(_TRANSMIT, _TRANSMITTED, condition, timeout)
        # On the line, each batch that is sent would wake who waits for frames.
        self._registers.ims.write(_WRITTEN_BACK)
        try:
            return self._wait(_TRANSMIT, _TRANSMITTED, condition, timeout)
        finally:
            self._registers.imc.write(_WRITTEN_BACK)

    def wait_for_link(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Sleep until the condition holds, which a change of the link makes so; return whether it does."""
        return self._wait(_LINK, _OTHER, condition, timeout)

    def _wait(self, vector: int, cause: int, condition: Callable[[], bool], timeout: float | None) -> bool:
        interrupt, unmask = self._vectors[vector], self._registers.ims.write
        if not self.by_message:  # several may wait for different things behind the line
            try:
                return interrupt.wait_until(condition, self._acknowledge, timeout)
            except DeviceTimeoutError:
                return condition()
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        left = timeout
        while True:
            unmask(cause)
            if condition():  # it became so before the cause was unmasked
                return True
            try:
                interrupt.read(left)
            except DeviceTimeoutError:
                return condition()
            if vector == _LINK:
                self._acknowledge(1)
            if condition():
                return True
            left = None if deadline is None else max(0.0, deadline - self._clock.monotonic())

    def _acknowledge(self, _: int) -> None:
        """Clear the causes that the card has raised, and count changes of the link."""
        icr = self._registers.icr
        causes = icr.read()
        icr.write(causes)  # reading has cleared them or not, section 10.2.4.1; the caller looks at the rings next
        self.link_changes += bool(causes & _LINK_CHANGED)

    def wait_for_frames_or(
        self, objects: Iterable[int | HasFileno], condition: Callable[[], bool], timeout: float | None
    ) -> list[Any]:
        """Sleep until the condition holds, or one of several things can be read; return which of them can."""
        interrupt, others = self._vectors[_RECEIVE], list(objects)
        if self.by_message:
            self._registers.ims.write(_RECEIVED)
        ready = pyuio.wait([interrupt, *others], 0 if condition() else timeout)
        if interrupt in ready:
            interrupt.read(0)
            if not self.by_message:
                self._acknowledge(1)
        return [one for one in ready if one is not interrupt]

    async def wait_for_frames_async(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Do what `wait_for_frames` does, while other asyncio tasks run."""
        unmask = self._registers.ims.write

        def ready() -> bool:
            if self.by_message and not condition():
                unmask(_RECEIVED)
            return condition()

        def serve(count: int) -> None:
            if not self.by_message:
                self._acknowledge(count)

        try:
            return await self._vectors[_RECEIVE].wait_until_async(ready, serve, timeout)
        except DeviceTimeoutError:
            return condition()
