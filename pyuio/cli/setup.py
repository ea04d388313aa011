# SPDX-License-Identifier: MIT
"""``pyuio setup``: let the members of a group drive one device without root, or undo that."""

from __future__ import annotations

import errno
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.bind import pci_function, refuse_opened, user_nodes
from pyuio.cli.output import say
from pyuio.errors import DeviceBusyError

if TYPE_CHECKING:
    from pathlib import Path

    from pyuio.claim.permission import NodePermission, Permission
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

EPILOG = (
    "Exit status: 0 when DEVICE is set up, even if it was before; 1 when something prevents that, or the device is in "
    "use; 2 for wrong usage."
)
_BY_VFIO = """\
This is all that a driver needs, DMA included, without root and without any capability, except:
  memory for DMA       counts as locked memory: the limit memlock permits it from the next login on. A systemd service
                       does not get the limits of a login: LimitMEMLOCK=infinity (pyuio setup --print)
  SCHED_FIFO           the limit rtprio permits it from the next login on
  the interrupt        only root may set its processor (realtime(interrupt=...))
  power saving         realtime(cpu_dma_latency=...) needs /dev/cpu_dma_latency, which belongs to root
The IOMMU lets the card reach only the memory that the driver gives to it, and the kernel keeps the card's message
interrupts and BARs to itself. So a member can harm the card, and nothing else; but the limits let a member take all
memory and most of the time of the processors."""
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
_RATHER_VFIO = "VFIO needs none of that trust, and no capability; it is the recommended way: "


@app.command(epilog=EPILOG, short_help="Let a group drive DEVICE without root.")
def setup(
    device: Device,
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="Group whose members may drive DEVICE; created if missing.")
    ] = "pyuio",
    driver: Annotated[
        str | None,
        typer.Option(metavar="DRIVER", help="vfio-pci (recommended) or uio_pci_generic. Default: as pyuio info says."),
    ] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Show what would be written, and write nothing.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Undo the set-up, and give the device back.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --undo: kill the processes of other users that have DEVICE open.")
    ] = False,
) -> None:
    """Let the members of a group drive DEVICE without root.

    The command writes a udev rule and limits. The rule binds DEVICE to the driver when the machine starts, and gives
    its files to GROUP. By vfio-pci, members need no capability and reach nothing else: this is the recommended way.
    By uio_pci_generic, trust them as you trust root, because a card can write to memory. For a DEVICE that is not a
    PCI function, the rule gives the UIO node of its name to GROUP. The command prints what still needs a capability.
    It refuses a DEVICE that the machine is using.
    """
    from pyuio.claim.permission import DRIVERS, NodePermission, Permission, checked_group
    from pyuio.pci.discovery import find

    with usage():
        checked_group(group)
        if driver not in (None, *DRIVERS):
            raise ValueError(f"--driver is {' or '.join(DRIVERS)}, not {driver}")
        if print_only and undo:
            raise ValueError("--print and --undo do not go together")
        if force and not undo:
            raise ValueError("--force goes with --undo")
    if undo:
        _undo(device, force=force)
        return
    with usage():
        found = find(device)
    if found.address is None and driver is None:
        permission: Permission | NodePermission = NodePermission.of(_node_name(found), group)
    else:
        address = str(pci_function(device).address)
        permission = Permission.of(address, group, driver or _usual_driver(found))
    if print_only:
        _show(permission)
    elif isinstance(permission, Permission):
        _give(found, permission, keep=driver is None)
    else:
        _give_node(permission)


def _usual_driver(found: FoundDevice) -> str:
    """Return the driver that ``pyuio.open(bind=True)`` takes, of those by which a group can get a card."""
    from pyuio.claim import choice
    from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI

    present = choice.present_driver(found)
    return VFIO_PCI if VFIO_PCI in (present or choice.choose(found).driver,) else UIO_PCI_GENERIC


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
    """Return what members still cannot do, and what they can do besides."""
    from pyuio.claim import choice
    from pyuio.claim.permission import Permission
    from pyuio.kernel import vfio
    from pyuio.kernel.drivers import VFIO_PCI
    from pyuio.kernel.sysfs import PCI_DEVICES
    from pyuio.pci.discovery import find

    if not isinstance(permission, Permission):
        return _STILL_NODE
    address = permission.address
    if permission.driver == VFIO_PCI:
        number = vfio.group_of(PCI_DEVICES / address)
        others = [] if number is None else [one.address for one in vfio.members(number) if one.address != address]
        names = f"\nThe same IOMMU group has {', '.join(others)}: members reach those that vfio-pci has, too."
        return _BY_VFIO + (names if others else "")
    obstacle = choice.no_vfio(find(address))
    can = f"pyuio setup {address} --driver {VFIO_PCI}" if obstacle is None else f"it is out here, as {obstacle}"
    return f"{_STILL}\n{_RATHER_VFIO}{can}"


def _give_node(permission: NodePermission) -> None:
    from pyuio.kernel.uio import UioNode

    changed = permission.write()
    permission.apply()
    paths = ", ".join(str(node.path) for node in UioNode.named(permission.name))
    _tell(permission, f"{permission.name} is {paths}, and", changed)


def _give(found: FoundDevice, permission: Permission, *, keep: bool) -> None:
    """Give the card to the group; with `keep`, a driver that serves user space keeps it until the next boot."""
    from pyuio.claim import permission as permissions
    from pyuio.claim.claim import claim, require_claimable
    from pyuio.kernel.drivers import matching_modules

    before = permissions.present(permission.address)
    if before is not None and before.driver != permission.driver:
        again = f"pyuio setup {permission.address} --undo"
        reason = f"{permission.address} is set up for {before.driver} already; take that back first: {again}"
        raise DeviceBusyError(errno.EBUSY, reason)
    driver = True if keep else permission.driver
    require_claimable(found, driver)  # refuse before a file is written
    changed = permission.write()
    claim(found, driver)
    permission.apply()
    paths = ", ".join(map(str, user_nodes(found)))
    _tell(permission, f"{permission.address} is {paths or 'bound'}, and", changed)
    if modules := matching_modules(found.directory):
        print(
            f"\nThe kernel has a driver of its own for it, {', '.join(modules)}. If that is loaded before udev comes\n"
            "to the card at a start, as from an initramfs, the card stays with it: then do pyuio setup again."
        )


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

    killed, left = holders.end(directory) if force else ([], holders.holders(directory))
    for one in killed:
        say(f"killed {one}")
    if left:
        again = f"pyuio setup {shlex.quote(key)} --undo"
        ways = f"end them and repeat {again}, or have them killed: {again} --force"
        what = f"they could not be killed; try again: {again} --force" if force else ways
        if not all(holder.certain for holder in left):
            what = f"pyuio does not kill what may use another device; end it, and repeat {again}"
        reason = (
            f"{key}: nobody can open it any more, but some have it open still, and can use it until they end:"
            f"{listed([str(one) for one in left])}\n{what}"
        )
        raise DeviceBusyError(errno.EBUSY, reason)
