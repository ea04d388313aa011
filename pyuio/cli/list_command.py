# SPDX-License-Identifier: MIT
"""``pyuio list`` for typer: its arguments and its help."""

from __future__ import annotations

from typing import Annotated

import typer

from pyuio.cli.arguments import Json
from pyuio.cli.listing import list_devices

app = typer.Typer()

EPILOG = (
    "A device with a UIO node is always shown. Without --all, parts of the machine are left out: bridges, memory "
    "controllers, timers, IOMMUs and the like. Exit status: 0, even if there is nothing to show."
)


@app.command("list", epilog=EPILOG)
def list_command(
    everything: Annotated[
        bool, typer.Option("--all", help="Show bridges and other parts of the machine, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List PCI functions and UIO nodes."""
    list_devices(everything, as_json)
