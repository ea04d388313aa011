# SPDX-License-Identifier: MIT
"""Resetting a function: the methods that the kernel offers, and the other functions that share its bus.

Sources: Documentation/ABI/testing/sysfs-bus-pci (``reset``, ``reset_method``, ``reset_subordinate``);
``drivers/pci/pci.c``: pci_reset_function saves the configuration space, and restores it afterwards.
pci_reset_fn_methods has the names of the methods, in the order in which the kernel tries them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyuio.errors import ResetUnavailableError
from pyuio.kernel import trusted_file
from pyuio.kernel.sysfs import PCI_DEVICES, read_optional, translated, write_text

BUS = "bus"
"""The method that resets all of a bus, by the bridge above it (PCI-to-PCI Bridge Architecture 1.2, section 3.2.5.18).

The kernel offers it for a function that has its bus to itself.
"""
_UNKNOWN = "unknown"


def methods(directory: Path) -> tuple[str, ...]:
    """Return the ways in which the kernel can reset a function alone, in its order; () if it knows none.

    The kernel looks for them when it finds the function, before it finds the others on the bus. So `BUS` is left out if
    there are others: then the kernel refuses it.

    Args:
        directory: the function's directory in sysfs.

    Returns:
        The kernel's names, as in ``("flr", "bus")``; ``("unknown",)`` before Linux 5.15, which names none.
    """
    names = read_optional(directory / "reset_method")
    if names is None:
        return (_UNKNOWN,) if (directory / "reset").exists() else ()
    found = names.split()
    return tuple(name for name in found if name != BUS or not neighbours(directory))


def neighbours(directory: Path) -> list[str]:
    """Return the addresses of the other functions on the bus of a function, which share the fate of their bus."""
    directory = directory.resolve()
    # The kernel lists a function below the bridge above its bus.
    there = (PCI_DEVICES / entry.name for entry in directory.parent.glob("????:??:??.?"))
    return sorted(one.name for one in there if one.name != directory.name and one.exists())


@contextmanager
def by_method(directory: Path, method: str | None, name: str) -> Iterator[None]:
    """Have the kernel reset a function by one of `methods` in a ``with`` block; None for the first that works.

    Args:
        directory: the function's directory in sysfs.
        method: the kernel's name of it.
        name: the device's name, for messages.

    Raises:
        ResetUnavailableError: the kernel does not offer the method; the message says what it offers.
        PermissionDeniedError: this user may not choose.
    """
    offered = methods(directory)
    if not offered:
        raise ResetUnavailableError(
            errno.EOPNOTSUPP, f"{name} has no reset: the kernel knows none for it alone{_why(directory)}"
        )
    if method is None:
        yield
        return
    if method not in offered:
        has = (
            "the kernel names no methods before Linux 5.15"
            if offered == (_UNKNOWN,)
            else f"it has {', '.join(offered)}"
        )
        more = _why(directory) if method == BUS else ""
        raise ResetUnavailableError(errno.EOPNOTSUPP, f"{name} has no reset by {method!r}: {has}{more}")
    attribute = directory / "reset_method"
    with ExitStack() as stack:
        try:
            stack.enter_context(_choice_lock(directory))
            before = read_optional(attribute) or ""
            write_text(attribute, method)
        except OSError as error:
            doing = f"choosing the reset {method} of {name} by {attribute}"
            raise translated(error, doing, ResetUnavailableError) from error
        stack.callback(write_text, attribute, before or "\n")
        yield


@contextmanager
def _choice_lock(directory: Path) -> Iterator[None]:
    """Keep root's other processes from choosing in a ``with`` block: they would restore the choice that they find.

    The lock is on a file that others cannot open. Anybody can read, and so lock, ``reset_method``.
    """
    if os.geteuid() != 0:  # the kernel refuses the choice
        yield
        return
    file = trusted_file.open_lock(f"{directory.resolve().name}.reset")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def reset_function(directory: Path, method: str | None, name: str) -> str:
    """Reset a function that nobody has open, and return by which method, as far as the kernel tells.

    Arguments and errors are those of `by_method`; ResetUnavailableError, too, with the kernel's answer.
    """
    attribute = directory / "reset"
    with by_method(directory, method, name):
        try:
            write_text(attribute, "1")
        except OSError as error:
            raise failed(error, name, attribute) from error
    offered = methods(directory)
    return method or (offered[0] if len(offered) == 1 else f"the first of {', '.join(offered)} that works")


def _why(directory: Path) -> str:
    """Return why the kernel offers no reset of the bus, for the end of a message; "" if that is not known."""
    if bridge_above(directory) is None:
        return "; its bus is a root bus, which no bridge resets"
    others = neighbours(directory)
    return f"; a reset of its bus would also reset {', '.join(others)}" if others else ""


def bridge_above(directory: Path) -> Path | None:
    """Return the directory of the bridge above a function's bus; None on a root bus."""
    above = directory.resolve().parent
    return above if (above / "vendor").exists() else None


def file_of_bus(directory: Path, name: str) -> Path:
    """Return the file by which the bus of a function is reset.

    Args:
        directory: the function's directory in sysfs.
        name: the device's name, for messages.

    Raises:
        ResetUnavailableError: it is on a root bus, or this kernel cannot do it.
    """
    bridge = bridge_above(directory)
    if bridge is None:
        raise ResetUnavailableError(errno.EOPNOTSUPP, f"{name}: its bus is a root bus, which no bridge resets")
    attribute = bridge / "reset_subordinate"
    if not attribute.exists():
        reason = f"this kernel resets no bus with several functions ({attribute} is missing; Linux 6.11 has it)"
        raise ResetUnavailableError(errno.EOPNOTSUPP, f"{name}: {reason}")
    return attribute


def reset_bus(directory: Path, name: str) -> None:
    """Reset all functions of a function's bus; the kernel restores the configuration space of each.

    Nobody may use any of them: the caller sees to that. Arguments are those of `file_of_bus`.

    Raises:
        ResetUnavailableError: as `file_of_bus`, or it failed.
        PermissionDeniedError: this user may not.
    """
    attribute = file_of_bus(directory, name)
    try:
        write_text(attribute, "1")
    except OSError as error:
        raise failed(error, f"the bus of {name}", attribute) from error


def failed(error: OSError, what: str, attribute: Path) -> Exception:
    """Return the error for a reset that the kernel did not do.

    Args:
        error: the kernel's answer. ENOTTY also means that the device did not come back in time.
        what: the device's name.
        attribute: the file by which it was reset.
    """
    if error.errno == errno.ENOTTY:
        reason = f"{what} was not reset: no method worked, or it did not come back in time; dmesg says which"
        return ResetUnavailableError(errno.ENOTTY, reason)
    return translated(error, f"resetting {what} by {attribute}", ResetUnavailableError)
