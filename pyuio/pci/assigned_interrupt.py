# SPDX-License-Identifier: MIT
"""Which interrupts the kernel has given a PCI function: a line, or messages.

Source: the attributes ``irq`` and ``msi_irqs/`` (Documentation/ABI/testing/sysfs-bus-pci).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel.sysfs import parse_number, read_optional, read_optional_number


@dataclass(frozen=True)
class AssignedInterrupt:
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


def assigned_interrupt(directory: Path, pin: int) -> AssignedInterrupt:
    """Return what the function with this directory in sysfs interrupts by.

    Args:
        directory: the function's.
        pin: its configuration space's interrupt pin, 0 for none, 1 to 4.

    Raises:
        KernelFileError: one of these attributes is not a number.
    """
    letter = "ABCD"[pin - 1] if 1 <= pin <= 4 else None
    messages = sorted((parse_number(entry.name, entry), entry) for entry in (directory / "msi_irqs").glob("*"))
    if messages:
        kind = "MSI-X" if read_optional(messages[0][1]) == "msix" else "MSI"
        return AssignedInterrupt(kind, letter, tuple(number for number, _ in messages))
    number = read_optional_number(directory / "irq")
    if letter is None:
        return AssignedInterrupt(None, None, ())
    return AssignedInterrupt("INTx", letter, (number,) if number else ())
