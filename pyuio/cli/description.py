# SPDX-License-Identifier: MIT
"""The data that `info` shows of a device, in the form that docs/command-line.md describes for ``--json``.

Numbers are numbers, ids are text, and null stands for what does not exist.
"""

from __future__ import annotations

import errno
from contextlib import closing
from pathlib import Path
from typing import Any

from pyuio.claim import choice, group_users
from pyuio.cli.summary import summary
from pyuio.errors import DeviceRemovedError, DriverLoadError, PermissionDeniedError, PyuioError
from pyuio.installed_drivers import drivers_for
from pyuio.kernel import device_tree, vfio
from pyuio.kernel.drivers import VFIO_PCI, generic_drivers, matching_modules
from pyuio.kernel.sysfs import read_optional, read_text
from pyuio.kernel.uio import UioNode
from pyuio.pci.aer import LinkErrors, is_counted, ports_above, read_link_errors
from pyuio.pci.bars import parse_resources
from pyuio.pci.capability_details import details
from pyuio.pci.config_image import ConfigImage
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice
from pyuio.pci.link import read_link
from pyuio.pci.reset import methods
from pyuio.pci.virtualised import virtualised

_DEVSEL = ("fast", "medium", "slow", "reserved")
_CONFIGURATION_LENGTHS = (64, 256, 4096)


def configuration(directory: Path) -> ConfigImage | PermissionDeniedError:
    """Read the part of a function's configuration space that this user may see; return the error if that is none.

    Raises:
        DeviceRemovedError: the function is gone.
    """
    try:
        with closing(ConfigSpace(directory)) as config:
            lengths = [length for length in _CONFIGURATION_LENGTHS if length <= config.size]
            if not lengths:
                raise DeviceRemovedError(errno.ENODEV, f"the {config.name} has {config.size} bytes: it is gone")
            return ConfigImage(config.read(0, lengths[-1]), config.name)
    except PermissionDeniedError as error:
        return error


def _text(path: Path) -> str | None:
    try:
        return read_optional(path)
    except PyuioError:  # not for this user
        return None


def description(found: FoundDevice) -> dict[str, Any]:
    """Return the data that `info` shows of a device. DeviceRemovedError: it is gone."""
    try:
        return _description(found)
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"{found.name} is gone: it was removed") from error


def _description(found: FoundDevice) -> dict[str, Any]:
    config = None if found.address is None else configuration(found.directory)
    serving, failures = drivers_for(found.ids, found.class_code, found.uio_name, found.compatible)
    node = int(_text(found.directory / "numa_node") or "-1")
    is_pci = found.address is not None
    described = {
        **summary(found),
        "iommu_group_type": _text(found.directory / "iommu_group/type"),
        "iommu_group_others": _group_others(found),
        "being_taken": group_users.taking(found.directory) if is_pci else None,
        "open_binds": _open_binds(found) if is_pci else None,
        "coherent": device_tree.is_coherent(found.directory),
        "numa_node": None if node < 0 else node,
        "power_state": None,
        **_link(found.directory, config if isinstance(config, ConfigImage) else None),
        "port": _port(found.directory) if is_pci else None,
        "could_drive": {
            "kernel": list(matching_modules(found.directory)) if is_pci else [],
            "generic": list(generic_drivers()) if is_pci else [],
            "pyuio": [str(driver) for driver in serving],
        },
        "node": _node(found),
        "bars": [],
        "configuration": None,
        "capabilities": [],
        "vectors": None,
        "resets": list(methods(found.directory)) if is_pci else [],
        "virtualised": [],
        "missing": [_driver_missing(error) for error in failures],
    }
    if config is not None:
        described["bars"] = [bar._asdict() for bar in parse_resources(read_text(found.directory / "resource"))]
        if isinstance(config, ConfigImage):
            described["configuration"] = _header(config)
            described["capabilities"] = _capabilities(config)
            described["vectors"] = _vectors(described["capabilities"])
            if found.driver == VFIO_PCI:
                described["virtualised"] = [each._asdict() for each in virtualised(config)]
        described["power_state"] = _power_state(found.directory, described["capabilities"])
        described["missing"] += _missing(found, config)
    return described


def _link(directory: Path, config: ConfigImage | None) -> dict[str, Any]:
    """Return the PCI Express link of a function, and the errors that it has reported."""
    link, errors = read_link(directory), read_link_errors(directory)
    if errors is None:
        told = None
    else:
        told = _errors(errors, is_counted(directory), None if config is None else config.reports_errors)
    return {"link": link and {**vars(link), "text": str(link)}, "link_errors": told}


def _errors(errors: LinkErrors, counted: bool, reported: bool | None) -> dict[str, Any]:
    if counted:
        why = "" if reported is not False else "; the device is set up not to report them"
    else:
        why = "; the kernel does not get them"
    return {
        "counted": counted,
        "reported": reported,
        **{severity: each._asdict() for severity, each in errors._asdict().items()},
        "text": f"{errors}{why}",
    }


def _port(directory: Path) -> dict[str, Any] | None:
    """Return the other end of a function's link: the port above it."""
    port = next(ports_above(directory), None)
    return None if port is None else {"address": port.name, **_link(port, None)}


def _group_others(found: FoundDevice) -> list[dict[str, Any]]:
    number = vfio.group_of(found.directory)
    others = [] if number is None else vfio.members(number)
    return [one._asdict() for one in others if one.address != found.address]


def _open_binds(found: FoundDevice) -> dict[str, Any]:
    """Return the driver by which ``pyuio.open(..., bind=True)`` opens a function, and why."""
    present = choice.present_driver(found)
    chosen = choice.choose(found) if present is None else choice.Choice(present, "it has the device already")
    return chosen._asdict()


def _vectors(capabilities: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many interrupts a function has by messages of each kind."""
    return {
        one["name"]: one["details"]["messages"]
        for one in capabilities
        if one["name"] in ("MSI", "MSI-X") and "messages" in one["details"]
    }


def _power_state(directory: Path, capabilities: list[dict[str, Any]]) -> str | None:
    """Return "D0" to "D3cold"; None if neither the kernel nor the function tells the power state."""
    state = _text(directory / "power_state")
    if state not in (None, "unknown"):  # the kernel says "unknown" until a driver has enabled the function
        return state
    states = (capability["details"].get("state") for capability in capabilities)
    return next((str(state) for state in states if state), None)


def _driver_missing(error: DriverLoadError) -> str:
    return f"whether another driver serves it: {error}"


def _missing(found: FoundDevice, config: ConfigImage | PermissionDeniedError) -> list[str]:
    """Return the parts that could not be read, each with the reason."""
    if isinstance(config, PermissionDeniedError):
        return [f"the configuration space: {config.strerror}"]
    size = (found.directory / "config").stat().st_size
    if config.size >= size:
        return []
    what = f"{size - config.size} of the {size} bytes of the configuration space, and with them the capabilities"
    return [f"{what}: the kernel shows them to root only (CAP_SYS_ADMIN)"]


def _node(found: FoundDevice) -> dict[str, Any] | None:
    if found.uio is None:
        return None
    node = UioNode(found.uio)
    return {
        "path": str(node.path),
        "driver_name": node.driver_name,
        "event_count": node.event_count,
        "maps": [item._asdict() for item in node.maps],
    }


def _header(config: ConfigImage) -> dict[str, Any]:
    return {
        "size": config.size,
        "bytes": config.read(0, config.size).hex(),
        "command": {"value": config.read16(0x04), "bits": _words(str(config.command))},
        "status": {
            "value": config.read16(0x06),
            "bits": _words(str(config.status)),
            "devsel": _DEVSEL[config.devsel_timing],
        },
        "revision": config.revision_id,
        "header_type": config.header_type,
        "multi_function": config.multi_function,
        "cache_line_size": config.cache_line_size,
        "latency_timer": config.latency_timer,
        "interrupt_line": config.interrupt_line,
        "interrupt_pin": config.interrupt_pin,
        "subsystem_ids": None
        if config.subsystem_vendor_id is None
        else f"{config.subsystem_vendor_id:04x}:{config.subsystem_id:04x}",
    }


def _words(bits: str) -> list[str]:
    return [] if bits == "0" else bits.split("|")


def _capabilities(config: ConfigImage) -> list[dict[str, Any]]:
    return [
        {
            "offset": capability.offset,
            "id": capability.id,
            "name": capability.name,
            "extended": capability.version is not None,
            "version": capability.version,
            "details": details(config, capability),
        }
        for capability in (*config.capabilities(), *config.extended_capabilities())
    ]
