# SPDX-License-Identifier: MIT
"""The interrupt of a card in this process, in virtual time. Counts and masking are those of every `Interrupt`.

An eventfd stands for the kernel's count, as with VFIO, so what counts, takes and masks is the same C code as on
hardware. This file stands for the kernel's handler, which counts an interrupt and masks the line, and it lets the
card's time pass instead of sleeping.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pyuio._native._access import Presence
from pyuio._native._interrupt import lib as _lib
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import NominalMasking
from pyuio.interrupt.vfio_interrupt import eventfd_interrupt
from pyuio.model.clock import clock
from pyuio.process.timeouts import timeout_nanoseconds

if TYPE_CHECKING:
    from pyuio.service import Service

_NANOSECONDS = 1e9


class ModelMasking(NominalMasking):
    """The model of a kernel masks the line in its handler, and unmasks it for whoever waits."""

    description = "by the model"


class ModelInterrupt(Interrupt):
    """The INTx interrupt, or one vector, of a card in this process.

    Args:
        request: the eventfd that becomes readable when the card is gone; it stays the caller's.
        name: of the device.
        presence: of the device.
        kind: "INTx", "MSI" or "MSI-X".
        asserted: returns whether the INTx line is asserted.
        goes_wrong: returns whether the card does, as a test wanted; then it is not the driver's fault that the line
            stays asserted.
    """

    clock = clock

    def __init__(
        self,
        request: int,
        name: str,
        presence: Presence,
        kind: str,
        asserted: Callable[[], bool] = lambda: False,
        goes_wrong: Callable[[], bool] = lambda: False,
    ) -> None:
        self._eventfd, native = eventfd_interrupt(request)
        self._asserted, self._goes_wrong = asserted, goes_wrong
        self.on_come: Callable[[], object] | None = None
        """Called when one comes, and when none comes any more, for a service."""
        self._masked_by_handler = False
        self.came = 0
        """How many came so far."""
        masking = ModelMasking() if kind == "INTx" else NominalMasking()
        super().__init__(native, masking, name, presence, kind)

    def come(self) -> None:
        """Count one interrupt: a message came."""
        with clock.lock:
            if not self.closed:
                self.came += 1
                os.eventfd_write(self._eventfd, 1)
                self._tell()

    @property
    def service_class(self) -> type[Service]:
        """The class that `pyuio.Service` makes for it."""
        from pyuio.model.service import ModelService

        return ModelService

    def look_at_line(self) -> None:
        """Count one interrupt if the line is asserted and not masked; that masks it until somebody waits."""
        with clock.lock:
            if not self._asserted() or _lib.pyuio_interrupt_is_masked(self._native):
                return
            pending = int(_lib.pyuio_interrupt_is_pending(self._native))
            # One that was taken is noted in C as masked. One that is pending is known only here.
            if pending == _lib.PYUIO_NONE or (pending == _lib.PYUIO_READY and not self._masked_by_handler):
                self._masked_by_handler = True
                self.come()

    def _tried(self, function: Any) -> int:
        """Call a waiting function in C without waiting, and return its result; it has unmasked if that is 0."""
        result = int(function(self._native, 0))
        self.look_at_line()  # after an unmasking by C, whether for this caller or for another that sleeps
        if result == _lib.PYUIO_NONE:
            result = int(function(self._native, 0))
            self.look_at_line()
        return _lib.PYUIO_NONE if result == _lib.PYUIO_SIGNAL else result

    def _asserts(self) -> bool:
        return self._asserted() and not self._goes_wrong()

    def _wait(self, function: Any, timeout: float | None) -> int:
        nanoseconds = timeout_nanoseconds(timeout)
        self._require_there()
        result = 0

        def ready() -> bool:
            nonlocal result
            result = self._tried(function)
            return result != 0

        clock.wait(None if nanoseconds < 0 else nanoseconds / _NANOSECONDS, ready)
        return self.checked(result, "waiting for an interrupt")

    def read(self, timeout: float | None = None) -> int:
        """Return how many interrupts came since the last read, waiting for one if there is none; see `Interrupt`."""
        if self._unwritten >= self._patience:
            self._look_at_line()
        count = self._wait(_lib.pyuio_interrupt_read, timeout)
        if not count:
            raise self.timed_out(timeout)
        self._note_read()
        if self._waiters.loops:
            self._took_one()
        return count

    def poll(self, timeout: float | None = 0) -> bool:
        """Return whether an interrupt is pending, after waiting for one; see `Interrupt`."""
        return self._wait(_lib.pyuio_interrupt_wait, timeout) == _lib.PYUIO_READY

    async def read_async(self, timeout: float | None = None) -> int:
        """Return what `read` returns, while other asyncio tasks run; see `Interrupt.read_async`."""
        nanoseconds = timeout_nanoseconds(timeout)
        self._require_there()
        if self._unwritten >= self._patience:
            self._look_at_line()
        result = 0

        def ready() -> bool:
            nonlocal result
            result = self._tried(_lib.pyuio_interrupt_read)
            return result != 0

        await clock.wait_async(None if nanoseconds < 0 else nanoseconds / _NANOSECONDS, ready)
        if self.checked(result, "waiting for an interrupt"):
            self._note_read()
            return result
        raise self.timed_out(timeout)

    def unmask(self) -> None:
        """Unmask the interrupt; the next one masks it again. The errors are those of `read`."""
        super().unmask()
        self._masked_by_handler = False
        self.look_at_line()

    def _rearm(self) -> None:
        super()._rearm()
        self.look_at_line()

    @contextmanager
    def armed(self) -> Iterator[tuple[int, int, bool]]:
        """Unmask the interrupt and keep it open in a ``with`` block; see `Interrupt.armed`."""
        with super().armed() as (descriptor, wake, ready):
            self.look_at_line()
            yield descriptor, wake, ready or self.pending

    def let_go(self) -> None:
        """End every wait for the interrupt of a card that is gone."""
        super().let_go()
        self._tell()

    def _tell(self) -> None:
        if self.on_come is not None:
            self.on_come()
        clock.changed()

    def close(self) -> None:
        """Mask the interrupt, end every wait for it with `ClosedError`, and free it. A second close does nothing."""
        with clock.lock:
            super().close()
            self._tell()
