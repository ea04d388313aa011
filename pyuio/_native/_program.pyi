# SPDX-License-Identifier: MIT
"""The short way of `pyuio.Device.run`: one call into C and back, for a program that was run before.

The derived class in Python has a method ``_run_slowly(program)``, which runs all other programs.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pyuio._native._access import Window
from pyuio.program import Operation
from pyuio.program.run import Outcome

class Prepared:
    """A program in the form that C runs, with registers in memory only.

    Args:
        run: the address of ``pyuio_program_run``.
        native: the address of the operations in C.
        length: their number.
        slots: the number of the values that they keep.
        owner: what frees the operations in C.
        operations: the program as Python has it.
        windows: those that it accesses.
        names: of the first values.
        finish: makes the result of these values by name, and of the others, if there are any, in a tuple. If `slots` is
            0, it is the result.
    """

    def __init__(
        self,
        run: int,
        native: int,
        /,
        *,
        length: int,
        slots: int,
        owner: Any,
        operations: tuple[Operation, ...],
        windows: tuple[Window, ...],
        names: tuple[str, ...],
        finish: Callable[..., Outcome] | Outcome,
    ) -> None: ...
    def run(self) -> Outcome:
        """Do all operations now, and return what they kept.

        Raises:
            ClosedError: a window is closed.
            DeviceRemovedError: the device is gone.
        """

class Runner:
    """What runs programs, and remembers those that it ran last."""

    def run(self, program: Sequence[Operation], /) -> Outcome:
        """Do a program of register operations now, in one call: what a service's program does at an interrupt.

        A program is one list or tuple that is kept, and run as often as wanted: the first run checks it and makes it
        ready, which costs as much as some hundred accesses; from then on an operation costs a tenth of a call. A device
        remembers the 8 programs that were made ready last, unless one has a `When` or a `While`.

        A program on memory without a `Poll` keeps the global interpreter lock from its first access to its last, so
        other Python threads see it as one access. All others run access by access, as those of the region do.

        Args:
            program: operations of `pyuio.program`, except `Unmask` and `Count`, which are about an interrupt.

        Returns:
            What the operations kept: ``device.run(program).values["status"]``; see `pyuio.program.run.Outcome`.

        Raises:
            TypeError: something is not an operation, or it is about an interrupt.
            ValueError: a value is used before an operation keeps it; operations contain themselves; loops run for too
                long; a register is another device's.
            ClosedError: the device or a region is closed.
            DeviceRemovedError: the device is gone, before or meanwhile.
        """

    def _remember(self, prepared: Prepared, /) -> None:
        """Run this program the short way from now on."""

    def _forget_programs(self) -> None:
        """Forget all programs."""
