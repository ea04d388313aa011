# SPDX-License-Identifier: MIT
"""What the machine uses a PCI function for, so that nobody takes a device in use from its kernel driver.

The uses are: disks with a mounted file system, network interfaces that carry a route, bridges, the display and the
console, and device nodes that a process has open. pyuio does not see other uses by way of the kernel. Without root, it
does not see other users' processes either.
"""

from __future__ import annotations

import errno
from pathlib import Path

from pyuio.claim.disks_in_use import storage_uses
from pyuio.claim.networks_in_use import network_uses
from pyuio.claim.nodes_in_use import openers
from pyuio.errors import DeviceRemovedError
from pyuio.kernel.sysfs import PCI_DEVICES, read_number, read_optional

# PCI Code and ID Assignment Specification 1.11, section 1.7.
_BRIDGE = 0x06  # base class
_OTHER_BRIDGE = 0x0680  # many a card with PLX's or an FPGA's PCI interface, which has no bus behind it
_TTY = Path("/sys/class/tty")
_VT_CONSOLES = Path("/sys/class/vtconsole")


def bridge_uses(class_code: int, behind: int) -> list[str]:
    """Return whether a function is a bridge that the machine needs, as a list of one sentence, or [].

    Args:
        class_code: 24 bits.
        behind: how many functions are directly behind it.
    """
    if class_code >> 16 != _BRIDGE or (class_code >> 8 == _OTHER_BRIDGE and not behind):
        return []
    return [f"it is a bridge, with {behind} functions directly behind it" if behind else "it is a bridge"]


def _display_uses(function: Path) -> list[str]:
    """Return what the function displays (Documentation/ABI/testing/sysfs-bus-pci, drivers/video/fbdev/core)."""
    reasons = []
    if read_optional(function / "boot_vga") == "1":
        reasons.append("it is the display that the machine started with (boot_vga)")
    on_framebuffer = any(
        read_optional(console / "bind") == "1" and "frame buffer" in (read_optional(console / "name") or "")
        for console in _VT_CONSOLES.glob("vtcon*")
    )
    if on_framebuffer:
        reasons += [f"its {entry.name} shows the console" for entry in sorted(function.glob("graphics/fb*"))]
    for connector in sorted(function.glob("drm/card*/card*-*")):
        if read_optional(connector / "enabled") == "enabled":
            reasons.append(f"it drives the display at {connector.name}")
    return reasons


def _console_uses(function: Path) -> list[str]:
    """Return the kernel's consoles among the function's terminals (Documentation/ABI/testing/sysfs-tty)."""
    active = (read_optional(_TTY / "console/active") or "").split()
    return [
        f"{name} is a console of the kernel's"
        for name in active
        if (_TTY / name).exists() and (_TTY / name).resolve().is_relative_to(function)
    ]


def _virtual_function_uses(function: Path) -> list[str]:
    count = read_optional(function / "sriov_numvfs") or "0"
    return [] if count == "0" else [f"it has {count} virtual functions (sriov_numvfs)"]


def uses(address: str) -> list[str]:
    """Return a sentence, without a full stop, for each use of a PCI function; [] if pyuio sees no use.

    Args:
        address: in the kernel's form, ``0000:00:04.0``.

    Raises:
        DeviceRemovedError: there is no such function.
    """
    function = (PCI_DEVICES / address).resolve()
    try:
        class_code = read_number(function / "class", 16)
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"there is no device {address}") from error
    behind = sum((entry / "vendor").exists() for entry in function.glob("????:??:??.?"))
    if bridge := bridge_uses(class_code, behind):
        return bridge  # other uses would be those of the devices behind it
    return [
        *storage_uses(function),
        *network_uses(function, class_code),
        *_display_uses(function),
        *_console_uses(function),
        *_virtual_function_uses(function),
        *openers(function),
    ]


def opened_by(address: str) -> list[str]:
    """Return a sentence for each other process that has a device node of the function open."""
    return openers((PCI_DEVICES / address).resolve())


def listed(reasons: list[str]) -> str:
    """Return the uses of a device for the end of a message, each on a line of its own."""
    return "".join(f"\n  {reason}" for reason in reasons)


def message(address: str, reasons: list[str], command: str) -> str:
    """Return the message about a device in use: all the reasons, and the command that takes it nevertheless."""
    return f"{address} is in use:{listed(reasons)}\nstop that use first, or take the device nevertheless: {command}"
