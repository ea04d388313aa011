# SPDX-License-Identifier: MIT
"""The interrupts of a function that VFIO has: INTx, or messages (MSI, MSI-X), each delivered to an eventfd."""

from __future__ import annotations

import errno
import logging
import os
import resource
from contextlib import suppress
from typing import Any

from pyuio._native._access import Presence
from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.errors import InterruptUnavailableError
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import Masking, NominalMasking, VfioMasking
from pyuio.kernel import vfio
from pyuio.kernel.sysfs import translated

_log = logging.getLogger("pyuio.interrupt")

KINDS = {vfio.INTX: "INTx", vfio.MSI: "MSI", vfio.MSIX: "MSI-X"}
"""What each of VFIO's kinds is called."""

# Of one interrupt: its eventfd, the one by which VFIO asks for the device, the one that wakes, and an epoll.
_DESCRIPTORS = 4


def open_vfio_interrupts(
    device: int, kind: int, count: int, request: int, name: str, presence: Presence
) -> tuple[Interrupt, ...]:
    """Enable interrupts of one kind, and return them, with none pending; an INTx interrupt is masked.

    Args:
        device: a descriptor of the function, which stays the caller's, and open until the interrupts are closed.
        kind: one of `KINDS`.
        count: how many, at least 1 and at most `vfio.interrupt_count`; 1 for INTx.
        request: the eventfd by which VFIO asks for the device; it stays the caller's.
        name: the device's name, for error messages.
        presence: the device's presence; it learns when the device is found to be gone.

    Raises:
        DeviceRemovedError: the device is gone.
        InterruptUnavailableError: this process may not have so many descriptors (EMFILE).
        OSError: the kernel's answer; ENOSPC: the machine has no more interrupts to give.
    """
    masking: Masking = VfioMasking(device) if kind == vfio.INTX else NominalMasking()
    doing = f"{name}: enabling {count} {KINDS[kind]} interrupts"
    natives: list[Any] = []
    interrupts: list[Interrupt] = []
    try:
        eventfds = []
        for _ in range(count):
            eventfd, native = eventfd_interrupt(request)
            eventfds.append(eventfd)
            natives.append(native)
        vfio.deliver_interrupts(device, kind, eventfds)  # VFIO begins with INTx unmasked; each `Interrupt` masks
        for native in natives:
            interrupts.append(Interrupt(native, masking, name, presence, KINDS[kind]))
        if kind == vfio.INTX:
            with suppress(BlockingIOError):
                os.read(eventfds[0], 8)  # what came before is forgotten
    except OSError as error:
        with suppress(OSError):
            vfio.deliver_interrupts(device, kind, ())
        for interrupt in interrupts:
            interrupt.close()
        for native in natives:  # now, as the error keeps them, and whoever handles it may need the descriptors
            _lib.pyuio_interrupt_close(native)
        raise _refusal(error, doing, count) from error
    _log.debug("%s, masked %s", doing, masking.description)
    return tuple(interrupts)


def eventfd_interrupt(request: int) -> tuple[int, Any]:
    """Return a new eventfd, and an interrupt in C that owns it and reads it; `request` is as for VFIO."""
    files: list[int] = []
    try:
        files.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        files.append(os.dup(request))
        native = _lib.pyuio_interrupt_new_eventfd(*files)
        if native == _ffi.NULL:
            raise OSError(_ffi.errno, os.strerror(_ffi.errno))
    except OSError:
        for file in files:
            os.close(file)
        raise
    return files[0], _ffi.gc(native, _lib.pyuio_interrupt_free)


def _refusal(error: OSError, doing: str, count: int) -> Exception:
    if error.errno != errno.EMFILE:
        return translated(error, doing)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needs = f"they take {_DESCRIPTORS * count} descriptors, and this process may have {limit} (ulimit -n)"
    return InterruptUnavailableError(errno.EMFILE, f"{doing}: {error.strerror}: {needs}")
