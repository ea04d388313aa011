# SPDX-License-Identifier: MIT
"""``pyuio watch``: a screen with a device's registers, interrupts, link and errors, as they change."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.access import STATUS, refuse_held
from pyuio.cli.arguments import Device, DriverText, usage
from pyuio.cli.state import maps_of
from pyuio.errors import MappingError, TextualUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyuio.cli.watch_screen import Watch
    from pyuio.inspect.health import Health
    from pyuio.inspect.inspection import Inspection
    from pyuio.inspect.live import LiveView

app = typer.Typer()

EPILOG = f"{STATUS}, 130 when Ctrl-C ended it."


@app.command(epilog=EPILOG)
def watch(
    device: Device,
    place: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLACE]", help="A BAR or map, or a part of its names, as in 'bar0.channel[2]'. Default: all."
        ),
    ] = None,
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="Time between two looks, from 0.1.")] = 1.0,
    driver: DriverText = None,
    force: Annotated[bool, typer.Option("--force", help="Allow writes even if a kernel driver has DEVICE.")] = False,
) -> None:
    """Show registers, interrupts a second, link and errors on a screen.

    What changed since the last look is marked. Registers that a read changes are read only when you say so, and a write
    is made after you confirmed it. The bottom line shows the keys. Without a driver that knows the registers, the
    screen shows the header of the configuration space.
    """
    from pyuio.inspect.health import health
    from pyuio.inspect.inspection import Inspection
    from pyuio.pci.discovery import find

    if not 0.1 <= interval <= 86400:  # refuses NaN as well
        raise typer.BadParameter(f"{interval} is not a number of seconds from 0.1 to 86400", param_hint="--interval")
    with usage():
        found = find(device)
        _require_terminal()
    screen_of = screen_class()
    with Inspection(found) as inspection:
        view = live_view(inspection, place, driver, partial(health, found, inspection))
        view.look()
        screen = screen_of(view, interval, (lambda _device: None) if force else refuse_held)
        screen.run()
    if screen.ended is not None:
        raise screen.ended


def screen_class() -> type[Watch]:
    """Return the class of the screen. TextualUnavailableError: textual is not installed."""
    try:
        from pyuio.cli.watch_screen import Watch
    except ImportError as error:
        reason = f"pyuio watch needs textual ({error}): pip install 'pyuio-framework[watch]'"
        raise TextualUnavailableError(reason) from error
    return Watch


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        raise ValueError("pyuio watch needs a terminal (over ssh: ssh -t); pyuio read --watch prints changes to a file")


def live_view(inspection: Inspection, text: str | None, driver: str | None, health: Callable[[], Health]) -> LiveView:
    """Return the view of the registers that the command line names.

    Args:
        inspection: the device.
        text: a BAR, a map, or a part of its names; None for all that the driver names.
        driver: names the driver, as `pyuio.inspect.chosen_driver.load` takes it; None for an installed one.
        health: as `LiveView` takes it.

    Raises:
        MappingError: there is nothing to watch.
    """
    from pyuio.inspect.cells import register_map, registers_within
    from pyuio.inspect.chosen_driver import driver_of
    from pyuio.inspect.live import LiveView, watched, watched_header
    from pyuio.inspect.location import parse_location

    with usage():
        place = None if text is None else parse_location(text)
        if place is not None and place.offset:
            raise ValueError(f"pyuio watch shows registers by name: {place.space}, without an offset")
        if place is None:
            maps = maps_of(inspection, driver)
            chosen = [(parse_location(space), [*kind.walk()]) for space, kind in maps.items()]
        elif place.is_config:
            maps, chosen = {}, []
        else:
            maps = {place.space: register_map(driver_of(inspection, driver), inspection.where(place))}
            chosen = [(place, registers_within(maps[place.space], place.name))]
            if chosen[0][1][0].field is not None:
                raise ValueError(f"{text!r} is a field; name its register")
    if not maps and not inspection.has_config:
        raise MappingError(0, f"no installed driver knows registers of {inspection.name}; name one by --driver")
    registers = [one for where, infos in chosen for one in watched(inspection, where, infos)]
    return LiveView(inspection, registers or watched_header(inspection), maps, health)
