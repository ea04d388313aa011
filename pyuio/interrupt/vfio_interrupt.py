# SPDX-License-Identifier: MIT
"""The interrupts of a function that VFIO has: INTx, or messages (MSI, MSI-X), each delivered to an eventfd."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import Any

from pyuio._native._access import Presence
from pyuio._native._interrupt import ffi as _ffi
from pyuio._native._interrupt import lib as _lib
from pyuio.interrupt.interrupt import Interrupt
from pyuio.interrupt.masking import Masking, NominalMasking, VfioMasking
from pyuio.kernel import vfio
from pyuio.kernel.sysfs import translated

_log = logging.getLogger("pyuio.interrupt")

KINDS = {vfio.INTX: "INTx", vfio.MSI: "MSI", vfio.MSIX: "MSI-X"}
"""What each of VFIO's kinds is called."""


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
        OSError: the kernel's answer; ENOSPC: the machine has no more interrupts to give.
    """
    masking: Masking = VfioMasking(device) if kind == vfio.INTX else NominalMasking()
    eventfds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]
    natives = [_native(eventfd, os.dup(request), name) for eventfd in eventfds]  # these own the descriptors
    doing = f"{name}: enabling {count} {KINDS[kind]} interrupts"
    try:
        vfio.deliver_interrupts(device, kind, eventfds)  # VFIO begins with INTx unmasked; each `Interrupt` masks
        interrupts = tuple(Interrupt(native, masking, name, presence, KINDS[kind]) for native in natives)
        if kind == vfio.INTX:
            with suppress(BlockingIOError):
                os.read(eventfds[0], 8)  # what came before is forgotten
    except OSError as error:
        with suppress(OSError):
            vfio.deliver_interrupts(device, kind, ())
        raise translated(error, doing) from error
    _log.debug("%s, masked %s", doing, masking.description)
    return interrupts


def _native(eventfd: int, request: int, name: str) -> Any:
    native = _lib.pyuio_interrupt_new_eventfd(eventfd, request)
    if native != _ffi.NULL:
        return _ffi.gc(native, _lib.pyuio_interrupt_free)
    number = _ffi.errno
    os.close(eventfd)
    os.close(request)
    raise OSError(number, f"{name}: no memory or descriptor for its interrupt")
