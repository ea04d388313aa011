# SPDX-License-Identifier: MIT
"""``pyuio remove`` and ``pyuio rescan``: have the kernel forget a PCI function, and find it again."""

from __future__ import annotations

import errno
from typing import Annotated

import typer

from pyuio.cli.arguments import Device
from pyuio.cli.bind import pci_function, warn_of_uses
from pyuio.errors import DeviceBusyError

app = typer.Typer()

REMOVE_EPILOG = (
    "Exit status: 0 when the kernel has forgotten the device; 1 when the device is in use or the kernel refuses; 2 for "
    "wrong usage."
)
RESCAN_EPILOG = (
    "Exit status: 0 when the kernel has looked, even if nothing is new; 1 when it refuses; 2 for wrong usage."
)


@app.command(epilog=REMOVE_EPILOG)
def remove(
    device: Device,
    force: Annotated[
        bool, typer.Option("--force", help="Remove it even if it is in use; not if a program has it by VFIO.")
    ] = False,
) -> None:
    """Have the kernel forget DEVICE, as if the card were pulled out.

    Do this before you program an FPGA anew, and pyuio rescan afterwards: the kernel then gives the BARs of the new
    design their places. The command refuses what pyuio bind refuses, and what a process has open, and names it.
    """
    from pyuio.claim import binding, in_use

    address = str(pci_function(device).address)
    if reasons := in_use.uses(address):
        if not force:
            raise DeviceBusyError(errno.EBUSY, in_use.message(address, reasons, f"pyuio remove {address} --force"))
        warn_of_uses(address, reasons)
    binding.remove(address)
    print(f"{address} is removed; pyuio rescan finds it again")


@app.command(epilog=RESCAN_EPILOG)
def rescan() -> None:
    """Have the kernel look for new PCI devices, and list them."""
    from pyuio.claim import binding
    from pyuio.pci.discovery import devices

    before = {device.address for device in devices()}
    binding.rescan()
    found = {device.address: device for device in devices() if device.address not in before}
    for device in found.values():
        print(device)
    if not found:
        print("no new device")
