# SPDX-License-Identifier: MIT
"""Run a command in a guest that has the host's own files and any PCI devices that QEMU knows: ``pyuio vm``.

The guest sees the host's whole file system, read-only, under a writable layer in memory: same programs, same Python,
same paths. A guest with another processor has programs of its own, and the host's other files (`pyuio.vm.system`).
What the guest writes is lost when it ends, except below the directory given as `out`. Every run ends with one of these
statuses, and never leaves a QEMU behind:

===========  ==========================================================================================
COMMAND's    It ended; 128 + N if signal N ended it, 127 if it was not found, 126 if it is not a program
2            The command line is wrong
120          A card in Python failed: it complained, raised an exception, hung or ended
121          The guest stood still: nothing in it ran for half a minute
122          QEMU ended before COMMAND did: it aborted, or the guest switched itself off
123          The guest's kernel panicked
124          The time limit passed
125          The guest could not be started
129          SIGHUP ended the run
130          Ctrl-C (SIGINT) ended the run
141          The reader of COMMAND's output went away
143          SIGTERM ended the run
===========  ==========================================================================================
"""

from pyuio.vm.errors import (
    CardError,
    GuestError,
    GuestExitError,
    GuestHangError,
    GuestPanicError,
    GuestStartError,
    GuestTimeoutError,
    KernelError,
    OutputClosedError,
)
from pyuio.vm.guest import Guest, run
from pyuio.vm.machine import Options

__all__ = [
    "CardError",
    "Guest",
    "GuestError",
    "GuestExitError",
    "GuestHangError",
    "GuestPanicError",
    "GuestStartError",
    "GuestTimeoutError",
    "KernelError",
    "Options",
    "OutputClosedError",
    "run",
]
