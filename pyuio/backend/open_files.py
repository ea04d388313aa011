# SPDX-License-Identifier: MIT
"""The files that a backend has open: they close in forked children, too, and locks on them keep other openers out."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path

from pyuio.errors import DeviceBusyError
from pyuio.kernel.sysfs import translated


class OpenFiles:
    """Descriptors that belong to one open device.

    Args:
        name: the device's name, for error messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._files: list[int] = []

    def keep(self, file: int, stack: ExitStack) -> int:
        """Register a descriptor to be closed when `stack` closes, and in a forked child; return it."""
        self._files.append(file)
        stack.callback(self._close, file)
        return file

    def _close(self, file: int) -> None:
        self._files.remove(file)
        os.close(file)

    def forget(self) -> None:
        """In a forked child: close all."""
        while self._files:
            self._close(self._files[0])

    def lock(self, file: int, stack: ExitStack, *, shared: bool = False) -> None:
        """Keep a second opener out until `stack` closes; the kernel also ends the lock when the process ends.

        Args:
            file: what is locked.
            stack: unlocks it.
            shared: admit others that lock it shared, too.

        Raises:
            DeviceBusyError: somebody has it locked.
        """
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            path = Path(f"/proc/self/fd/{file}").readlink()
            who = f"in this process or another; close it first (fuser {path} shows who has it)"
            raise DeviceBusyError(errno.EBUSY, f"{self._name} is open already, {who}") from error
        # Unlock explicitly: closing is not enough, because a thread that is leaving a wait still holds a duplicate.
        stack.callback(fcntl.flock, self.keep(os.dup(file), stack), fcntl.LOCK_UN)

    def lock_function(self, directory: Path, stack: ExitStack, *, shared: bool = False) -> None:
        """Lock a file of a PCI function that only those can open who may drive it; do nothing if there is none.

        Anybody may lock a file that he can read, such as ``config``. So it is ``resourceN``. Opening that has no
        effect. Opening the node a second time would: when ``uio_pci_generic`` closes, it ends bus mastering, whoever
        needs it (``release`` in ``drivers/uio/uio_pci_generic.c``).

        Args:
            directory: the function's directory in sysfs.
            stack: unlocks it.
            shared: admit others that lock it shared, too.

        Raises:
            DeviceBusyError: somebody has it locked.
        """
        path = None
        with suppress(FileNotFoundError):  # the function is gone, which the opener is about to find out
            path = min(directory.glob("resource[0-5]"), default=None)
        if path is None:
            return
        try:
            file = self.keep(os.open(path, os.O_RDONLY | os.O_CLOEXEC), stack)
        except PermissionError:  # then this user may not bind the device either, which says so
            return
        except OSError as error:
            raise translated(error, f"opening {path}") from error
        self.lock(file, stack, shared=shared)
