# SPDX-License-Identifier: MIT
"""Errors of a guest; each carries the exit status that the command line ends with."""

from __future__ import annotations

from pyuio.errors import PyuioError


class GuestError(PyuioError, RuntimeError):
    """Something about the guest failed.

    Attributes:
        status: The exit status that stands for this kind of failure (see `pyuio.vm`).
    """

    status = 125


class GuestStartError(GuestError):
    """The guest could not be started: no QEMU, no kernel, a bad device text, or it never reached COMMAND."""


class KernelError(GuestStartError):
    """The requested kernel cannot be found, fetched or used."""


class GuestTimeoutError(GuestError, TimeoutError):
    """The time limit of the whole run passed."""

    status = 124


class GuestPanicError(GuestError):
    """The guest's kernel panicked."""

    status = 123


class GuestExitError(GuestError):
    """QEMU ended before COMMAND did: it aborted, was killed, or the guest switched itself off."""

    status = 122


class GuestHangError(GuestError):
    """The guest stood still: nothing in it ran for half a minute.

    Attributes:
        report: What could be found out about the cause, for people: processors, tasks, the kernel's last lines.
    """

    status = 121

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class OutputClosedError(GuestError):
    """The reader of COMMAND's output went away, as in ``pyuio vm run -- yes | head``."""

    status = 141  # 128 + SIGPIPE, as the shell reports it for a command in the same situation


class CardError(GuestError):
    """A card in Python failed: it raised an exception, complained about its driver, did not return, or ended."""

    status = 120
