# SPDX-License-Identifier: MIT
"""Opens a device by the way that its kernel driver offers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyuio.claim import choice
from pyuio.errors import BindingError
from pyuio.kernel.drivers import GENERIC_DRIVERS, VFIO_PCI, hands_on
from pyuio.process.late import late

if TYPE_CHECKING:
    from pyuio.backend.backend import Backend
    from pyuio.pci.discovery import FoundDevice


def open_backend(found: FoundDevice, *, bind: bool | str, close_parts: Callable[[], object]) -> Backend:
    """Open a device exclusively.

    Args:
        found: the device.
        bind: as for `pyuio.open`.
        close_parts: closes what `pyuio.Device` made from the backend; the backend's `close` calls it first.

    Raises:
        PyuioError: as `pyuio.open`.
    """
    driver = choice.present_driver(found)
    if isinstance(bind, str) and bind != driver and not hands_on(bind):
        known = ", ".join(GENERIC_DRIVERS)
        reason = f"{bind} does not hand devices on to user space, as far as pyuio knows; these do: {known}"
        raise BindingError(errno.EINVAL, f"{found.name}: {reason}, and a UIO driver that is loaded already")
    if isinstance(bind, str):
        driver = bind
    elif driver is None and bind and found.address is not None:
        driver = choice.choose(found).driver
        bind = driver
    if driver == VFIO_PCI and found.address is not None:  # the other way refuses what is not a PCI function
        backend: Backend = late("pyuio.backend.vfio").VfioBackend(found, bind=bool(bind), close_parts=close_parts)
    else:
        backend = late("pyuio.backend.uio").UioBackend(found, bind=bind, close_parts=close_parts)
    return backend
