# SPDX-License-Identifier: MIT
"""Which routes go through the network interfaces of a PCI function, directly or over bridges, bonds and VLANs.

Source: Documentation/ABI/testing/sysfs-class-net (``ifindex``, ``master``, ``upper_*``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyuio.kernel.drivers import USER_SPACE_DRIVERS
from pyuio.kernel.sysfs import link_name, read_optional_number

_NET = Path("/sys/class/net")
_NETWORK_CLASS = 0x02  # base class, PCI Code and ID Assignment Specification


def interfaces(function: Path) -> list[str]:
    """Return the names of a function's network interfaces in this network namespace.

    Args:
        function: its directory in sysfs, resolved.
    """
    return sorted(entry.name for entry in _NET.iterdir() if entry.resolve().is_relative_to(function))


def _above(name: str, seen: set[str]) -> Iterator[str]:
    """Yield an interface and the interfaces that are stacked on it: VLANs, bonds, bridges."""
    if name in seen:
        return
    seen.add(name)
    yield name
    for entry in sorted((_NET / name).glob("upper_*")):
        yield from _above(entry.name.removeprefix("upper_"), seen)


def network_uses(function: Path, class_code: int) -> list[str]:
    """Return a sentence for each use of the network interfaces of a function.

    Args:
        function: its directory in sysfs, resolved.
        class_code: 24 bits, base class first.
    """
    own = interfaces(function)
    driver = link_name(function / "driver")
    if class_code >> 16 == _NETWORK_CLASS and not own and driver and driver not in USER_SPACE_DRIVERS:
        return [
            f"{driver} drives it, but no interface is here; another network namespace, as a container's, may have it"
        ]
    reasons = []
    by_interface: dict[int, list[str]] = {}
    if own:
        from pyuio.claim.network_routes import routes

        for route in routes():
            for index in route.interfaces:
                by_interface.setdefault(index, []).append(route.destination)
    for name in own:
        if master := link_name(_NET / name / "master"):
            reasons.append(f"{name} belongs to {master}")
        for upper in _above(name, set()):
            destinations = by_interface.get(read_optional_number(_NET / upper / "ifindex"))
            if destinations:
                over = "" if upper == name else f" (on {name})"
                reasons.append(f"{upper}{over} carries the route {', '.join(dict.fromkeys(destinations))}")
    return reasons
