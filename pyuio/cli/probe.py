# SPDX-License-Identifier: MIT
"""``pyuio probe``: show which installed drivers serve which devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from pyuio.cli.arguments import FORMS, Json, complete_device, usage
from pyuio.cli.output import columns, console, print_json, say

if TYPE_CHECKING:
    from pyuio.installed_drivers import InstalledDriver
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

JSON_FORMAT = 1
EPILOG = (
    "A package publishes its drivers in the entry-point group pyuio.drivers. If one cannot be loaded, pyuio reports it "
    "and goes on. Exit status: 0; 1 when no driver serves DEVICE, or DEVICE does not exist."
)


@app.command(epilog=EPILOG)
def probe(
    device: Annotated[
        str | None,
        typer.Argument(metavar="DEVICE", help=f"Only this device. {FORMS}", autocompletion=complete_device),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which installed drivers serve which devices."""
    from pyuio.installed_drivers import installed_drivers
    from pyuio.pci.discovery import devices, find

    with usage():
        present = devices() if device is None else [find(device)]
    drivers = [_matched(driver, present) for driver in installed_drivers()]
    if device is not None:
        drivers = [driver for driver in drivers if driver["devices"] or driver["error"]]
    served = any(driver["devices"] for driver in drivers)
    if as_json:
        print_json({"format": JSON_FORMAT, "drivers": drivers})
    else:
        _show(drivers)
    if device is not None and not served:
        name, what = present[0].name, present[0].ids or present[0].uio_name
        say(f"no installed driver serves {name}{f' ({what})' if what else ''}")
        raise typer.Exit(1)


def _matched(driver: InstalledDriver, present: list[FoundDevice]) -> dict[str, Any]:
    from pyuio.errors import DriverLoadError

    error: str | None = None
    ids: tuple[str, ...] = ()
    class_codes: tuple[int, ...] = ()
    uio_names: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    served: list[FoundDevice] = []
    try:
        ids, class_codes = driver.ids, driver.class_codes
        uio_names, compatible = driver.uio_names, driver.compatible
        served = [
            found for found in present if driver.serves(found.ids, found.class_code, found.uio_name, found.compatible)
        ]
    except DriverLoadError as failure:
        error = str(failure)
    return {
        "name": driver.name,
        "distribution": driver.distribution,
        "class": driver.entry_point.value,
        "ids": list(ids),
        "class_codes": [f"{code:06x}" for code in class_codes],
        "uio_names": list(uio_names),
        "compatible": list(compatible),
        "error": error,
        "devices": [
            {
                "name": found.name,
                "ids": found.ids,
                "driver": found.driver,
                "uio": found.uio,
                "uio_name": found.uio_name,
            }
            for found in served
        ],
    }


def _serves(driver: dict[str, Any]) -> str:
    codes = (f"class {code}" for code in driver["class_codes"])
    nodes = (f"node {name}" for name in driver["uio_names"])
    return " ".join([*driver["ids"], *codes, *nodes, *driver["compatible"]])


def _show(drivers: list[dict[str, Any]]) -> None:
    output = console()
    if not drivers:
        return
    table = columns("driver", "package", "device", "ids", "kernel driver", "node")
    for driver in drivers:
        who = driver["name"], driver["distribution"] or "-"
        if driver["error"]:
            table.add_row(*map(Text, who), Text("cannot be loaded", style="red"))
        elif not driver["devices"]:
            table.add_row(*map(Text, who), Text("none here", style="dim"), Text(_serves(driver)))
        for found in driver["devices"]:
            what = found["ids"] or f"node {found['uio_name']}"
            cells = (*who, found["name"], what, found["driver"] or "-", found["uio"] or "-")
            table.add_row(*map(Text, cells))
    output.print(table)
    for driver in drivers:
        if driver["error"]:
            say(driver["error"])
