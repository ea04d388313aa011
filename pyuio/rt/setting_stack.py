# SPDX-License-Identifier: MIT
"""Changes that several owners make to the same things, and that each takes back in its own time.

What an owner found is put back when it leaves, unless somebody changed the same thing after it: then that later one
gets to put it back. So the last one out restores what the first one found, whatever the order, on whichever thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class _Change:
    owner: object
    key: Hashable
    before: Any
    write: Callable[[Any], None]
    in_child: Callable[[Any], None] | None


class Layers:
    """Changes in the order in which they were made, of all owners.

    A process that is forked starts with none of them; what it inherits nevertheless is undone there by `in_child`.

    Attributes:
        lock: held while something is changed or put back. Entered again by a signal handler that leaves in the middle.
        forking: the thread that forks, in a child being made: its native id in the parent.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.forking = 0
        self._changes: list[_Change] = []
        os.register_at_fork(before=self._before_fork, after_in_parent=self._release, after_in_child=self._start_anew)

    def change(
        self,
        owner: object,
        key: Hashable,
        value: Any,
        *,
        read: Callable[[], Any],
        write: Callable[[Any], None],
        in_child: Callable[[Any], None] | None = None,
    ) -> None:
        """Change something until `owner` leaves.

        Args:
            owner: who wants it so.
            key: what is changed.
            value: what it is to become.
            read: returns what it is now.
            write: makes it so; called again, possibly twice with the same value, to put it back.
            in_child: does that in a forked process.

        Raises:
            OSError: as `read` or `write` did; then nothing is to be put back.
        """
        with self.lock:
            change = _Change(owner, key, read(), write, in_child)
            # First: Ctrl-C in the middle of the writing must not make it be forgotten.
            self._changes.append(change)
            try:
                write(value)
            except OSError:
                self._changes.remove(change)
                raise

    def leave(self, owner: object) -> list[OSError]:
        """Put back everything that `owner` changed, last things first, and return what was refused meanwhile.

        Goes on where an exception, such as Ctrl-C, broke it off before.
        """
        refused = []
        with self.lock:
            for change in [change for change in reversed(self._changes) if change.owner is owner]:
                after = self._changes[self._changes.index(change) + 1 :]
                later = next((other for other in after if other.key == change.key), None)
                if later is not None:
                    later.before = change.before
                else:
                    try:
                        change.write(change.before)
                    except OSError as error:
                        refused.append(error)
                self._changes.remove(change)
        return refused

    def holds(self, owner: object) -> bool:
        """Return whether `owner` has something to put back."""
        return any(change.owner is owner for change in self._changes)

    def owners(self) -> list[Any]:
        """Return who has something to put back, the latest first."""
        return list({id(change.owner): change.owner for change in reversed(self._changes)}.values())

    def _before_fork(self) -> None:
        self.lock.acquire()
        self.forking = threading.get_native_id()

    def _release(self) -> None:
        self.lock.release()

    def _start_anew(self) -> None:
        # Its threads are gone, and with them whoever waited for the lock.
        self.lock = threading.RLock()
        first: dict[Hashable, _Change] = {}
        for change in self._changes:
            first.setdefault(change.key, change)
        self._changes = []
        for change in reversed(first.values()):
            if change.in_child is not None:
                change.in_child(change.before)
