# SPDX-License-Identifier: MIT
"""``pyuio read`` and ``pyuio write``: access to registers by place, also while a driver has the device."""

from __future__ import annotations

import datetime
import errno
import json
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, DriverText, Json, usage
from pyuio.cli.output import print_json, print_line, say
from pyuio.errors import ConfigLockedError, DeviceBusyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyuio.inspect.cells import Cell
    from pyuio.inspect.inspection import Inspection

PLACE_HELP = (
    "bar0+0x24, config+4, map0+4 or regs+4 in a UIO node's map; or a name as in bar0.status, if a driver knows the "
    "device's registers."
)
PLACES_HELP = f"{PLACE_HELP} The name of a map or array stands for all its registers."
Place = Annotated[str, typer.Argument(metavar="PLACE", help=PLACE_HELP)]
Places = Annotated[str, typer.Argument(metavar="PLACE", help=PLACES_HELP)]
Width = Annotated[int | None, typer.Option(metavar="8|16|32|64", help="Bits of each access. Default: 32.")]

app = typer.Typer()

JSON_FORMAT = 1
STATUS = "Exit status: 0 when it was done, 1 when the device or the kernel refuses, 2 for wrong usage"
EPILOG = f"{STATUS}."
WATCH_EPILOG = f"{STATUS}, 130 when Ctrl-C ended --watch."


def inspect(device: str) -> Inspection:
    """Return an `Inspection` of DEVICE, which reads and writes its registers whatever driver has it."""
    from pyuio.inspect.inspection import Inspection
    from pyuio.pci.discovery import find

    with usage():
        found = find(device)
    return Inspection(found)


def _warn(text: str) -> None:
    say(f"warning: {text}")


def others(device: Inspection, doing: str) -> list[str]:
    """Return a sentence for the kernel driver and each process that has the device.

    Args:
        device: the device.
        doing: what they may not expect.
    """
    driver = device.kernel_driver
    found = [] if driver is None else [f"the kernel driver {driver} has {device.name}, and does not expect {doing}"]
    return found + [f"{process}, and may not expect {doing}" for process in device.processes()]


def warn_of_others(device: Inspection, doing: str) -> None:
    """Warn of the kernel driver and of each process that has the device; `doing` is what they may not expect."""
    for sentence in others(device, doing):
        _warn(sentence)


def doubt(device: Inspection, read: Sequence[tuple[Cell, int]]) -> None:
    """Warn if all values read are all ones, or 0, and there is a reason that they may not be the device's.

    Raises:
        DeviceRemovedError: the device is gone.
    """
    if read and all(value == cell.ones for cell, value in read) and (reason := device.doubt_of_ones()):
        _warn(f"every bit reads as 1: {reason}")
    in_bar = read and not read[0][0].place.is_config
    if in_bar and not any(value for _, value in read) and (reason := device.doubt_of_zeros()):
        _warn(f"every bit reads as 0: {reason}")


def _cells(device: Inspection, text: str, width: int | None, count: int, driver: str | None) -> list[Cell]:
    from pyuio.inspect.cells import cells, named_cell, register_map, registers_within
    from pyuio.inspect.chosen_driver import driver_of
    from pyuio.inspect.location import parse_location

    with usage():
        place = parse_location(text)
        if not place.name:
            if driver is not None:
                raise ValueError(f"--driver goes with a name, as in bar0.status, not with {text!r}")
            return cells(device, place, 32 if width is None else width, count)
        if width is not None or count != 1:
            raise ValueError(f"{text!r} names registers with their own widths: it takes neither --width nor --count")
        registers = register_map(driver_of(device, driver), device.where(place))
        infos = registers_within(registers, place.name)
        driven = any(info.bank is not None for info in infos) and device.is_driven
        return [named_cell(device.registers(place), place, info, driven=driven) for info in infos]


def _harmless(found: list[Cell], text: str) -> list[Cell]:
    """Return the registers that a read of several reads, and say which it leaves out. One alone is read in any case."""
    if len(found) == 1:
        return found
    kept = [cell for cell in found if cell.harmless]
    left = [str(cell.place) for cell in found if not cell.harmless]
    if left:
        shown = ", ".join(left[:4]) + f" and {len(left) - 4} more" * (len(left) > 4)
        say(f"not read, because they are write-only or a read has an effect: {shown}")
    if not kept:
        with usage():
            raise ValueError(f"{text!r} has no register that can be read without an effect; name one of them")
    return kept


@app.command(epilog=WATCH_EPILOG)
def read(
    device: Device,
    place: Places,
    width: Width = None,
    count: Annotated[int, typer.Option(metavar="N", help="Number of registers to read, in ascending order.")] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Keep reading and print changes, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Time between two reads of --watch.")] = 0.1,
    driver: DriverText = None,
    json_wanted: Json = False,
) -> None:
    """Read registers, each by one access of its width.

    Reading can have side effects: it clears some registers. DEVICE does not need a driver.
    """
    if not 0 <= interval < 1e9:  # refuses NaN as well
        raise typer.BadParameter(f"{interval} is not a number of seconds from 0", param_hint="--interval")
    with inspect(device) as inspection:
        wanted = _harmless(_cells(inspection, place, width, count, driver), place)
        if not wanted[0].place.is_config:
            warn_of_others(inspection, "reads, which can have side effects")
        if watch:
            _watch(inspection, wanted, interval, json_wanted)
        values = [(cell, cell.read()) for cell in wanted]
        doubt(inspection, values)
    if json_wanted:
        print_json(
            {
                "format": JSON_FORMAT,
                "device": inspection.name,
                "registers": [cell.data(value) for cell, value in values],
            }
        )
        return
    for cell, value in values:
        print_line(cell.text(value) if len(wanted) == 1 else f"{cell.place}  {cell.text(value)}")


def _watch(device: Inspection, wanted: list[Cell], interval: float, json_wanted: bool) -> None:
    """Print the registers, and then each change, for ever."""
    last: list[int | None] = [None] * len(wanted)
    while True:
        for number, cell in enumerate(wanted):
            value = cell.read()
            if value == last[number]:
                continue
            device.require_decoding(cell.place)
            now = datetime.datetime.now().astimezone()
            doubt(device, [(cell, value)])
            last[number] = value
            if json_wanted:
                print_line(json.dumps({"time": now.timestamp(), **cell.data(value)}))
            else:
                print_line(f"{now:%H:%M:%S.%f}  {cell.place}  {cell.text(value)}")
        time.sleep(interval)


def _refuse_accident(device: Inspection, cell: Cell) -> None:
    """Raise ConfigLockedError if the cell lies in the part of configuration space that the kernel set up."""
    if reason := device.config.guarded(cell.place.offset, cell.width // 8):
        raise ConfigLockedError(f"{reason}; insist with --force")


def refuse_held(device: Inspection) -> None:
    """Raise DeviceBusyError if a kernel driver has the device, as it does not expect a write."""
    if (holder := device.kernel_driver) is not None:
        reason = (
            f"{device.name} is held by the kernel driver {holder}, and a write can confuse the driver or even stop the "
            f"machine; first take the device (pyuio bind {device.name}), or insist with --force"
        )
        raise DeviceBusyError(errno.EBUSY, reason)


@app.command(epilog=EPILOG)
def write(
    device: Device,
    place: Place,
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="A number, decimal or hexadecimal (0x80), or a field value's name.")
    ],
    width: Width = None,
    driver: DriverText = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write even to what a kernel driver holds or the kernel set up.")
    ] = False,
) -> None:
    """Write a register, by one access of its width.

    The command reads nothing, unless PLACE names a field: then it reads the register and keeps its other bits. DEVICE
    does not need a driver. Without --force, the command refuses a write if a kernel driver has DEVICE, and a write to
    the part of the configuration space that the kernel set up.
    """
    with inspect(device) as inspection:
        cell, *more = _cells(inspection, place, width, 1, driver)
        with usage():
            if more:
                raise ValueError(f"{place!r} is {len(more) + 1} registers; name one, as in {cell.place}")
            number = cell.parse_fitting(value)
        if not force:
            refuse_held(inspection)
        if cell.place.is_config and not force:
            _refuse_accident(inspection, cell)
        warn_of_others(inspection, "writes")
        with inspection.config.unlocked() if force and cell.place.is_config else nullcontext():
            cell.write(number)
