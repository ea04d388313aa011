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
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

BIND_EPILOG = (
    "Exit status: 0 when DRIVER has the device, even if it had it before; 1 when the device is in use or the kernel "
    "refuses; 2 for wrong usage."
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


def warn_of_uses(address: str, reasons: list[str]) -> None:
    """Warn on standard error that pyuio takes a device although the machine uses it; `reasons` say how."""
    from pyuio.claim.in_use import listed

    say(f"warning: {address} is in use, and taken all the same:{listed(reasons)}")


def refuse_opened(address: str, *, force: bool = False) -> None:
    """Raise DeviceBusyError if a process has a UIO or VFIO device open; with `force`, warn instead."""
    from pyuio.claim import in_use
    from pyuio.kernel.drivers import is_for_user_space

    reasons = in_use.opened_by(address) if is_for_user_space(address) else []
    if reasons and not force:
        raise DeviceBusyError(errno.EBUSY, in_use.message(address, reasons, f"pyuio unbind {address} --force"))
    if reasons:
        warn_of_uses(address, reasons)


@app.command(epilog=BIND_EPILOG)
def bind(
    device: Device,
    driver: Annotated[
        str, typer.Option(metavar="DRIVER", help="The kernel driver; its module is loaded if necessary.")
    ] = "uio_pci_generic",
    force: Annotated[bool, typer.Option("--force", help="Take the device even if the machine is using it.")] = False,
) -> None:
    """Bind DEVICE to a kernel driver that user space can use.

    pyuio remembers its former driver until the next boot; unbind gives the device back to it. The command refuses, and
    says why: the controller of a mounted disk or of swap, an interface that carries a route, a bridge, the console, and
    a device that a process has open.
    """
    from pyuio.claim import binding_record
    from pyuio.claim.claim import claim, refuse_used

    found = pci_function(device)
    with usage():
        binding_record.check_driver_name(driver)
    claimed = claim(found, driver, warn_of_uses if force else refuse_used)
    node = f" as {', '.join(str(node.path) for node in claimed.nodes)}" if claimed.nodes else ""
    if claimed.binding is None:
        print(f"{found.address} is bound to {driver} already{node}: nothing to do")
        return
    record = binding_record.load(claimed.binding.address)
    before = claimed.binding.previous if record is None else record.previous
    back = f"gives it back to {before}" if before else "leaves it without a driver, as it was"
    print(f"{found.address} is bound to {driver}{node}; pyuio unbind {found.address} {back}")


@app.command(epilog=UNBIND_EPILOG)
def unbind(
    device: Device,
    force: Annotated[bool, typer.Option("--force", help="Take it from the processes that have it open.")] = False,
) -> None:
    """Give DEVICE back to its former kernel driver.

    That is the driver it had before bind, or before a Python driver that was killed. A device that had no driver is
    left without one. If another program bound it, the former driver is not known, and the device is only released.
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
