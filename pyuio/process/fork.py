# SPDX-License-Identifier: MIT
"""What belongs to the process that opened it: closed in children that are forked from it, and never pickled.

A child inherits the descriptors and the memory of its parent, and with them the power to unmask the parent's interrupt,
to take what it counts, and to keep the kernel from letting go of the card when the parent is killed. So all of that is
closed in the child before any of its code runs. BARs that the parent has mapped remain.
"""

from __future__ import annotations

import weakref
from typing import NoReturn

from pyuio.errors import ClosedError


class Owned:
    """Something that belongs to one process.

    Attributes:
        inherited: whether this is a forked child's copy.
    """

    inherited = False

    def own(self) -> None:
        """Have `forget` called in children that are forked from now on."""
        owned.add(self)

    def forget(self) -> None:
        """In a forked child, where no other thread is: close it, and touch nothing that is the parent's."""
        self.inherited = True

    def closed_error(self, what: str) -> ClosedError:
        """Return what is raised when it is used closed; `what` begins the sentence."""
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
"""What this process has, and was not collected yet, open or closed."""


def forget_all() -> None:
    """In a forked child: have everything forgotten."""
    for thing in list(owned):
        thing.forget()
