# SPDX-License-Identifier: MIT
"""Claiming a device for user space: what `pyuio.open`, ``pyuio bind`` and ``pyuio setup`` have in common.

A claim takes these steps in this order. All the checks come before the first change:

1. Refuse a device that a program has open through VFIO: whatever takes it would wait for that program.
2. Choose the kernel driver, and refuse ``vfio-pci`` where VFIO could not hand out the device: `pyuio.claim.choice`.
3. Refuse a device that the machine uses: `pyuio.claim.in_use` finds the uses.
4. Refuse a kernel driver that could freeze the machine: `pyuio.kernel.preempt_rt`.
5. Load the driver's module.
6. Bind the driver, and record which driver the device had before: `pyuio.claim.binding`.
7. Find the UIO nodes that the driver made; ``vfio-pci`` makes none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from pyuio.claim import choice, group_users, in_use
from pyuio.claim.binding import Binding, load, refuse_held
from pyuio.claim.binding import bind as bind_driver
from pyuio.errors import (
    AmbiguousDeviceError,
    BindingError,
    DeviceBusyError,
    DriverNotBoundError,
    PermissionDeniedError,
)
from pyuio.kernel import vfio
from pyuio.kernel.drivers import VFIO_PCI, bound_driver
from pyuio.kernel.preempt_rt import refuse_what_freezes
from pyuio.kernel.sysfs import link_name
from pyuio.kernel.uio import UioNode
from pyuio.pci.discovery import FoundDevice


class Claim(NamedTuple):
    """A device that user space may drive.

    Attributes:
        driver: the kernel driver that hands it on to user space; None if it is gone by now.
        nodes: its UIO nodes, by number; () if the driver makes none, as ``vfio-pci``.
        binding: how to give the device back; None if the driver had the device before.
    """

    driver: str | None
    nodes: tuple[UioNode, ...]
    binding: Binding | None = None


WhenUsed = Callable[[str, list[str]], None]
"""A function to call for a device that the machine uses, with its address and a sentence for each use."""


def refuse_used(address: str, uses: list[str]) -> None:
    """Raise DeviceBusyError, which lists all uses of the device and the command that takes it nevertheless."""
    raise DeviceBusyError(errno.EBUSY, in_use.message(address, uses, f"pyuio bind {address} --force"))


def require_claimable(found: FoundDevice, bind: bool | str = True, when_used: WhenUsed = refuse_used) -> str | None:
    """Do steps 1 to 5 of a claim: refuse what must not be claimed, load the module, and change nothing else.

    Arguments and errors are those of `claim`.

    Returns:
        The kernel driver to bind; None if the device has it already.
    """
    if not isinstance(bind, str) and choice.present_driver(found):
        return None
    if isinstance(bind, str) and bind == link_name(found.directory / "driver"):
        return None
    if found.address is None:
        reason = f"{found.name} is not a PCI function; pyuio binds drivers to PCI functions only"
        raise BindingError(errno.EOPNOTSUPP, reason)
    refuse_held(found.address)
    wanted = bind if isinstance(bind, str) else choice.choose(found).driver
    if wanted == VFIO_PCI:
        choice.require_vfio(found)
    if uses := in_use.uses(found.address):
        when_used(found.address, uses)
    refuse_what_freezes(found.name, wanted)
    load(wanted)
    return wanted


def claim(found: FoundDevice, bind: bool | str = False, when_used: WhenUsed = refuse_used) -> Claim:
    """Claim a device for user space.

    Args:
        found: the device.
        bind: True keeps a driver that serves user space already, and binds the one of `choice.choose` otherwise. The
            name of a kernel driver binds that driver in place of any other. False binds nothing.
        when_used: called if another kernel driver has the device and the machine uses it. If the function returns, the
            device is claimed.

    Returns:
        The claim. Undoing its binding gives the device back.

    Raises:
        DeviceBusyError: `bind` is False and another kernel driver has the device; or the machine uses it; or a program
            has it open through VFIO; or another process is binding it and does not finish in time; or `bind` is
            ``vfio-pci``, and ordinary kernel drivers have other functions of its IOMMU group.
        DriverNotBoundError: no kernel driver has it and `bind` is False.
        BindingError: the kernel refused; or the device is not a PCI function, so no driver can be bound to it.
        DeviceRemovedError: the device is gone.
        KernelSupportError: this kernel does not have the driver, or could freeze with it; or `bind` is ``vfio-pci``,
            and no IOMMU has the device.
        PermissionDeniedError: only root may bind; or `bind` is ``vfio-pci``, and the IOMMU remaps no interrupts.
    """
    nodes = UioNode.of_device(found.directory)
    if not isinstance(bind, str):
        has = link_name(found.directory / "driver")
        if nodes or has == VFIO_PCI:
            return Claim(has, nodes)
        if not bind or found.address is None:
            raise _not_bound(found)
    driver = require_claimable(found, bind, when_used)
    if driver is None or found.address is None:
        return Claim(link_name(found.directory / "driver"), UioNode.of_device(found.directory))
    binding = bind_driver(found.address, driver)
    return Claim(driver, UioNode.of_device(found.directory), binding)


def claim_group(found: FoundDevice, when_used: WhenUsed = refuse_used) -> list[Binding]:
    """Bind ``vfio-pci`` to a function, and to all functions of its IOMMU group that ordinary kernel drivers have.

    All are bound, or none. Arguments and errors are those of `claim`.

    Returns:
        What was bound; [] if nothing had to be.
    """
    if found.address is None:
        require_claimable(found, VFIO_PCI)  # it refuses
    number = vfio.group_of(found.directory)
    others = [] if number is None else group_users.in_the_way(number, str(found.address))
    addresses = [str(found.address), *(one.address for one in others)]
    for address in addresses:
        refuse_held(address)
    choice.require_remapping(found)
    if number is None:
        choice.require_vfio(found)  # it refuses, unless the function gets its group later
    for address in addresses:
        if bound_driver(address) != VFIO_PCI and (uses := in_use.uses(address)):
            when_used(address, uses)
    with ExitStack() as undo:
        bindings: list[Binding] = []
        for address in reversed(addresses):
            binding = bind_driver(address, VFIO_PCI)
            if binding.previous != binding.driver:
                undo.callback(binding.undo)
                bindings.append(binding)
        undo.pop_all()
    return bindings


def chosen_node(found: FoundDevice, nodes: tuple[UioNode, ...]) -> UioNode:
    """Return the one of a claim's nodes that `found` names, or the only one.

    Raises:
        AmbiguousDeviceError: there are several, and `found` names none of them.
        DriverNotBoundError: there is none, or not the one that `found` names.
    """
    several = len(found.nodes) > 1
    for node in nodes:
        if node.name == found.uio or (len(nodes) == 1 and not several):
            return node
    if nodes and not (several and found.uio):
        names = ", ".join(node.name for node in nodes)
        raise AmbiguousDeviceError(f"{found.name} has {len(nodes)} UIO nodes; name one of them: {names}")
    what = f"no UIO node {found.uio} any more" if several and found.uio else "no UIO node: its driver made none"
    raise DriverNotBoundError(errno.ENODEV, f"{found.device_name} has {what}")


def _not_bound(found: FoundDevice) -> Exception:
    address = found.address
    if address is None:
        return DriverNotBoundError(errno.ENODEV, f"{found.name} has no UIO node any more; its driver was unbound")
    what_to_do = f"pyuio.open('{address}', bind=True), or as root: pyuio bind {address}"
    driver = bound_driver(address)
    if driver is None:
        with suppress(PermissionDeniedError):
            refuse_held(address)  # it has no driver, because somebody waits until it is let go
        reason = f"{address} has no driver that hands it on to user space; to bind one: {what_to_do}"
        return DriverNotBoundError(errno.ENODEV, reason)
    reason = f"{address} is held by the kernel driver {driver}; to take it from there: {what_to_do}"
    return DeviceBusyError(errno.EBUSY, reason)
