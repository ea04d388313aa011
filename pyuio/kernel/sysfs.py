# SPDX-License-Identifier: MIT
"""Reading the kernel's attribute files, and translating the kernel's errors into pyuio's."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from pyuio.errors import DeviceRemovedError, KernelFileError, PermissionDeniedError, PyuioError

PCI_DEVICES = Path("/sys/bus/pci/devices")
PCI_DRIVERS = Path("/sys/bus/pci/drivers")
UIO_CLASS = Path("/sys/class/uio")

# int() alone would accept other forms too, and would raise another error for thousands of digits.
_NUMBERS = {10: r"[0-9]{1,20}", 16: r"(?:0x)?[0-9a-fA-F]{1,16}"}


def translated(error: OSError, doing: str, otherwise: type[PyuioError] | None = None) -> Exception:
    """Return pyuio's error for an error of the kernel.

    Args:
        error: the error that the system call raised.
        doing: what was tried, on which file or device, as in "reading /sys/...".
        otherwise: the class to use if the kernel neither denied permission nor lost the device; None for Python's own
            class for the error's number.

    It is a new object, never `error`: an exception that is its own cause is a reference cycle, which would keep the
    frames of all callers, and what their variables refer to, until the garbage collector runs.
    """
    reason = f"{doing}: {error.strerror}"
    if error.errno in (errno.EACCES, errno.EPERM):
        needs = "root, or a rule that grants it (pyuio setup writes one for a card)"
        if os.geteuid() == 0:
            needs = "a kernel without lockdown (/sys/kernel/security/lockdown); in a container, what pyuio doctor says"
        return PermissionDeniedError(error.errno, f"{reason}; this needs {needs}")
    if error.errno in (errno.ENODEV, errno.ENXIO):
        return DeviceRemovedError(error.errno, f"{reason}; the device was removed or unbound")
    return (OSError if otherwise is None else otherwise)(error.errno, reason)


def read_text(path: Path) -> str:
    """Return an attribute's text without the white space around it.

    Raises:
        DeviceRemovedError: the device of the attribute is gone.
        PermissionDeniedError: this user may not read the attribute.
        OSError: any other error of the kernel, such as `FileNotFoundError`.
    """
    try:
        # Path.read_text takes twice as long, and to look for devices reads many files.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall().decode(errors="replace").strip()
    except OSError as error:
        raise translated(error, f"reading {path}") from error


def write_text(path: Path, text: str) -> None:
    """Write an attribute, by one call, so that the kernel's answer belongs to it.

    `Path.write_text` would ask the kernel to create an attribute that does not exist. The kernel refuses that with
    EACCES, so a device that is just going would look like one that this user may not touch.

    Raises:
        OSError: the kernel's error, not translated, such as `FileNotFoundError`.
    """
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def read_optional(path: Path) -> str | None:
    """Return an attribute's text, or None if this kernel or device does not have the attribute."""
    try:
        return read_text(path)
    except FileNotFoundError:
        return None


def parse_number(text: str, path: Path, base: int = 10) -> int:
    """Return the number, 0 to 2^64 - 1, in the text of a kernel file.

    Args:
        text: of the file, without white space around it.
        path: of the file, for the message.
        base: 10, or 16 with or without 0x before the digits.

    Raises:
        KernelFileError: the text is not such a number.
    """
    if not re.fullmatch(_NUMBERS[base], text) or (number := int(text, base)) >= 1 << 64:
        kind = "hexadecimal number" if base == 16 else "number"
        raise KernelFileError(f"{path} should have a {kind} of up to 64 bits, not {text[:80]!r}")
    return number


def read_number(path: Path, base: int = 10) -> int:
    """Return an attribute's number. KernelFileError: the text is no number. Other errors: as `read_text`."""
    return parse_number(read_text(path), path, base)


def read_optional_number(path: Path) -> int:
    """Return an attribute's number; 0 if this kernel or device does not have it. Errors: as `read_number`."""
    text = read_optional(path)
    return 0 if text is None else parse_number(text, path)


def link_name(path: Path) -> str | None:
    """Return the last part of the target of a link such as ``driver`` or ``iommu_group``; None if there is no link."""
    try:
        return os.readlink(path).rpartition("/")[2]  # noqa: PTH115 - a path of a path takes four times as long
    except OSError:
        return None
