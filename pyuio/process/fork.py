# SPDX-License-Identifier: MIT
"""Objects that belong to the process that opened them: forked children close their copies, and nothing pickles them.

A child inherits its parent's descriptors and memory. With them it could unmask the parent's interrupt, take interrupts
that the parent counts, and keep the kernel from freeing the card when the parent is killed. So before any code of the
child runs, `forget_all` closes in it the devices, with their interrupts, configuration spaces and files, services,
hotplug monitors, the tasks that wait, and memory for DMA, which then reads as zeros. Mappings of BARs remain.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from typing import NoReturn

from pyuio.errors import ClosedError


class Owned:
    """An object that belongs to one process.

    Attributes:
        inherited: whether this is a forked child's copy.
    """

    inherited = False

    def own(self) -> None:
        """Make children that are forked from now on call `forget`."""
        owned.add(self)

    def forget(self) -> None:
        """In a forked child, where no other thread is: close this copy, and touch nothing of the parent's."""
        self.inherited = True

    def closed_error(self, what: str) -> ClosedError:
        """Return the error for a use after closing; `what` begins the sentence."""
        if self.inherited:
            advice = "leave it to that one, or open the device here once it is closed there"
            return ClosedError(f"{what} belongs to the process that this one was forked from: {advice}")
        return ClosedError(f"{what} is closed")

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it belongs to the process that opened it; give the "
            f"other one the device's address, and let it open the device"
        )


owned: weakref.WeakSet[Owned] = weakref.WeakSet()
"""The objects of this process that were not collected yet, open or closed."""


def forget_all() -> None:
    """In a forked child: forget every object."""
    with ExitStack() as all_of_them:  # one that fails must not keep the others from being forgotten
        for thing in list(owned):
            all_of_them.callback(thing.forget)
