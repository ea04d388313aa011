# SPDX-License-Identifier: MIT
"""``pyuio irq``: print a device's interrupts as they arrive."""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.output import print_line, say
from pyuio.errors import DeviceBusyError, DeviceTimeoutError, DriverNotBoundError, DriverNotFoundError
from pyuio.kernel.drivers import VFIO_PCI

if TYPE_CHECKING:
    from pyuio.device import Device as OpenDevice
    from pyuio.driver import Driver
    from pyuio.interrupt import Interrupt
    from pyuio.pci.discovery import FoundDevice

app = typer.Typer()

EPILOG = (
    "Exit status: 0 after --count interrupts; 1 when none came within --timeout, or the device or the kernel refuses; "
    "2 for wrong usage; 130 when Ctrl-C ended it. The interrupt is masked afterwards."
)
_LOOK = 0.001  # seconds between two looks at an interrupt that nobody has acknowledged
_IN_VAIN = 10  # if the line is still raised after so many acknowledgements in a row, these are no new interrupts


@app.command(epilog=EPILOG)
def irq(
    device: Device,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after N interrupts. Default: at Ctrl-C.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up, with status 1, after SECONDS without an interrupt."),
    ] = None,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE=VALUE", help="Acknowledge by a 32-bit write, as bar0+0x64=0xff; several are made in order."
        ),
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Take N message interrupts (MSI-X, MSI) instead of INTx; by vfio-pci."),
    ] = None,
    driver: Annotated[
        str | None,
        typer.Option(
            "--driver", metavar="FILE.py:CLASS", help="The driver that sets up and acknowledges. Default: installed."
        ),
    ] = None,
    no_driver: Annotated[bool, typer.Option("--no-driver", help="Have no driver set the device up.")] = False,
    json_wanted: Annotated[bool, typer.Option("--json", help="Print JSON, one line for each.")] = False,
) -> None:
    """Print interrupts as they arrive.

    Each line shows the interrupts so far, those since the last line, and the seconds since then; with --vectors, also
    the vector. DEVICE must be bound to a UIO driver or to vfio-pci. A device raises its INTx line until somebody
    acknowledges its interrupt: its installed driver (pyuio probe), --acknowledge, or you with pyuio write. Only then
    the command waits for the next.
    """
    from pyuio.device import Device as Opened
    from pyuio.pci.discovery import find

    if timeout is not None and not 0 < timeout < 1e9:
        raise typer.BadParameter(f"{timeout} is not a number of seconds above 0", param_hint="--timeout")
    if driver is not None and (no_driver or acknowledge):
        other = "--no-driver" if no_driver else "--acknowledge"
        raise typer.BadParameter(f"it does not go with {other}", param_hint="--driver")
    with usage():
        found = find(device)
    _require_driver(found)
    with Opened(found) as opened, contextlib.ExitStack() as ending:
        made: Driver | None
        kind = None if no_driver or acknowledge else _driver_of(opened, driver)
        if kind is not None and kind.vectors:
            if vectors not in (None, kind.vectors):
                raise typer.BadParameter(f"{kind.__name__} takes {kind.vectors} by itself", param_hint="--vectors")
            vectors = kind.vectors
            card = ending.enter_context(kind(opened))  # its end leaves the card quiet
            made, interrupts = card, card.interrupts
        else:
            interrupts = (opened.interrupt,) if vectors is None else opened.vectors(vectors)
            interrupts[0].pending  # noqa: B018 - raises at once if the device has no interrupt
            made = None if kind is None else ending.enter_context(kind(opened))
        tell = _acknowledger(opened, acknowledge, made)
        total, last, in_vain = 0, None, 0
        if tell is None and opened.address is None:  # of a card, configuration space tells whether it still interrupts
            say(f"{opened.name}: nothing acknowledges its interrupt; if it comes without end, give --acknowledge")
        if not json_wanted:
            print_line("   total   count  seconds since the last" + ("" if vectors is None else "  vector"))
        while count is None or total < count:
            try:
                vector, came = _next(interrupts, timeout)
            except DeviceTimeoutError:
                reason = f"{opened.name}: no interrupt came for {timeout:g} s; {total} before"
                raise DeviceTimeoutError(errno.ETIMEDOUT, reason) from None
            now = time.monotonic()
            total += came
            _show(total, came, None if last is None else now - last, None if vectors is None else vector, json_wanted)
            last = now
            if tell is not None:
                tell()
            if interrupts[0].kind not in (None, "INTx"):
                continue  # a message is sent once
            # A line that is raised again already interrupts as soon as the loop waits for it.
            in_vain = in_vain + 1 if _still_raises(opened) else 0
            if (count is None or total < count) and in_vain >= (1 if tell is None else _IN_VAIN):
                _wait_until_acknowledged(opened, tell, timeout)
                in_vain = 0


def _require_driver(found: FoundDevice) -> None:
    from pyuio.claim import choice, group_users

    if choice.present_driver(found) is None:
        if taking := group_users.taking(found.directory):
            raise DeviceBusyError(errno.EBUSY, f"{found.name}: {taking}")
        holder = f"the kernel driver {found.driver} has it" if found.driver else "no driver has it"
        reason = f"{found.name} has no driver to count its interrupts for user space ({holder})"
        raise DriverNotBoundError(errno.ENODEV, f"{reason}; first: pyuio bind {found.name}")


def _next(interrupts: tuple[Interrupt, ...], timeout: float | None) -> tuple[int, int]:
    """Wait for the next interrupt, and return the number of its vector and its count since the last read.

    Raises:
        DeviceTimeoutError: none came in time.
    """
    from pyuio.interrupt.wait import wait

    if len(interrupts) == 1:
        return 0, interrupts[0].read(timeout)
    ready = wait(interrupts, timeout)
    if not ready:
        raise DeviceTimeoutError(errno.ETIMEDOUT, "no interrupt")
    return interrupts.index(ready[0]), ready[0].read(0)


def _show(total: int, count: int, since: float | None, vector: int | None, json_wanted: bool) -> None:
    if json_wanted:
        line = {"total": total, "count": count, "time": time.time(), "seconds_since_last": since}
        print_line(json.dumps(line if vector is None else {**line, "vector": vector}))
    else:
        seconds = "-" if since is None else f"{since:.6f}"
        print_line(f"{total:8}{count:8}  {seconds if vector is None else f'{seconds:<22}{vector:8}'}")


def _driver_of(device: OpenDevice, text: str | None) -> type[Driver] | None:
    """Return the driver that `text` names, or the installed one that serves the device, if there is one."""
    from pyuio.inspect.chosen_driver import driver_of

    try:
        return driver_of(device, text)
    except DriverNotFoundError:
        if text is not None:
            raise
        return None


def _acknowledger(device: OpenDevice, writes: list[str] | None, driver: Driver | None) -> Callable[[], object] | None:
    """Return the function that acknowledges an interrupt to the device; None if neither option nor driver has one."""
    if writes:
        made = [_write(device, one) for one in writes]
        return lambda: [write() for write in made]
    return driver.acknowledge if driver is not None and driver.supplies("acknowledge") else None


def _write(device: OpenDevice, place_and_value: str) -> Callable[[], object]:
    """Return the function that makes one write of --acknowledge."""
    from pyuio.inspect.location import parse_location, parse_number

    with usage():
        text, _equals, number = place_and_value.partition("=")
        place = parse_location(text)
        value = parse_number(number, "the value after =")
        if place.is_config or place.name:
            raise ValueError(f"--acknowledge writes to a BAR or map, as in bar0+0x64=1; not {place_and_value!r}")
        region = device.map(place.map) if place.bar is None else device.bar(place.bar)
        if value > 0xFFFFFFFF or place.offset % 4 or place.offset + 4 > region.size:
            raise ValueError(f"--acknowledge {place_and_value}: not a 32-bit register of {region.name}, or value")
    return lambda: region.write32(place.offset, value)


def _still_raises(device: OpenDevice) -> bool:
    """Return whether the device raises its line: the bit Interrupt Status, bit 3 of the status register.

    Source: PCI Local Bus Specification 3.0, section 6.2.3.
    """
    from pyuio.pci.config_image import Status

    return device.address is not None and Status.INTERRUPT_STATUS in device.config.status


def _wait_until_acknowledged(device: OpenDevice, tell: Callable[[], object] | None, timeout: float | None) -> None:
    """Wait until the device stops raising its line: if it were unmasked before, it would interrupt without end.

    Args:
        device: the device that raises it.
        tell: the function that acknowledges, which is called again; None if the user is to acknowledge.
        timeout: seconds, None for ever.
    """
    told = "nothing told it that it was seen" if tell is None else f"acknowledged {_IN_VAIN} times, in vain"
    by_vfio = "start with --acknowledge, because by VFIO no other program reaches its registers; waiting in vain"
    advice = "acknowledge it with pyuio write, or start with --acknowledge; waiting for that"
    say(f"{device.name} still raises its interrupt: {told}; {by_vfio if device.driver == VFIO_PCI else advice}")
    deadline = None if timeout is None else time.monotonic() + timeout
    while _still_raises(device):
        if deadline is not None and time.monotonic() >= deadline:
            reason = f"{device.name}: its interrupt was not acknowledged within {timeout:g} s"
            raise DeviceTimeoutError(errno.ETIMEDOUT, reason)
        time.sleep(_LOOK)
        if tell is not None:
            tell()
