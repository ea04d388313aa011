# SPDX-License-Identifier: MIT
"""``pyuio reset``: reset a PCI function that nobody uses, and look whether it is as before."""

from __future__ import annotations

import errno
from contextlib import ExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device
from pyuio.cli.bind import pci_function
from pyuio.cli.output import say
from pyuio.errors import DeviceBusyError, DeviceRemovedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

app = typer.Typer()

EPILOG = (
    "Exit status: 0 when the device was reset and answers; 1 when it is in use, does not answer afterwards, or the "
    "kernel refuses; 2 for wrong usage."
)
_STATUS = 6  # offset of the status register, whose bits tell what has happened


@app.command(epilog=EPILOG)
def reset(
    device: Device,
    method: Annotated[
        str | None,
        typer.Option(metavar="flr|pm|bus|...", help="One of those that pyuio info shows. Default: the first."),
    ] = None,
    whole_bus: Annotated[
        bool, typer.Option("--whole-bus", help="Reset all functions on its bus, by the bridge above it.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Reset it even if it is in use; not if a program has it by VFIO.")
    ] = False,
) -> None:
    """Reset DEVICE.

    All that a driver has set up in the device is lost. The kernel restores the configuration space: BARs, bus
    mastering, the masking of the interrupt, message interrupts. The command refuses a device that a kernel driver has,
    that a process has open, or that the machine is using otherwise, and names whom it would disturb. A driver in Python
    resets its own device by device.reset(). The neighbours on a bus are never reset with it, but by --whole-bus, and
    then only if all of them are free.
    """
    from pyuio.pci import reset as pci_reset

    found = pci_function(device)
    name, directory = str(found.address), found.directory
    if whole_bus and method is not None:
        raise typer.BadParameter("--whole-bus resets by the bus; it takes no --method", param_hint="--whole-bus")
    if whole_bus:
        pci_reset.file_of_bus(directory, name)
    others = pci_reset.neighbours(directory) if whole_bus else []
    _refuse_used([name], force=force)
    _refuse_used(others, force=False)
    functions = {one: directory.resolve().parent / one for one in (name, *others)}
    with ExitStack() as stack:
        for one, path in functions.items():
            _keep_out(one, path, stack, force=force and one == name)
        before = {one: _header(path) for one, path in functions.items()}
        if whole_bus:
            pci_reset.reset_bus(directory, name)
            how = "the bus"
        else:
            how = pci_reset.reset_function(directory, method, name)
    changed = {one: _differences(before[one], _answering(one, path)) for one, path in functions.items()}
    print(f"{name} is reset by {how}" + (f", with {', '.join(others)}" if others else ""))
    for one, places in changed.items():
        if places:
            say(f"warning: the kernel did not restore the configuration space of {one} at {', '.join(places)}")


def _refuse_used(addresses: Iterable[str], *, force: bool) -> None:
    """Raise DeviceBusyError if somebody uses one of several functions; with `force`, only if that is through VFIO."""
    from pyuio.claim import in_use
    from pyuio.claim.binding import refuse_held
    from pyuio.cli.bind import warn_of_uses
    from pyuio.kernel.drivers import bound_driver, is_for_user_space

    for address in addresses:
        refuse_held(address)
        reasons = in_use.uses(address)
        if (driver := bound_driver(address)) is not None and not is_for_user_space(address):
            reasons.append(f"the kernel driver {driver} has it, and may not expect a reset")
        if reasons and force:
            warn_of_uses(address, reasons)
        elif reasons:
            raise DeviceBusyError(errno.EBUSY, in_use.message(address, reasons, f"pyuio reset {address} --force"))


def _keep_out(address: str, directory: Path, stack: ExitStack, *, force: bool) -> None:
    """Keep programs of pyuio's from opening a function until `stack` closes.

    Raises:
        DeviceBusyError: one opened it since the command looked; with `force`, that is as if it had done so before.
    """
    from pyuio.backend.open_files import OpenFiles

    with suppress(DeviceBusyError) if force else nullcontext():
        OpenFiles(address).lock_function(directory, stack)


def _header(directory: Path) -> bytes:
    """Return the 64 bytes of the configuration space's header."""
    from contextlib import closing

    from pyuio.pci.config_image import HEADER_LENGTH
    from pyuio.pci.config_space import ConfigSpace

    with closing(ConfigSpace(directory)) as config:
        return config.read(0, HEADER_LENGTH)


def _answering(address: str, directory: Path) -> bytes:
    header = _header(directory)
    if not header.strip(b"\xff"):
        reason = "its configuration space reads as all ones; pyuio remove and rescan may bring it back"
        raise DeviceRemovedError(errno.ENODEV, f"{address} does not answer after the reset: {reason}")
    return header


def _differences(before: Sequence[int], after: Sequence[int]) -> list[str]:
    """Return the places of the words of two headers that differ, but for the status register."""
    return [
        f"{offset:#x}"
        for offset in range(0, len(before), 2)
        if offset != _STATUS and before[offset : offset + 2] != after[offset : offset + 2]
    ]
