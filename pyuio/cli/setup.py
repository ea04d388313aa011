# SPDX-License-Identifier: MIT
"""``pyuio setup``: let the members of a group drive one device without root, or undo that."""

from __future__ import annotations

import errno
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.bind import refuse_opened
from pyuio.cli.output import say

if TYPE_CHECKING:
    from pathlib import Path

    from pyuio.claim.permission import NodePermission, Permission
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

EPILOG = (
    "Exit status: 0 when DEVICE is set up, even if it was before; 1 when something prevents that, or the device is in "
    "use; 2 for wrong usage."
)
_ALL = """\
This is all that a driver without root and without capabilities needs for registers, interrupts and real time, except:
"""
_FOR_ALL = """\
  SCHED_FIFO           the limit rtprio permits it from the next login on; without the limit, CAP_SYS_NICE does
  the interrupt        only root may set its processor and its thread's priority (realtime(interrupt=...))
  power saving         realtime(cpu_dma_latency=...) needs /dev/cpu_dma_latency, which belongs to root
"""
_STILL_NODE = f"""\
{_ALL}{_FOR_ALL}\
A member can do whatever the device can: one that writes to memory makes its members as good as root."""
_STILL = f"""\
{_ALL}  DMA                  the kernel shows physical addresses only with CAP_SYS_ADMIN (/proc/self/pagemap)
  hugepages on demand  only root may reserve them; reserve some at boot (hugepages=16), anybody may use them
  configuration space  the kernel shows more than the first 64 bytes, such as capabilities, only with CAP_SYS_ADMIN
{_FOR_ALL}\
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
    starts, and gives its files to GROUP. For a DEVICE that is not a PCI function, the rule gives the UIO node of its
    name to GROUP. The command prints what still needs a capability. It refuses a DEVICE that
    the machine is using. Trust the members as you trust root: a card can write to memory.
    """
    from pyuio.claim.permission import NodePermission, Permission, checked_group
    from pyuio.pci.discovery import find

    with usage():
        checked_group(group)
        if print_only and undo:
            raise ValueError("--print and --undo do not go together")
        if force and not undo:
            raise ValueError("--force goes with --undo")
    if undo:
        _undo(device, force=force)
        return
    with usage():
        found = find(device)
    if found.address is None:
        permission: Permission | NodePermission = NodePermission.of(_node_name(found), group)
    else:
        permission = Permission.of(found.address, group)
    if print_only:
        _show(permission)
    elif isinstance(permission, Permission):
        _give(found, permission)
    else:
        _give_node(permission)


def _node_name(found: FoundDevice) -> str:
    """Return the name of the node of a device that is not a PCI function.

    Raises:
        AmbiguousDeviceError: it has several nodes, and `found` names none of them.
        DriverNotBoundError: it has none any more.
    """
    from pyuio.claim.claim import chosen_node
    from pyuio.kernel.uio import UioNode

    return chosen_node(found, UioNode.of_device(found.directory)).driver_name


def _show(permission: Permission | NodePermission) -> None:
    for path, text in (
        (permission.rule_path, permission.rule()),
        (permission.limits_path, permission.limits()),
        ("/etc/systemd/system/NAME.service, if it shall be a service; not written by setup", permission.unit()),
    ):
        print(f"== {path}\n{text}")
    print(_still(permission))


def _still(permission: Permission | NodePermission) -> str:
    from pyuio.claim.permission import Permission

    return _STILL if isinstance(permission, Permission) else _STILL_NODE


def _give_node(permission: NodePermission) -> None:
    from pyuio.kernel.uio import UioNode

    changed = permission.write()
    permission.apply()
    paths = ", ".join(str(node.path) for node in UioNode.named(permission.name))
    _tell(permission, f"{permission.name} is {paths}, and", changed)


def _give(found: FoundDevice, permission: Permission) -> None:
    from pyuio.claim.claim import claim, require_claimable

    require_claimable(found)  # refuse before a file is written
    changed = permission.write()
    nodes = claim(found, bind=True).nodes
    permission.apply()
    paths = ", ".join(str(node.path) for node in nodes)
    _tell(permission, f"{permission.address} is {paths or 'bound'}, and", changed)


def _tell(permission: Permission | NodePermission, what: str, changed: list[Path]) -> None:
    for path in changed:
        print(f"wrote {path}")
    group = permission.group
    print(f"{what} members of {group} may drive it", end="")
    print("" if changed else ": it was set up already")
    print(f"to make NAME a member: usermod -aG {group} NAME; then NAME must log in again\n\n{_still(permission)}")


def _undo(device: str, *, force: bool) -> None:
    from pyuio.claim import binding, permission
    from pyuio.errors import DeviceNotFoundError
    from pyuio.kernel.sysfs import PCI_DEVICES
    from pyuio.kernel.uio import UioNode
    from pyuio.pci.address import parse_address
    from pyuio.pci.discovery import find

    try:
        with usage():
            found = find(device)
        key, there = found.address or _node_name(found), True
    except DeviceNotFoundError:
        key, there = parse_address(device) or device, False  # the card may have been taken out
        if "/" in key or not (permission.rule_path(key).exists() or permission.is_unfinished(key)):
            raise
    removed = permission.undo(key)  # first, so that nobody opens it any more
    for path in removed:
        print(f"removed {path}")
    if not permission.is_unfinished(key):
        print(f"{key} was not set up: nothing to undo")
        return
    if there and parse_address(key) is None:
        for node in UioNode.named(key):
            _end_use_by_others(key, node.directory, force=force)
        print(f"{key} is root's alone again; the group stays")
    elif there:
        _end_use_by_others(key, PCI_DEVICES / key, force=force)
        refuse_opened(key, force=force)  # by a process of root
        done = binding.unbind(key)
        binding.clear_override(key)
        print(f"{key} is root's alone again, and has {done.driver or 'no driver'}; the group stays")
    permission.finish(key)


def _end_use_by_others(key: str, directory: Path, *, force: bool) -> None:
    """Kill the processes of other users that have the device open, if `force`.

    Args:
        key: the device's address, or its node's name.
        directory: as for `pyuio.claim.holders.files_of`.
        force: kill them.

    Raises:
        DeviceBusyError: there are such processes, and `force` is False; or some cannot be killed.
    """
    from pyuio.claim import holders
    from pyuio.claim.in_use import listed
    from pyuio.errors import DeviceBusyError

    found = holders.holders(directory)
    left = holders.end(directory) if force else found
    if left:
        again = f"pyuio setup {shlex.quote(key)} --undo"
        ways = f"end them and repeat {again}, or have them killed: {again} --force"
        what = f"they could not be killed; try again: {again} --force" if force else ways
        reason = (
            f"{key}: nobody can open it any more, but some have it open still, and can use it until they end:"
            f"{listed(map(str, left))}\n{what}"
        )
        raise DeviceBusyError(errno.EBUSY, reason)
    for one in found:
        say(f"killed {one}")
