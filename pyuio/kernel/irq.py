# SPDX-License-Identifier: MIT
"""An interrupt in the kernel: the processors that get it, and the threads that handle it.

``/proc/irq/N`` is described in Documentation/core-api/irq/irq-affinity.rst. On PREEMPT_RT, or with the kernel parameter
``threadirqs``, each handler is a thread, ``irq/N-name`` (kernel/irq/manage.c).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from pyuio.errors import InterruptUnavailableError
from pyuio.kernel import processors
from pyuio.kernel.scheduling import Thread

_PROC_IRQ = Path("/proc/irq")
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h


@runtime_checkable
class HasIrq(Protocol):
    """Anything with an interrupt, such as a `Device`."""

    @property
    def irq(self) -> int | None:
        """The kernel's number of the interrupt, None without one."""


def checked(interrupt: int | HasIrq) -> int:
    """Return the number of an interrupt.

    Raises:
        TypeError: it is neither a number nor a device.
        ValueError: there is no such interrupt.
        InterruptUnavailableError: the device has none that the kernel tells.
    """
    if isinstance(interrupt, bool) or not isinstance(interrupt, (int, HasIrq)):
        raise TypeError(f"interrupt is an open device or a number of /proc/irq, not {type(interrupt).__name__}")
    number = interrupt if isinstance(interrupt, int) else interrupt.irq
    if number is None:
        reason = f"{interrupt!r}: the kernel does not tell its interrupt; say the number (/proc/interrupts)"
        raise InterruptUnavailableError(errno.ENXIO, reason)
    if number < 0 or not (_PROC_IRQ / str(number)).is_dir():
        raise ValueError(f"there is no interrupt {number}: /proc/interrupts lists them")
    return number


def affinity(number: int) -> frozenset[int]:
    """Return the processors that an interrupt may go to."""
    return processors.parse_list((_PROC_IRQ / str(number) / "smp_affinity_list").read_text())


def effective_affinity(number: int) -> frozenset[int]:
    """Return the processors that an interrupt does go to; some controllers learn of a change at the next one only."""
    try:
        return processors.parse_list((_PROC_IRQ / str(number) / "effective_affinity_list").read_text())
    except FileNotFoundError:
        return affinity(number)


def steer(number: int, cpus: Iterable[int]) -> None:
    """Have an interrupt go to these processors; nothing when it is gone. OSError: the kernel refused, or ignores it."""
    path = _PROC_IRQ / str(number) / "smp_affinity_list"
    wanted = processors.format_list(cpus)
    try:
        # One write, unbuffered: the kernel's answer comes with it.
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, wanted.encode())
        finally:
            os.close(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OSError(error.errno, f"writing {wanted} to {path}: {error.strerror}") from error
    # Where no kernel driver handles the interrupt, the write is taken and forgotten.
    if path.exists() and (got := processors.format_list(affinity(number))) != wanted:
        raise OSError(errno.ENXIO, f"writing {wanted} to {path}: taken, but it remains {got}")


def steer_remedy(error: OSError) -> str:
    """Return what to do when the kernel refused to steer an interrupt."""
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return "run as root"
    if error.errno == errno.EROFS:
        return "this container has /proc/irq read-only: set it outside"
    if error.errno == errno.ENXIO:
        return "no driver handles this interrupt now: open the device first, and close it last"
    return "this interrupt cannot be steered: it is managed by the kernel, or its controller cannot; leave cpus to it"


def threads(number: int) -> list[Thread]:
    """Return the kernel's threads that handle an interrupt: none where it is handled without."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if not (entry / "comm").read_text(errors="replace").startswith(f"irq/{number}-"):
                continue
            flags = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[6])
        except OSError:  # it has just ended
            continue
        thread = Thread.find(int(entry.name))
        if flags & _KERNEL_THREAD and thread is not None:
            found.append(thread)
    return found
