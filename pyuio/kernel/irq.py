# SPDX-License-Identifier: MIT
"""An interrupt in the kernel: the processors that receive it, and the threads that handle it.

Documentation/core-api/irq/irq-affinity.rst describes ``/proc/irq/N``. On PREEMPT_RT, or with the kernel parameter
``threadirqs``, each handler runs in a thread named ``irq/N-name`` (kernel/irq/manage.c). In Linux 6.12, UIO's handler
wakes its readers from such a thread on every kernel (drivers/uio/uio.c).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from pyuio.errors import InterruptUnavailableError
from pyuio.kernel import processors
from pyuio.kernel.scheduling import Thread
from pyuio.kernel.sysfs import write_text

_PROC_IRQ = Path("/proc/irq")
_COUNT = re.compile(r"[0-9]{1,10}")  # an unsigned int
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h


@runtime_checkable
class HasIrq(Protocol):
    """Anything with an interrupt, such as a `Device`."""

    @property
    def irq(self) -> int | None:
        """The kernel's number of the interrupt; None if it is not known or there is none."""


def checked(interrupt: int | HasIrq) -> int:
    """Return the number of an interrupt.

    Raises:
        TypeError: `interrupt` is neither a number nor a device.
        ValueError: there is no such interrupt.
        InterruptUnavailableError: the kernel does not tell an interrupt of the device.
    """
    if isinstance(interrupt, bool) or not isinstance(interrupt, (int, HasIrq)):
        raise TypeError(f"interrupt is an open device or a number of /proc/irq, not {type(interrupt).__name__}")
    number = interrupt if isinstance(interrupt, int) else interrupt.irq
    if number is None:
        reason = (
            f"{interrupt!r}: the kernel does not tell its interrupt, or no handler has its name alone; give the number "
            f"(/proc/interrupts)"
        )
        raise InterruptUnavailableError(errno.ENXIO, reason)
    if number < 0 or not (_PROC_IRQ / str(number)).is_dir():
        raise ValueError(f"there is no interrupt {number}: /proc/interrupts lists them")
    return number


class InterruptLine(NamedTuple):
    """A line of ``/proc/interrupts``.

    Attributes:
        count: interrupts since the start of the system, on all processors.
        handlers: the names of the handlers.
    """

    count: int  # type: ignore[assignment]  # in place of tuple.count
    handlers: list[str]


def parse_line(text: str, number: int) -> InterruptLine | None:
    """Return an interrupt's line in the text of ``/proc/interrupts``; None if it has none.

    Source: Documentation/filesystems/proc.rst; kernel/irq/proc.c, show_interrupts.
    """
    lines = text.splitlines()
    cpus = len(lines[0].split()) if lines else 0
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        if name.strip() == str(number):
            # After the counts come the controller, its own number with the kind of trigger, and the handlers. On ARM
            # the trigger is a word of its own (CONFIG_GENERIC_IRQ_SHOW_LEVEL).
            fields = rest.split(None, cpus + 2)
            names = fields[cpus + 2] if len(fields) > cpus + 2 else ""
            names = re.sub(r"^(Level|Edge)(\s+-\S+)?(\s+|$)", "", names)
            counts = [int(field) for field in fields[:cpus] if _COUNT.fullmatch(field)]
            return InterruptLine(sum(counts), [name.strip() for name in names.split(",") if name.strip()])
    return None


def affinity(number: int) -> frozenset[int]:
    """Return the processors that may receive an interrupt."""
    return processors.parse_list((_PROC_IRQ / str(number) / "smp_affinity_list").read_text())


def effective_affinity(number: int) -> frozenset[int]:
    """Return the processors that do receive an interrupt; a change may take effect only at the next interrupt."""
    try:
        return processors.parse_list((_PROC_IRQ / str(number) / "effective_affinity_list").read_text())
    except FileNotFoundError:
        return affinity(number)


def steer(number: int, cpus: Iterable[int]) -> None:
    """Steer an interrupt to these processors; do nothing if it is gone. OSError: the kernel refused or ignored this."""
    path = _PROC_IRQ / str(number) / "smp_affinity_list"
    wanted = processors.format_list(cpus)
    try:
        write_text(path, wanted)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OSError(error.errno, f"writing {wanted} to {path}: {error.strerror}") from error
    # If no kernel driver handles the interrupt, the kernel accepts the write but ignores it.
    if path.exists() and (got := processors.format_list(affinity(number))) != wanted:
        raise OSError(errno.ENXIO, f"writing {wanted} to {path}: the kernel accepted it, but the file still has {got}")


def steer_remedy(error: OSError) -> str:
    """Return what to do after `steer` raised this error."""
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        return "run as root"
    if error.errno == errno.EROFS:
        return "/proc/irq is read-only in this container: steer the interrupt from outside"
    if error.errno == errno.ENXIO:
        return "no driver handles this interrupt now: open the device first, and close it last"
    return "this interrupt cannot be steered: the kernel manages it, or its controller cannot do it; leave cpus out"


def numbers_of(handler: str) -> list[int]:
    """Return the numbers of the interrupts that a handler of this name serves, in ascending order.

    The kernel makes a directory for each handler that has a name of its own, ``/proc/irq/N/NAME``, when it writes the
    name into ``/proc/interrupts`` (kernel/irq/proc.c: register_handler_proc).
    """
    if "/" in handler or handler in ("", ".", ".."):
        return []
    found = (entry for entry in _PROC_IRQ.iterdir() if entry.name.isdecimal() and (entry / handler).is_dir())
    return sorted(int(entry.name) for entry in found)


def threads(number: int) -> list[Thread]:
    """Return the kernel's threads that handle an interrupt; [] if the kernel handles it without a thread."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if not (entry / "comm").read_text(errors="replace").startswith(f"irq/{number}-"):
                continue
            flags = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[6])
        except OSError:  # the process has just ended
            continue
        thread = Thread.find(int(entry.name))
        if flags & _KERNEL_THREAD and thread is not None:
            found.append(thread)
    return found
