# SPDX-License-Identifier: MIT
"""The interrupts that the kernel has assigned to a PCI function: a line (INTx), or messages (MSI, MSI-X).

Source: the attributes ``irq`` and ``msi_irqs/`` (Documentation/ABI/testing/sysfs-bus-pci). For a device that is not a
PCI function, the name of its UIO node tells its line.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pyuio.errors import DeviceRemovedError
from pyuio.kernel.sysfs import parse_number, read_optional, read_optional_number
from pyuio.kernel.uio import UioNode


class AssignedInterrupt(NamedTuple):
    """The interrupts of a function, as the kernel has set them up.

    Attributes:
        kind: "INTx", "MSI" or "MSI-X"; None if the function has no interrupt.
        pin: the INTx pin, "A" to "D"; None if the function has no pin.
        numbers: the kernel's numbers, as in ``/proc/interrupts``, in ascending order.
    """

    kind: str | None
    pin: str | None
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        if self.kind is None:
            return "none"
        kind = f"INT{self.pin}" if self.kind == "INTx" else self.kind
        if not self.numbers:
            return f"{kind}, not routed"
        first, last = self.numbers[0], self.numbers[-1]
        more = "" if first == last else f"-{last}" if last - first == len(self.numbers) - 1 else ",..."
        return f"{kind} {first}{more}"


def message_interrupts(directory: Path) -> list[int]:
    """Return the kernel's numbers of a function's MSI or MSI-X interrupts, in ascending order; [] if none is set up.

    Args:
        directory: the function's directory in sysfs.

    Raises:
        KernelFileError: the name of an entry is not a number.
    """
    try:
        return sorted(parse_number(entry.name, entry) for entry in (directory / "msi_irqs").iterdir())
    except FileNotFoundError:  # perhaps since a moment ago
        return []


def interrupt_number(directory: Path) -> int | None:
    """Return the kernel's number of a function's first interrupt, or None if sysfs does not tell.

    Args:
        directory: the function's directory in sysfs.

    Raises:
        KernelFileError: one of these attributes is not a number.
    """
    messages = message_interrupts(directory)
    return messages[0] if messages else read_optional_number(directory / "irq") or None


def line_of_node(node: UioNode) -> int | None:
    """Return the kernel's number of the interrupt whose handler has a UIO node's name.

    That is how UIO requests an interrupt (``drivers/uio/uio.c``: __uio_register_device), and the only thing that tells
    it for a device that is not a PCI function.

    Returns:
        The number; None if there is no such handler, or if the name does not tell it from others.
    """
    from pyuio.kernel.irq import numbers_of

    try:
        name = node.driver_name
    except DeviceRemovedError:
        return None
    numbers = numbers_of(name)
    return numbers[0] if len(numbers) == 1 and len(UioNode.named(name)) == 1 else None


def assigned_interrupt(directory: Path, pin: int) -> AssignedInterrupt:
    """Return the interrupts of a function.

    Args:
        directory: the function's directory in sysfs.
        pin: the interrupt pin in its configuration space: 0 for none, 1 to 4 for INTA# to INTD#.

    Raises:
        KernelFileError: one of these attributes is not a number.
    """
    letter = "ABCD"[pin - 1] if 1 <= pin <= 4 else None
    messages = message_interrupts(directory)
    if messages:
        kind = "MSI-X" if read_optional(directory / "msi_irqs" / str(messages[0])) == "msix" else "MSI"
        return AssignedInterrupt(kind, letter, tuple(messages))
    number = read_optional_number(directory / "irq")
    if letter is None:
        return AssignedInterrupt(None, None, ())
    return AssignedInterrupt("INTx", letter, (number,) if number else ())
