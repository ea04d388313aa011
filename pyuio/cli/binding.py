# SPDX-License-Identifier: MIT
"""``pyuio bind`` and ``pyuio unbind``: hand a PCI function to user space, and give it back."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.errors import BindingError, DeviceBusyError

BIND_EPILOG = (
    "Ends with 0 when DRIVER has the device, also when it had it before; with 1 when the device is in use or the "
    "kernel refuses; with 2 for wrong usage."
)
UNBIND_EPILOG = (
    "Ends with 0 when the device has the driver it had, also when there was nothing to undo; with 1 when the kernel "
    "refuses, or a process has the device open; with 2 for wrong usage."
)


def pci_address(device: str) -> str:
    """Return the address of the PCI function that a DEVICE names.

    Raises:
        BindingError: it is not a PCI function.
    """
    from pyuio.pci.discovery import find

    with usage():
        found = find(device)
    if found.address is None:
        reason = f"{found.name} is not a PCI function; what has no address on the bus cannot be bound or unbound here"
        raise BindingError(errno.EOPNOTSUPP, reason)
    return found.address


def refuse_what_is_used(address: str, reasons: list[str], force: bool) -> None:
    """Raise DeviceBusyError for a device in use, unless it is to be taken all the same."""
    if not reasons:
        return
    listing = "".join(f"\n  {reason}" for reason in reasons)
    if force:
        print(f"pyuio: warning: {address} is in use, and taken all the same:{listing}", file=sys.stderr)
        return
    advice = "end that first, or insist with --force, which takes it away from whoever uses it"
    raise DeviceBusyError(errno.EBUSY, f"{address} is in use:{listing}\n{advice}")


def _node(address: str) -> str:
    from pyuio.kernel.sysfs import PCI_DEVICES
    from pyuio.kernel.uio import UioNode

    node = UioNode.of_device(PCI_DEVICES / address)
    return f" as {node.path}" if node else ""


def bind(
    device: Device,
    driver: Annotated[
        str, typer.Option(metavar="DRIVER", help="The kernel driver; its module is loaded if need be.")
    ] = "uio_pci_generic",
    force: Annotated[bool, typer.Option("--force", help="Take the device even if the machine is using it.")] = False,
) -> None:
    """Bind DEVICE to a kernel driver that user space can use.

    The driver that had it is remembered until the next boot, and unbind gives it back. Refused, with the reason: the
    controller of a mounted disk or of swap, an interface that carries a route, a bridge, the console, and what a
    process has open.
    """
    from pyuio.claim import binding, binding_record
    from pyuio.claim.in_use import uses
    from pyuio.kernel.drivers import bound_driver

    address = pci_address(device)
    previous = bound_driver(address)
    if previous == driver:
        print(f"{address} is bound to {driver} already{_node(address)}: nothing to do")
        return
    with usage():
        binding_record.check_driver_name(driver)
    refuse_what_is_used(address, uses(address), force)
    binding.bind(address, driver)
    record = binding_record.load(address)
    before = previous if record is None else record.previous
    back = f"gives it back to {before}" if before else "leaves it without a driver, as it was"
    print(f"{address} is bound to {driver}{_node(address)}; pyuio unbind {address} {back}")


def unbind(
    device: Device,
    force: Annotated[bool, typer.Option("--force", help="Take it from the processes that have it open.")] = False,
) -> None:
    """Give DEVICE back to the kernel driver that it had.

    That is the one before bind, or before a driver in Python that was killed. One that had none is left without. What
    another program bound is released, as what it had is not known.
    """
    from pyuio.claim import binding
    from pyuio.claim.in_use import opened_by
    from pyuio.kernel.drivers import is_for_user_space

    address = pci_address(device)
    if is_for_user_space(address):
        refuse_what_is_used(address, opened_by(address), force)
    done = binding.unbind(address)
    now = f"has its kernel driver {done.driver}" if done.driver else "has no driver"
    if not done.known:
        unknown = "what it had before is not known, as pyuio did not bind it"
        probe = f"echo {address} > /sys/bus/pci/drivers_probe"
        print(f"{address} is released from {done.released}, and {now}: {unknown}; to let the kernel choose: {probe}")
    elif done.released:
        print(f"{address} is released from {done.released}, and {now}")
    elif done.given_back:
        print(f"{address} {now} again")
    else:
        print(f"{address} {now}: nothing to undo")
