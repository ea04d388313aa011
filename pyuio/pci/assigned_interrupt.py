# SPDX-License-Identifier: MIT
"""Which interrupts the kernel has given a PCI function: a line, or messages.

Source: the attributes ``irq`` and ``msi_irqs/`` (Documentation/ABI/testing/sysfs-bus-pci).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pyuio.kernel.sysfs import parse_number, read_optional, read_optional_number


class AssignedInterrupt(NamedTuple):
    """What a function interrupts by, as the kernel has set it up.

    Attributes:
        kind: "INTx", "MSI" or "MSI-X"; None without any interrupt.
        pin: the INTx pin, "A" to "D"; None without one.
        numbers: the kernel's, as in ``/proc/interrupts``, in ascending order.
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
    """Return the kernel's numbers of a function's MSI or MSI-X, in ascending order; [] while it has none.

    Args:
        directory: the function's in sysfs.

    Raises:
        KernelFileError: one of them is not a number.
    """
    return sorted(parse_number(entry.name, entry) for entry in (directory / "msi_irqs").glob("*"))


def interrupt_number(directory: Path) -> int | None:
    """Return the kernel's number of a function's first interrupt; None where sysfs does not tell. Errors: as above."""
    messages = message_interrupts(directory)
    return messages[0] if messages else read_optional_number(directory / "irq") or None


def assigned_interrupt(directory: Path, pin: int) -> AssignedInterrupt:
    """Return what the function with this directory in sysfs interrupts by.

    Args:
        directory: the function's.
        pin: its configuration space's interrupt pin, 0 for none, 1 to 4.

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
