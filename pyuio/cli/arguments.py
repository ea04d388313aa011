# SPDX-License-Identifier: MIT
"""Arguments and options that several commands share."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from typing import Annotated

import typer

from pyuio.cli.output import say
from pyuio.errors import PyuioError


def is_plain(name: str) -> bool:
    """Return whether a shell takes a name as it is: it needs no quotes, and is no option."""
    return shlex.quote(name) == name and not name.startswith("-")


def complete_device(incomplete: str) -> list[tuple[str, str]]:
    """Return the completions of a DEVICE: each name that stands for one device only, with a description of it."""
    from pyuio.pci.discovery import devices  # this import takes longer than all others of the command line

    present = devices()
    functions = {device.device_name: device for device in present}.values()
    found = []
    for device in functions:
        kind = f"{device.ids or device.device_name}, driver: {device.driver or 'none'}"
        if device.address is not None:
            found.append((device.address, kind))
            if incomplete and device.address.startswith("0000:"):
                found.append((device.address.removeprefix("0000:"), kind))
            if device.ids is not None and sum(other.ids == device.ids for other in functions) == 1:
                found.append((device.ids, f"{device.address}, driver: {device.driver or 'none'}"))
        found += [(node, f"{device.device_name}, {kind}") for node in device.nodes]
    # The names of nodes, without those that generic drivers give to every node of theirs. A kernel driver or a device
    # tree can have any text for one, and a shell puts it into the command line as it is.
    named = [(device.uio_name, device) for device in present if device.uio_name not in (None, device.driver)]
    for name, device in named:
        if name is not None and is_plain(name) and sum(other == name for other, _ in named) == 1:
            found.append((name, f"{device.uio}, {device.device_name}, driver: {device.driver or 'none'}"))
    return [(name, kind) for name, kind in found if name.startswith(incomplete)]


FORMS = "A PCI address (0000:00:04.0), an id pair (1234:11e8), or a node: uio0, a link to it, or its name."

Device = Annotated[str, typer.Argument(metavar="DEVICE", help=FORMS, autocompletion=complete_device)]
"""The device of a command, in the form that `pyuio.open` and `pyuio.pci.discovery.find` take."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


DriverText = Annotated[
    str | None,
    typer.Option(
        "--driver", metavar="FILE.py:CLASS", help="The driver that knows the registers. Default: an installed one."
    ),
]
"""Names the driver of a command, as `pyuio.inspect.chosen_driver.load` takes it."""


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Report a ValueError as wrong usage: one line and exit status 2; but pass on a `PyuioError`.

    Use it only around code that reads the command line. A DEVICE that does not exist raises a `PyuioError`, whose exit
    status is 1.
    """
    try:
        yield
    except ValueError as error:
        if isinstance(error, PyuioError):
            raise
        say(error)
        raise typer.Exit(2) from error
