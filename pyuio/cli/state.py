# SPDX-License-Identifier: MIT
"""``pyuio save``, ``diff`` and ``restore``: the state of a device in a file, compared with the device, written back."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.access import STATUS, inspect, warn_of_others
from pyuio.cli.arguments import Device, DriverText, Json
from pyuio.cli.output import print_json, print_line, say
from pyuio.errors import DeviceBusyError, DriverNotFoundError

if TYPE_CHECKING:
    from pyuio.inspect.inspection import Inspection
    from pyuio.inspect.location import Location
    from pyuio.inspect.state import Maps

app = typer.Typer()

File = Annotated[Path, typer.Argument(metavar="FILE", help="A file that pyuio save wrote.")]
Every = Annotated[bool, typer.Option("--all", help="Also read registers that a read changes.")]

JSON_FORMAT = 1
DIFFERS = 3  # exit status
EPILOG = f"{STATUS}."
DIFF_EPILOG = (
    f"Exit status: 0 when nothing differs, {DIFFERS} when something does, 1 when the device or the kernel refuses, 2 "
    "for wrong usage."
)
RESTORE_EPILOG = (
    f"Exit status: 0 when all that can be written holds the saved values, {DIFFERS} when a register does not hold what "
    "was written, 1 when the device or the kernel refuses, 2 for wrong usage."
)


def maps_of(device: Inspection, text: str | None) -> Maps:
    """Return the named registers of a device; none if no installed driver knows them, and `text` names none."""
    from pyuio.inspect.chosen_driver import driver_of

    try:
        driver = driver_of(device, text)
    except DriverNotFoundError:
        if text is not None:
            raise
        return {}
    return {f"bar{key}" if isinstance(key, int) else key: kind for key, kind in driver.register_maps.items()}


@app.command(epilog=EPILOG)
def save(device: Device, every: Every = False, driver: DriverText = None) -> None:
    """Print registers and configuration space as YAML.

    A driver has the names of the registers. Registers that are write-only, or that a read changes, are left
    out, and counted on standard error.
    """
    from pyuio.inspect import state

    with inspect(device) as inspection:
        maps = maps_of(inspection, driver)
        if maps:
            warn_of_others(inspection, "reads, which can have side effects")
        else:
            say(f"no installed driver knows registers of {inspection.name}: configuration space only")
        taken = state.take(inspection, maps, every=every)
        print(state.text_of(taken), end="")
    left = sum(info.path not in taken.registers[space] for space, kind in maps.items() for info in kind.walk())
    if left:
        say(f"{left} registers were not read, because they are write-only or a read has an effect")


@app.command(epilog=DIFF_EPILOG)
def diff(
    file: File, device: Device, every: Every = False, driver: DriverText = None, json_wanted: Json = False
) -> None:
    """Print what differs between a saved state and DEVICE.

    Each line shows a register and the fields that differ: saved -> present. The command reads the registers that FILE
    has, and no others.
    """
    from pyuio.inspect import state

    saved = state.load(file)
    with inspect(device) as inspection:
        maps = maps_of(inspection, driver)
        if saved.registers:
            warn_of_others(inspection, "reads, which can have side effects")
        differences, unread = state.compare(saved, inspection, maps, every=every)
    _tell_unread(unread, "; --all compares them")
    if json_wanted:
        data = [one.data() for one in differences]
        print_json({"format": JSON_FORMAT, "device": inspection.name, "differences": data})
    else:
        for one in differences:
            print_line(str(one))
    if differences:
        raise typer.Exit(DIFFERS)


def _tell_unread(places: list[Location], advice: str = "") -> None:
    if places:
        say(f"not compared, because reading them has an effect: {', '.join(map(str, places))}{advice}")


@app.command(epilog=RESTORE_EPILOG)
def restore(
    file: File,
    device: Device,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write even if a kernel driver has DEVICE.")] = False,
    driver: DriverText = None,
) -> None:
    """Write the registers of a saved state back to DEVICE.

    The command writes those that differ, and prints each: present -> saved. They are written in the order of their
    offsets, each by one access. It writes no register if a write has an effect besides storing the value, and no
    configuration space: it names what differs there.
    """
    from pyuio.inspect import state

    saved = state.load(file)
    with inspect(device) as inspection:
        maps = maps_of(inspection, driver)
        differences, unread = state.compare(saved, inspection, maps)
        holder = inspection.kernel_driver
        if holder is not None and not force and not dry_run:
            reason = f"{inspection.name} is held by the kernel driver {holder}, which does not expect writes"
            raise DeviceBusyError(errno.EBUSY, f"{reason}; first take the device, or insist with --force")
        if not dry_run:
            warn_of_others(inspection, "writes")
        _tell_unread(unread)
        differ = 0
        for one in differences:
            if one.restorable:
                print_line(str(one.reversed()))
                differ += not dry_run and not state.put_back(inspection, one)
            else:
                say(f"not written: {one}")
    if differ:
        say(f"{differ} registers do not hold what was written; pyuio diff shows them")
        raise typer.Exit(DIFFERS)
