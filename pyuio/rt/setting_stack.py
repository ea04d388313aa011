# SPDX-License-Identifier: MIT
"""Settings that several owners change, and that each owner restores at a time of its own.

An owner restores the value that it found, unless another owner has changed the same setting since. Then that later
owner will restore it. So the last owner restores the value that the first one found, in whatever order and on whichever
thread they restore.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

from pyuio.process.late import release_after_fork


class _Change:
    def __init__(
        self,
        owner: object,
        key: Hashable,
        before: Any,
        write: Callable[[Any], None],
        in_child: Callable[[Any], None] | None,
    ) -> None:
        self.owner, self.key, self.before, self.write, self.in_child = owner, key, before, write, in_child


class SettingStack:
    """The changes of all owners, in the order in which they were made.

    A forked child starts without changes. Settings that it inherits nevertheless, `in_child` restores there.

    Attributes:
        lock: locked while a setting is changed or restored. Reentrant, for a signal handler that restores.
        forking: in a child that is being made, the native id, in the parent, of the thread that forks.
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
        """Change a setting until `restore` is called for `owner`.

        Args:
            owner: makes the change.
            key: names the setting.
            value: the new value.
            read: returns the present value.
            write: sets a value; it is called again, possibly twice with the same value, to restore.
            in_child: restores a value in a forked child.

        Raises:
            OSError: the error of `read` or `write`; then there is nothing to restore.
        """
        with self.lock:
            change = _Change(owner, key, read(), write, in_child)
            # First, so that Ctrl-C in the middle of write() does not lose the change.
            self._changes.append(change)
            try:
                write(value)
            except OSError:
                self._changes.remove(change)
                raise

    def restore(self, owner: object) -> list[OSError]:
        """Restore every setting that `owner` changed, the last one first, and return the errors of `write`.

        If an exception, such as Ctrl-C's, ended an earlier call, this one continues.
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
        """Return whether `owner` has settings to restore."""
        return any(change.owner is owner for change in self._changes)

    def owners(self) -> list[Any]:
        """Return the owners that have settings to restore, the latest first."""
        return list({id(change.owner): change.owner for change in reversed(self._changes)}.values())

    def _before_fork(self) -> None:
        self.lock.acquire()
        self.forking = threading.get_native_id()

    def _release(self) -> None:
        release_after_fork(self.lock)

    def _start_anew(self) -> None:
        # The child has none of the threads that used the lock.
        self.lock = threading.RLock()
        first: dict[Hashable, _Change] = {}
        for change in self._changes:
            first.setdefault(change.key, change)
        self._changes = []
        for change in reversed(first.values()):
            if change.in_child is not None:
                change.in_child(change.before)
