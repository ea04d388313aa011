# SPDX-License-Identifier: MIT
"""``pyuio dump``: print a BAR or the configuration space, as numbers or by register name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pyuio.cli.access import EPILOG, JSON_FORMAT, doubt, inspect, warn_of_others
from pyuio.cli.arguments import Device, Json, usage
from pyuio.cli.output import print_json, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyuio.inspect.cells import Cell
    from pyuio.inspect.inspection import Inspection

app = typer.Typer()


@app.command(epilog=EPILOG)
def dump(
    device: Device,
    space: Annotated[str, typer.Argument(metavar="[bar0|config]", help="What to print.")] = "config",
    width: Annotated[
        int | None, typer.Option(metavar="8|16|32|64", help="Bits of each access. Default: 32; for config: 8.")
    ] = None,
    offset: Annotated[str, typer.Option(metavar="OFFSET", help="Where to begin, in bytes.")] = "0",
    length: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="How many bytes. Default: all of config, up to 256 of a BAR.")
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Print registers by name, as an installed driver knows them.")
    ] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --names: also read registers that a read changes.")
    ] = False,
    json_wanted: Json = False,
) -> None:
    """Print a BAR or the configuration space.

    Each access has exactly the width given or, with --names, the register's own width. Reading a BAR can have side
    effects: it clears some registers. A * stands for lines that equal the one above.
    """
    from pyuio.inspect.cells import cells, checked_width
    from pyuio.inspect.location import Location, parse_location, parse_number

    with inspect(device) as inspection:
        with usage():
            place = parse_location(space)
            if place.name:
                raise ValueError(f"{space!r}: a dump is of bar0 to bar5 or config")
            if names and (width is not None or length is not None or offset != "0" or place.offset):
                raise ValueError("--names prints all registers, by their own width: no offset, --width or --length")
            if names and place.bar is None:
                raise ValueError("--names goes with a BAR; pyuio info shows the configuration space decoded")
            if every and not names:
                raise ValueError("--all goes with --names")
        if names and place.bar is not None:
            _dump_names(inspection, place.bar, every, json_wanted)
            return
        with usage():
            bits = checked_width(width if width is not None else 8 if place.bar is None else 32)
            start = place.offset + parse_number(offset, "the offset")
            whole = inspection.config.size if place.bar is None else inspection.bar(place.bar).size
            rest = max(0, whole - start)
            if length is None:
                wanted = rest if place.bar is None else min(rest, 256)
            else:
                wanted = parse_number(length, "the length")
            if wanted == 0 or wanted % (bits // 8):
                raise ValueError(
                    f"{wanted} bytes from {start:#x} of {whole:#x}: not one or more accesses of {bits} bits"
                )
            found = cells(inspection, Location(place.bar, start), bits, wanted // (bits // 8))
        if place.bar is not None:
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
        print(f"pyuio: {wanted:#x} of {whole:#x} bytes; --length and --offset give others", file=sys.stderr)


def _dump_names(device: Inspection, bar: int, every: bool, json_wanted: bool) -> None:
    """Print the registers of a BAR by name; read those that can be read, and that a read changes only if `every`."""
    from pyuio.inspect.cells import named_cell, register_map

    warn_of_others(device, "reads, which can have side effects")
    read: list[tuple[Cell, int]] = []
    data: list[dict[str, Any]] = []
    lines = []
    for info in register_map(device.name, device.ids, bar, device.class_code).walk():
        cell = named_cell(device.bar(bar), bar, info)
        start = f"{info.offset:#06x}  {info.path}"
        if not info.readable or (info.read_effect and not every):
            data.append({"place": str(cell.place), "width": cell.width, "value": None, "offset": info.offset})
            lines.append(f"{start} = {'not read, as that has an effect (--all)' if info.readable else 'write-only'}")
            continue
        value = cell.read()
        read.append((cell, value))
        data.append({**cell.data(value), "offset": info.offset})
        lines.append(f"{start} = {cell.text(value)}")
    doubt(device, read)
    if json_wanted:
        print_json({"format": JSON_FORMAT, "device": device.name, "registers": data})
        return
    for line in lines:
        print_line(line)


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
