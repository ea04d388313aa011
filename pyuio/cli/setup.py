# SPDX-License-Identifier: MIT
"""``pyuio setup``: let the members of a group drive one card without root, and take that back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.bind import pci_function, refuse_opened

if TYPE_CHECKING:
    from pyuio.claim.permission import Permission
    from pyuio.pci.discovery import FoundDevice

EPILOG = (
    "Ends with 0 when it is as asked for, also when it was so before; with 1 when something is in the way, or the "
    "device is in use; with 2 for wrong usage."
)
_STILL = """\
Without root, and without a capability, that is all a driver needs for registers, interrupts and real time, but
  DMA                  physical addresses are shown to CAP_SYS_ADMIN only (/proc/self/pagemap)
  hugepages on demand  root's: set some aside at boot (hugepages=16), anybody may use them
  configuration space  beyond the first 64 bytes is shown to CAP_SYS_ADMIN only; capabilities are there
  SCHED_FIFO           by the limit rtprio, from the next login on; without the limit CAP_SYS_NICE
  the interrupt        its processor and its thread's priority (realtime(interrupt=...)) are root's to set
  power saving         realtime(cpu_dma_latency=...) needs /dev/cpu_dma_latency, which is root's
A systemd service has them without setcap and without root: AmbientCapabilities=, as pyuio setup --print shows.
Who drives a card that can do DMA can, without an IOMMU, read and write all memory: choose the members accordingly."""


def setup(
    device: Device,
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="Group whose members may drive DEVICE; created if missing.")
    ] = "pyuio",
    print_only: Annotated[bool, typer.Option("--print", help="Show what would be written, and write nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back, and give the device back.")] = False,
) -> None:
    """Let the members of a group drive DEVICE, and nothing else, without root.

    Writes a udev rule, which binds uio_pci_generic to it when the machine starts and gives its files to GROUP, and
    limits for real time; and says what still needs a capability. DEVICE is refused if the machine is using it.
    """
    from pyuio.claim.permission import Permission, checked_group

    with usage():
        checked_group(group)
        if print_only and undo:
            raise ValueError("--print and --undo do not go together")
    if undo:
        _undo(device)
        return
    found = pci_function(device)
    permission = Permission.of(str(found.address), group)
    if print_only:
        _show(permission)
        return
    _give(found, permission)


def _show(permission: Permission) -> None:
    for path, text in (
        (permission.rule_path, permission.rule()),
        (permission.limits_path, permission.limits()),
        ("/etc/systemd/system/NAME.service, if it shall be a service; not written by setup", permission.unit()),
    ):
        print(f"== {path}\n{text}")
    print(_STILL)


def _give(found: FoundDevice, permission: Permission) -> None:
    from pyuio.claim.claim import claim, require_claimable

    address, group = permission.address, permission.group
    require_claimable(found)  # before anything is written
    changed = permission.write()
    node = claim(found, bind=True).node
    permission.apply()
    for path in changed:
        print(f"wrote {path}")
    print(f"{address} is {node.path if node else 'bound'}, and members of {group} may drive it", end="")
    print("" if changed else ": it was set up already")
    print(f"to make somebody a member: usermod -aG {group} NAME, who then logs in again\n\n{_STILL}")


def _undo(device: str) -> None:
    from pyuio.claim import binding, permission
    from pyuio.errors import DeviceNotFoundError
    from pyuio.pci.address import parse_address

    try:
        address, there = str(pci_function(device).address), True
    except DeviceNotFoundError:
        found = parse_address(device)  # of a card that was taken out
        if found is None or not permission.rule_path(found).exists():
            raise
        address, there = found, False
    if there:
        refuse_opened(address)
    removed = permission.undo(address)
    if not removed:
        print(f"{address} was not set up: nothing to undo")
        return
    for path in removed:
        print(f"removed {path}")
    if there:
        done = binding.unbind(address)
        print(f"{address} is root's alone again, and has {done.driver or 'no driver'}; the group stays")
