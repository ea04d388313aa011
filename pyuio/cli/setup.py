# SPDX-License-Identifier: MIT
"""``pyuio setup``: let the members of a group drive one card without root, or undo that."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.bind import pci_function, refuse_opened
from pyuio.cli.output import say

if TYPE_CHECKING:
    from pyuio.claim.permission import Permission
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

EPILOG = (
    "Exit status: 0 when DEVICE is set up, even if it was before; 1 when something prevents that, or the device is in "
    "use; 2 for wrong usage."
)
_STILL = """\
This is all that a driver without root and without capabilities needs for registers, interrupts and real time, except:
  DMA                  the kernel shows physical addresses only with CAP_SYS_ADMIN (/proc/self/pagemap)
  hugepages on demand  only root may reserve them; reserve some at boot (hugepages=16), anybody may use them
  configuration space  the kernel shows more than the first 64 bytes, such as capabilities, only with CAP_SYS_ADMIN
  SCHED_FIFO           the limit rtprio permits it from the next login on; without the limit, CAP_SYS_NICE does
  the interrupt        only root may set its processor and its thread's priority (realtime(interrupt=...))
  power saving         realtime(cpu_dma_latency=...) needs /dev/cpu_dma_latency, which belongs to root
A systemd service gets the capabilities without setcap and root by AmbientCapabilities=: see pyuio setup --print.
A member can become root. The file config has the address to which the card sends its message interrupts: whoever
writes it makes the card write to any place in memory, even a card without DMA, unless an IOMMU remaps interrupts and
memory. Choose the members accordingly."""


@app.command(epilog=EPILOG, short_help="Let a group drive DEVICE without root.")
def setup(
    device: Device,
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="Group whose members may drive DEVICE; created if missing.")
    ] = "pyuio",
    print_only: Annotated[bool, typer.Option("--print", help="Show what would be written, and write nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the set-up, and give the device back.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --undo: kill the processes of other users that have DEVICE open.")
    ] = False,
) -> None:
    """Let the members of a group drive DEVICE without root.

    The command writes a udev rule and limits for real time. The rule binds DEVICE to uio_pci_generic when the machine
    starts, and gives its files to GROUP. The command prints what still needs a capability. It refuses a DEVICE that
    the machine is using. Trust the members as you trust root: a card can write to memory.
    """
    from pyuio.claim.permission import Permission, checked_group

    with usage():
        checked_group(group)
        if print_only and undo:
            raise ValueError("--print and --undo do not go together")
        if force and not undo:
            raise ValueError("--force goes with --undo")
    if undo:
        _undo(device, force=force)
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
    require_claimable(found)  # refuse before a file is written
    changed = permission.write()
    nodes = claim(found, bind=True).nodes
    permission.apply()
    for path in changed:
        print(f"wrote {path}")
    paths = ", ".join(str(node.path) for node in nodes)
    print(f"{address} is {paths or 'bound'}, and members of {group} may drive it", end="")
    print("" if changed else ": it was set up already")
    print(f"to make NAME a member: usermod -aG {group} NAME; then NAME must log in again\n\n{_STILL}")


def _undo(device: str, *, force: bool) -> None:
    from pyuio.claim import binding, permission
    from pyuio.errors import DeviceNotFoundError
    from pyuio.pci.address import parse_address

    try:
        address, there = str(pci_function(device).address), True
    except DeviceNotFoundError:
        found = parse_address(device)  # the card may have been taken out
        if found is None or not (permission.rule_path(found).exists() or permission.is_unfinished(found)):
            raise
        address, there = found, False
    removed = permission.undo(address)  # first, so that nobody opens it any more
    for path in removed:
        print(f"removed {path}")
    if not permission.is_unfinished(address):
        print(f"{address} was not set up: nothing to undo")
        return
    if there:
        _end_use_by_others(address, force=force)
        refuse_opened(address, force=force)  # by a process of root
        done = binding.unbind(address)
        binding.clear_override(address)
        print(f"{address} is root's alone again, and has {done.driver or 'no driver'}; the group stays")
    permission.finish(address)


def _end_use_by_others(address: str, *, force: bool) -> None:
    """Kill the processes of other users that have the device open, if `force`.

    Raises:
        DeviceBusyError: there are such processes, and `force` is False; or some cannot be killed.
    """
    from pyuio.claim import holders
    from pyuio.claim.in_use import listed
    from pyuio.errors import DeviceBusyError
    from pyuio.kernel.sysfs import PCI_DEVICES

    directory = PCI_DEVICES / address
    found = holders.holders(directory)
    left = holders.end(directory) if force else found
    if left:
        again = f"pyuio setup {address} --undo"
        ways = f"end them and repeat {again}, or have them killed: {again} --force"
        what = f"they could not be killed; try again: {again} --force" if force else ways
        reason = (
            f"{address}: nobody can open it any more, but some have it open still, and can use it until they end:"
            f"{listed(map(str, left))}\n{what}"
        )
        raise DeviceBusyError(errno.EBUSY, reason)
    for one in found:
        say(f"killed {one}")
