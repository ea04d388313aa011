# SPDX-License-Identifier: MIT
"""``pyuio irq``: print a device's interrupts as they come."""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from pyuio.cli.arguments import Device, usage
from pyuio.cli.output import print_line
from pyuio.errors import DeviceTimeoutError, DriverNotBoundError

if TYPE_CHECKING:
    from pyuio.device import Device as OpenDevice
    from pyuio.pci.discovery import FoundDevice

EPILOG = (
    "Ends with 0 after --count interrupts, with 1 when they did not come within --timeout, or the device or the kernel "
    "refuses; with 2 for wrong usage, with 130 when Ctrl-C ended it. The interrupt is masked afterwards."
)
_LOOK = 0.001  # seconds between looks at an interrupt that nobody has acknowledged
_IN_VAIN = 10  # acknowledgements in a row after which the line is raised all the same: more are no new interrupts


def irq(
    device: Device,
    count: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after so many interrupts; without it, at Ctrl-C.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up, with status 1, after this long without an interrupt."),
    ] = None,
    acknowledge: Annotated[
        str | None, typer.Option(metavar="PLACE=VALUE", help="Acknowledge each by a 32-bit write: bar0+0x64=0xff.")
    ] = None,
    use_driver: Annotated[
        bool, typer.Option("--driver/--no-driver", help="Have an installed driver set the device up and acknowledge.")
    ] = True,
    json_wanted: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each.")] = False,
) -> None:
    """Print interrupts as they come.

    A line has how many came so far, how many of them at once, and seconds since the last. DEVICE must be bound to a UIO
    driver. A device raises its line until it is told that its interrupt was seen: by its installed driver (pyuio
    probe), by --acknowledge, or by you with pyuio write; only then the next is waited for.
    """
    from pyuio.device import Device as Opened
    from pyuio.pci.discovery import find

    if timeout is not None and not 0 < timeout < 1e9:
        raise typer.BadParameter(f"{timeout} is not a number of seconds above 0", param_hint="--timeout")
    with usage():
        found = find(device)
    _require_uio(found)
    with Opened(found) as opened:
        opened.interrupt.pending  # noqa: B018 - whether it has one, before anything is done
        tell = _acknowledger(opened, acknowledge, use_driver)
        total, last, in_vain = 0, None, 0
        if not json_wanted:
            print_line("   total   count  seconds since the last")
        while count is None or total < count:
            try:
                came = opened.interrupt.read(timeout)
            except DeviceTimeoutError:
                reason = f"{opened.name}: no interrupt came for {timeout:g} s; {total} before"
                raise DeviceTimeoutError(errno.ETIMEDOUT, reason) from None
            now = time.monotonic()
            total += came
            _show(total, came, None if last is None else now - last, json_wanted)
            last = now
            if tell is not None:
                tell()
            # Raised again already, it interrupts once it is waited for.
            in_vain = in_vain + 1 if _still_raises(opened) else 0
            if (count is None or total < count) and in_vain >= (1 if tell is None else _IN_VAIN):
                _wait_until_acknowledged(opened, tell, timeout)
                in_vain = 0


def _require_uio(found: FoundDevice) -> None:
    if found.uio is None:
        holder = f"the kernel driver {found.driver} has it" if found.driver else "no driver has it"
        reason = f"{found.name} has no UIO driver, which counts interrupts ({holder}); first: pyuio bind {found.name}"
        raise DriverNotBoundError(errno.ENODEV, reason)


def _show(total: int, count: int, since: float | None, json_wanted: bool) -> None:
    if json_wanted:
        line = {"total": total, "count": count, "time": time.time(), "seconds_since_last": since}
        print_line(json.dumps(line))
    else:
        print_line(f"{total:8}{count:8}  {'-' if since is None else f'{since:.6f}'}")


def _acknowledger(device: OpenDevice, place_and_value: str | None, use_driver: bool) -> Callable[[], object] | None:
    """Return what tells the device that its interrupt was seen; None where nobody knows how."""
    from pyuio.errors import DriverNotFoundError
    from pyuio.inspect.location import parse_location, parse_number
    from pyuio.installed_drivers import driver_for

    if place_and_value is not None:
        with usage():
            text, _equals, number = place_and_value.partition("=")
            place = parse_location(text)
            value = parse_number(number, "the value after =")
            if place.bar is None or place.name:
                raise ValueError(f"--acknowledge writes to a BAR, as in bar0+0x64=1; not {place_and_value!r}")
            region = device.bar(place.bar)
            if value > 0xFFFFFFFF or place.offset % 4 or place.offset + 4 > region.size:
                raise ValueError(f"--acknowledge {place_and_value}: not a 32-bit register of {region.name}, or value")
        return lambda: region.write32(place.offset, value)
    if use_driver:
        try:
            driver = driver_for(device.ids, device.class_code)(device)
        except DriverNotFoundError:
            return None
        if driver.supplies("acknowledge"):
            return driver.acknowledge
    return None


def _still_raises(device: OpenDevice) -> bool:
    """Return whether the device raises its line: Interrupt Status, bit 3 of the status register, says so.

    Source: PCI Local Bus Specification 3.0, section 6.2.3.
    """
    from pyuio.pci.config_image import Status

    return device.address is not None and Status.INTERRUPT_STATUS in device.config.status


def _wait_until_acknowledged(device: OpenDevice, tell: Callable[[], object] | None, timeout: float | None) -> None:
    """Wait until the device does not raise its line any more: unmasked before, it would interrupt without end.

    Args:
        device: what raises it.
        tell: what was to acknowledge it, and is tried again; None where the user is to.
        timeout: seconds, None for ever.
    """
    told = "nothing told it that it was seen" if tell is None else f"acknowledged {_IN_VAIN} times, in vain"
    advice = "tell it with pyuio write, or with --acknowledge; waiting for that"
    print(f"pyuio: {device.name} still raises its interrupt: {told}; {advice}", file=sys.stderr)
    deadline = None if timeout is None else time.monotonic() + timeout
    while _still_raises(device):
        if deadline is not None and time.monotonic() >= deadline:
            reason = f"{device.name}: its interrupt was not acknowledged within {timeout:g} s"
            raise DeviceTimeoutError(errno.ETIMEDOUT, reason)
        time.sleep(_LOOK)
        if tell is not None:
            tell()
