# SPDX-License-Identifier: MIT
"""``pyuio dump``: print a BAR, a map or the configuration space, as numbers or by register name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyuio.cli.access import EPILOG, JSON_FORMAT, doubt, inspect, warn_of_others
from pyuio.cli.arguments import Device, DriverText, Json, usage
from pyuio.cli.output import print_json, print_line, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyuio.inspect.cells import Cell
    from pyuio.inspect.inspection import Inspection
    from pyuio.inspect.location import Location

app = typer.Typer()


@app.command(epilog=EPILOG)
def dump(
    device: Device,
    space: Annotated[
        str | None,
        typer.Argument(
            metavar="[bar0|map0|config]",
            help="What to print; a part of its names, as in 'bar0.channel[2]'. Default: config; without one, map0.",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="8|16|32|64", help="Bits of each access. Default: 32; for config: 8.")
    ] = None,
    offset: Annotated[str, typer.Option(metavar="OFFSET", help="Where to begin, in bytes.")] = "0",
    length: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="How many bytes. Default: all of config, else up to 256.")
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Print registers by name, as a driver knows them.")] = False,
    every: Annotated[bool, typer.Option("--all", help="With names: also read registers that a read changes.")] = False,
    only_set: Annotated[
        bool, typer.Option("--set", help="With names: print what is not 0, and of that the fields that are not 0.")
    ] = False,
    driver: DriverText = None,
    json_wanted: Json = False,
) -> None:
    """Print a BAR, a map of a UIO node, or the configuration space.

    Each access has exactly the width given or, by names, the register's own width. Reading a BAR can have side
    effects: it clears some registers. A * stands for lines that equal the one above.
    """
    from pyuio.inspect.cells import cells, checked_width
    from pyuio.inspect.location import parse_location, parse_number

    with inspect(device) as inspection:
        with usage():
            place = parse_location(space or ("config" if inspection.has_config else "map0"))
            names = names or bool(place.name)
            if names and (width is not None or length is not None or offset != "0" or place.offset):
                raise ValueError("names print registers by their own width: no offset, --width or --length")
            if names and place.is_config:
                raise ValueError("--names goes with a BAR or map; pyuio info shows the configuration space decoded")
            if (every or only_set or driver is not None) and not names:
                option = "--all" if every else "--set" if only_set else "--driver"
                raise ValueError(f"{option} goes with --names")
        if names:
            _dump_names(inspection, place, driver, every=every, only_set=only_set, json_wanted=json_wanted)
            return
        with usage():
            bits = checked_width(width if width is not None else 8 if place.is_config else 32)
            start = place.offset + parse_number(offset, "the offset")
            whole = inspection.space(place).size
            rest = max(0, whole - start)
            if length is None:
                wanted = rest if place.is_config else min(rest, 256)
            else:
                wanted = parse_number(length, "the length")
            if wanted == 0 or wanted % (bits // 8):
                raise ValueError(
                    f"{wanted} bytes from {start:#x} of {whole:#x}: not one or more accesses of {bits} bits"
                )
            found = cells(inspection, place.at(start), bits, wanted // (bits // 8))
        if not place.is_config:
            warn_of_others(inspection, "reads, which can have side effects")
        values = [cell.read() for cell in found]
        doubt(inspection, list(zip(found, values, strict=True)))
    if json_wanted:
        data = {"format": JSON_FORMAT, "device": inspection.name, "space": place.space, "offset": start, "width": bits}
        print_json({**data, "values": values})
        return
    for line in hexdump(values, bits, start):
        print_line(line)
    if length is None and wanted < rest:
        say(f"{wanted:#x} of {whole:#x} bytes; --length and --offset give others")


def _dump_names(
    device: Inspection, where: Location, driver: str | None, *, every: bool, only_set: bool, json_wanted: bool
) -> None:
    """Print registers of a BAR or map by name.

    Args:
        device: the device.
        where: the BAR or map, and the name of a part of its register map.
        driver: the driver that has the names; None for an installed one.
        every: read those, too, that a read changes.
        only_set: print only what is not 0.
        json_wanted: print JSON.
    """
    from pyuio.inspect.cells import named_cell, register_map, registers_within
    from pyuio.inspect.chosen_driver import driver_of

    with usage():
        registers = register_map(driver_of(device, driver), device.where(where))
        infos = registers_within(registers, where.name)
        if infos[0].field is not None:
            raise ValueError(f"{where} is a field: pyuio read {device.name} '{where}'")
    warn_of_others(device, "reads, which can have side effects")
    read: list[tuple[Cell, int]] = []
    data: list[dict[str, Any]] = []
    lines = []
    for info in infos:
        cell = named_cell(device.registers(where), where, info, driven=info.bank is not None and device.is_driven)
        start = f"{info.offset:#06x}  {info.path}"
        if not info.readable or not (every or cell.harmless):
            if not only_set:
                data.append({"place": str(cell.place), "width": cell.width, "value": None, "offset": info.offset})
                why = "not read, as that has an effect (--all)" if info.readable else "write-only"
                lines.append(f"{start} = {why}")
            continue
        value = cell.read()
        read.append((cell, value))
        if value or not only_set:
            data.append({**cell.data(value), "offset": info.offset})
            lines.append(f"{start} = {cell.text(value, only_set=only_set)}")
    doubt(device, read)
    if json_wanted:
        print_json({"format": JSON_FORMAT, "device": device.name, "registers": data})
    else:
        for line in lines:
            print_line(line)
    if only_set:
        zero, unread = len(read) - len(lines), len(infos) - len(read)
        say(f"{zero} more registers are 0, and {unread} were not read")


def hexdump(values: Sequence[int], bits: int, start: int) -> list[str]:
    """Return the lines of a dump: 16 bytes on each, as numbers of `bits` bits; 8-bit numbers as characters, too.

    Args:
        values: the numbers from offset `start` on.
        bits: the width of each number.
        start: the offset of the first one, in bytes.
    """
    across = 128 // bits
    lines: list[str] = []
    row_before: Sequence[int] | None = None
    for number in range(0, len(values), across):
        row = values[number : number + across]
        if row == row_before and number + across < len(values):  # always print the last row: it shows the end
            if lines[-1] != "*":
                lines.append("*")
            continue
        row_before = row
        shown = " ".join(f"{value:0{bits // 4}x}" for value in row)
        if bits == 8:
            characters = "".join(chr(value) if 0x20 <= value < 0x7F else "." for value in row)
            shown = f"{shown:{across * 3 - 1}}  |{characters}|"
        lines.append(f"{start + number * bits // 8:08x}  {shown}")
    return lines
