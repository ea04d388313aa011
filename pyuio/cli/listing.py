# SPDX-License-Identifier: MIT
"""What ``pyuio list`` prints: the devices of this machine. It does without typer: see `pyuio.cli`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pyuio.cli.output import print_json, print_styled, width

if TYPE_CHECKING:
    from pyuio.pci.discovery import FoundDevice

HEADINGS = ("address", "ids", "driver", "node", "interrupt", "group", "device")
JSON_FORMAT = 1

# Parts of the machine, which nobody drives from a program in user space, by the first digits of their class code
# (PCI Code and ID Assignment Specification 1.11, section 1).
MACHINE = {
    "05": "memory controllers",
    "06": "bridges",
    "08": "system peripherals",
    "0b": "processors",
    "0c05": "SMBus controllers",
    "1101": "performance counters",
}
# Exceptions, which may be a card or programmed into an FPGA: other memory controllers and bridges, SD hosts.
CARDS = ("0580", "0680", "0805")


def part_of_the_machine(device: FoundDevice) -> str | None:
    """Return the kind of a device that is part of the machine, as in "bridges"; None for one that may be driven."""
    if device.class_code is None or device.uio is not None or device.driver == "vfio-pci":
        return None
    digits = f"{device.class_code:06x}"
    if digits.startswith(CARDS):
        return None
    return next((kind for prefix, kind in MACHINE.items() if digits.startswith(prefix)), None)


def in_words(summary: dict[str, Any]) -> str:
    """Return class and names of a device in one line, as lspci does."""
    if summary["class_code"] is None:
        return f"platform device: {summary['uio_name']}" if summary["uio_name"] else "platform device"
    kind = f"{summary['class'] or 'class'} [{summary['class_code']:06x}]"
    called = " ".join(name for name in (summary["vendor"], summary["device"]) if name)
    return f"{kind}: {called}" if called else kind


def list_devices(everything: bool, as_json: bool) -> None:
    """List PCI functions and UIO nodes.

    Args:
        everything: show parts of the machine, too.
        as_json: print JSON.
    """
    from pyuio.cli.summary import summary
    from pyuio.errors import DeviceRemovedError
    from pyuio.pci.discovery import devices

    left_out: Counter[str] = Counter()
    shown = []
    for device in devices():
        kind = None if everything else part_of_the_machine(device)
        if kind is not None:
            left_out[kind] += 1
            continue
        try:
            shown.append(summary(device))
        except DeviceRemovedError:  # since it was listed
            continue
    if as_json:
        print_json({"format": JSON_FORMAT, "left_out": left_out.total(), "devices": shown})
        return
    show(shown, width())
    if left_out:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in left_out.most_common())
        print_styled(f"left out: {left_out.total()} ({kinds}); --all shows them", "dim")
    elif not shown:
        print("there is no PCI function and no UIO node here")


def show(summaries: list[dict[str, Any]], columns: int) -> None:
    """Print one line for each device; if `columns` are too few, class and names go to a second line."""
    if not summaries:
        return
    rows: list[tuple[str, ...]] = [HEADINGS]
    for one in summaries:
        interrupt = one["interrupt"]["text"] if one["interrupt"] else None
        node = one["uio"] or one["vfio"]
        texts = (one["name"], one["ids"], one["driver"], node, interrupt, one["iommu_group"], in_words(one))
        rows.append(tuple(text or "-" for text in texts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    between = "  " if sum(widths) + 2 * len(widths) <= columns else "\n    "
    for number, (*cells, device) in enumerate(rows):
        start = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
        print_styled(f"{start}{between}{device}", "" if number else "bold")
