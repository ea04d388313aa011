# SPDX-License-Identifier: MIT
"""The arguments and options that several commands take."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from pyuio.errors import PyuioError


def complete_device(incomplete: str) -> list[tuple[str, str]]:
    """Return what a shell may complete a DEVICE to: names that mean one device, each with what it is."""
    from pyuio.pci.discovery import devices  # it takes longer than all else that a command line needs

    present = devices()
    found = []
    for device in present:
        kind = f"{device.ids or device.name}, driver: {device.driver or 'none'}"
        if device.address is not None:
            found.append((device.address, kind))
            if incomplete and device.address.startswith("0000:"):
                found.append((device.address.removeprefix("0000:"), kind))
            if device.ids is not None and sum(other.ids == device.ids for other in present) == 1:
                found.append((device.ids, f"{device.address}, driver: {device.driver or 'none'}"))
        if device.uio is not None:
            found.append((device.uio, f"{device.name}, {kind}"))
    return [(name, kind) for name, kind in found if name.startswith(incomplete)]


FORMS = "A PCI address (0000:00:04.0), an id pair (1234:11e8) or a node (uio0)."

Device = Annotated[str, typer.Argument(metavar="DEVICE", help=FORMS, autocompletion=complete_device)]
"""The device a command is about; `pyuio.open` and `pyuio.pci.discovery.find` take it as it is."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Makes wrong usage, one line and status 2, of a ValueError that is no trouble of a file or a device.

    Only around what reads the command line: a DEVICE that is not there is a `PyuioError`, which ends with status 1.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, PyuioError):
            raise
        print(f"pyuio: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
