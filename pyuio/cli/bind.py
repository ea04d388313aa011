# SPDX-License-Identifier: MIT
"""``pyuio bind`` and ``pyuio unbind``: hand a PCI function to user space, and give it back."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.output import say
from pyuio.errors import BindingError, DeviceBusyError

if TYPE_CHECKING:
    from pathlib import Path

    from pyuio.claim.binding import Binding
    from pyuio.claim.choice import Choice
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

BIND_EPILOG = (
    "Exit status: 0 when the driver has the device, even if it had it before; 1 when the device is in use or the "
    "kernel refuses; 2 for wrong usage."
)
UNBIND_EPILOG = (
    "Exit status: 0 when the device has its former driver, even if there was nothing to undo; 1 when the kernel "
    "refuses, or a process has the device open; 2 for wrong usage."
)


def pci_function(device: str) -> FoundDevice:
    """Return the PCI function that a DEVICE names.

    Raises:
        BindingError: it is not a PCI function.
    """
    from pyuio.pci.discovery import find

    with usage():
        found = find(device)
    if found.address is None:
        reason = f"{found.name} is not a PCI function; only a device with a PCI address can be bound or unbound here"
        raise BindingError(errno.EOPNOTSUPP, reason)
    return found


def user_nodes(found: FoundDevice) -> list[Path]:
    """Return the device nodes by which user space has a device now: UIO's, or that of its IOMMU group."""
    from pyuio.kernel import vfio
    from pyuio.kernel.drivers import VFIO_PCI
    from pyuio.kernel.sysfs import link_name
    from pyuio.kernel.uio import UioNode

    number = vfio.group_of(found.directory)
    if number is not None and link_name(found.directory / "driver") == VFIO_PCI:
        return [vfio.group_path(number)]
    return [node.path for node in UioNode.of_device(found.directory)]


def warn_of_uses(address: str, reasons: list[str]) -> None:
    """Warn on standard error that pyuio takes a device although the machine uses it; `reasons` say how."""
    from pyuio.claim.in_use import listed

    say(f"warning: {address} is in use, and taken all the same:{listed(reasons)}")


def refuse_opened(address: str, *, force: bool = False) -> None:
    """Raise DeviceBusyError if a process has a UIO or VFIO device open.

    With `force`, a UIO device raises a warning instead. A VFIO device cannot be taken by force: the kernel waits.
    """
    from pyuio.claim import in_use
    from pyuio.claim.binding import refuse_held
    from pyuio.kernel.drivers import is_for_user_space

    refuse_held(address)
    reasons = in_use.opened_by(address) if is_for_user_space(address) else []
    if reasons and not force:
        raise DeviceBusyError(errno.EBUSY, in_use.message(address, reasons, f"pyuio unbind {address} --force"))
    if reasons:
        warn_of_uses(address, reasons)


@app.command(epilog=BIND_EPILOG)
def bind(
    device: Device,
    driver: Annotated[
        str | None,
        typer.Option(metavar="DRIVER", help="vfio-pci, uio_pci_generic, igb_uio. Default: as pyuio info says."),
    ] = None,
    whole_group: Annotated[
        bool, typer.Option("--whole-group", help="With vfio-pci: take the other functions of the IOMMU group, too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take the device even if the machine is using it; not from a VFIO user.")
    ] = False,
) -> None:
    """Bind DEVICE to a kernel driver that user space can use.

    Without --driver, a driver that serves user space keeps it; otherwise vfio-pci takes it where an IOMMU translates
    for it or the kernel is locked down, and uio_pci_generic elsewhere. pyuio remembers the former driver until the next
    boot; unbind gives the device back to it. The command refuses, and says why: the controller of a mounted disk or of
    swap, an interface that carries a route, a bridge, the console, and a device that a process has open.
    """
    from pyuio.claim import binding_record
    from pyuio.claim.claim import claim, claim_group, refuse_used
    from pyuio.kernel.drivers import VFIO_PCI

    found = pci_function(device)
    with usage():
        if driver is not None:
            binding_record.check_driver_name(driver)
        if whole_group and driver != VFIO_PCI:
            raise ValueError(
                f"--whole-group goes with --driver {VFIO_PCI}, which needs all functions of an IOMMU group"
            )
    when_used = warn_of_uses if force else refuse_used
    why = ""
    if driver is None and (chosen := _choice(found)) is not None:
        driver, why = chosen.driver, f", because {chosen.reason}"
    if whole_group:
        bindings = claim_group(found, when_used)
        for binding in bindings:
            _tell(binding, why)
        if not bindings:
            print(f"{found.address} is bound to {driver} already{_nodes(found)}: nothing to do")
        return
    claimed = claim(found, True if driver is None else driver, when_used)
    if claimed.binding is None:
        print(f"{found.address} is bound to {claimed.driver} already{_nodes(found)}: nothing to do")
    else:
        _tell(claimed.binding, why)


def _choice(found: FoundDevice) -> Choice | None:
    """Return the driver that a device without one gets; None if a driver that serves user space has it."""
    from pyuio.claim import choice
    from pyuio.claim.binding import refuse_held

    refuse_held(str(found.address))
    return None if choice.present_driver(found) else choice.choose(found)


def _tell(binding: Binding, why: str) -> None:
    """Say what was bound, and what undoes that; `why` is the reason for the driver, after a comma."""
    from pyuio.claim import binding_record
    from pyuio.pci.discovery import find

    record = binding_record.load(binding.address)
    before = binding.previous if record is None else record.previous
    back = f"gives it back to {before}" if before else "leaves it without a driver, as it was"
    bound = f"{binding.address} is bound to {binding.driver}{_nodes(find(binding.address))}{why}"
    print(f"{bound}; pyuio unbind {binding.address} {back}")


def _nodes(found: FoundDevice) -> str:
    """Return " as " and the device nodes by which user space has a device; "" if there is none."""
    paths = ", ".join(map(str, user_nodes(found)))
    return f" as {paths}" if paths else ""


@app.command(epilog=UNBIND_EPILOG)
def unbind(
    device: Device,
    force: Annotated[
        bool, typer.Option("--force", help="Take it from the processes that have it open; not from a VFIO user.")
    ] = False,
) -> None:
    """Give DEVICE back to its former kernel driver.

    That is the driver it had before bind, or before a Python driver that was killed. A device that had no driver is
    left without one. If another program bound it, the former driver is not known, and the device is only released.
    Nobody can take a device from a process that has it open by VFIO: the kernel would wait for that process.
    """
    from pyuio.claim import binding

    address = str(pci_function(device).address)
    refuse_opened(address, force=force)
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
