# SPDX-License-Identifier: MIT
"""What can go wrong around a guest; every error carries the exit status that the command line ends with."""

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
    """The kernel asked for cannot be found, fetched or used."""


class GuestTimeoutError(GuestError, TimeoutError):
    """The time limit of the whole run passed."""

    status = 124


class GuestPanicError(GuestError):
    """The guest's kernel panicked."""

    status = 123


class GuestExitError(GuestError):
    """QEMU ended before COMMAND did: it aborted, was killed, or the guest switched itself off."""

    status = 122


class OutputClosedError(GuestError):
    """Whoever reads COMMAND's output went away, as in ``pyuio vm run -- yes | head``."""

    status = 141  # 128 + SIGPIPE: what the shell reports for a command that this happens to
