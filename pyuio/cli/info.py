# SPDX-License-Identifier: MIT
"""``pyuio info``: show everything about one device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from pyuio.cli.arguments import Device, Json, usage
from pyuio.cli.listing import JSON_FORMAT, in_words
from pyuio.cli.output import columns, console, print_json

app = typer.Typer()

EPILOG = (
    "Exit status: 0, even if this user may not see everything (the output says what is missing); 1 when there is no "
    "such device."
)


@app.command(epilog=EPILOG)
def info(device: Device, as_json: Json = False) -> None:
    """Show everything about one device.

    That is its identity, link, configuration space, BARs, and UIO maps; the driver that pyuio.open(bind=True) would
    take, and why; its IOMMU group, and what VFIO makes of the configuration space. The command changes nothing.
    Without privilege the kernel shows only the first 64 bytes of the configuration space.
    """
    from pyuio.cli.description import description
    from pyuio.pci.discovery import find

    with usage():
        found = find(device)
    described = description(found)
    if as_json:
        print_json({"format": JSON_FORMAT, **described})
    else:
        show(described, console())


def show(described: dict[str, Any], output: Console) -> None:
    """Print what `pyuio.cli.description.description` returned."""
    title = " ".join(filter(None, (described["name"], described["ids"], in_words(described))))
    output.print(Text(title, style="bold"))
    _pairs(output, _identity(described))
    if described["configuration"]:
        _heading(output, "Configuration space")
        _pairs(output, _header(described["configuration"]))
    if described["bars"]:
        _heading(output, "BARs")
        _table(output, ("bar", "kind", "width", "prefetchable", "size", "address"), map(_bar, described["bars"]))
    if described["capabilities"]:
        _heading(output, "Capabilities")
        _table(output, ("offset", "id", "name", "registers"), map(_capability, described["capabilities"]))
    if described["virtualised"]:
        _heading(output, "Configuration space as VFIO shows it")
        _pairs(output, ((each["place"], each["what"]) for each in described["virtualised"]))
    if described["node"] and described["node"]["maps"]:
        _heading(output, f"Maps of {described['node']['path']}")
        _table(output, ("map", "name", "size", "address", "offset"), map(_map, described["node"]["maps"]))
    if described["missing"]:
        _heading(output, "Missing")
        for line in described["missing"]:
            output.print(Text(f"  {line}", style="yellow"))


def _heading(output: Console, text: str) -> None:
    output.print(Text(f"\n{text}", style="bold"))


def _pairs(output: Console, pairs: Iterable[tuple[str, str | None]]) -> None:
    table = columns()
    for name, value in pairs:
        if value is not None:
            table.add_row(Text(f"  {name}", style="dim"), Text(value))
    output.print(table)


def _table(output: Console, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = columns(f"  {headings[0]}", *headings[1:])
    for first, *others in rows:
        table.add_row(Text(f"  {first}"), *map(Text, others))
    output.print(table)


def size(octets: int) -> str:
    """Return a size in the largest unit that divides it: "4 KiB", "16 MiB", "256 bytes"."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if octets and octets % (1 << shift) == 0:
            return f"{octets >> shift} {unit}"
    return f"{octets} bytes"


def _identity(described: dict[str, Any]) -> list[tuple[str, str | None]]:
    could, node = described["could_drive"], described["node"]
    is_pci = described["address"] is not None
    return [
        ("kernel driver", described["driver"] or described["being_taken"] or "none"),
        ("could be", _could_be(could) if is_pci else None),
        ("pyuio driver", ", ".join(could["pyuio"]) or "none installed"),
        ("open binds", _open_binds(described["open_binds"])),
        ("node", f"/dev/{described['vfio']}" if described["vfio"] else _node(described["nodes"], node)),
        ("device tree", _device_tree(described)),
        ("caches", _COHERENT.get(described["coherent"])),
        ("interrupt", described["interrupt"]["text"] if described["interrupt"] else None),
        ("vectors", _vectors(described["vectors"])),
        ("resets", (", ".join(described["resets"]) or "none") if is_pci else None),
        ("IOMMU group", _group(described)),
        ("NUMA node", None if described["numa_node"] is None else str(described["numa_node"])),
        ("power state", described["power_state"]),
        ("link", described["link"] and described["link"]["text"]),
        ("link errors", described["link_errors"] and described["link_errors"]["text"]),
        ("port above", _port(described["port"])),
    ]


def _port(port: dict[str, Any] | None) -> str | None:
    """Return the other end of the link; None if there is none, or a bridge without a link."""
    if port is None or port["link"] is None:
        return None
    errors = f"; errors: {port['link_errors']['text']}" if port["link_errors"] else ""
    return f"{port['address']}, {port['link']['text']}{errors}"


_COHERENT = {True: "follow the device (dma-coherent)", False: "do not follow the device (no dma-coherent)"}


def _device_tree(described: dict[str, Any]) -> str | None:
    kinds = ", ".join(described["compatible"])
    return described["device_tree"] and f"{described['device_tree']}{f' ({kinds})' if kinds else ''}"


def _open_binds(chosen: dict[str, Any] | None) -> str | None:
    return None if chosen is None else f"{chosen['driver']}: {chosen['reason']}"


def _vectors(vectors: dict[str, int] | None) -> str | None:
    return None if vectors is None else ", ".join(f"{kind} {count}" for kind, count in vectors.items()) or "none"


def _group(described: dict[str, Any]) -> str:
    group, kind = described["iommu_group"], described["iommu_group_type"]
    if not group:
        return "none"
    others = ", ".join(f"{one['address']} ({one['driver'] or 'no driver'})" for one in described["iommu_group_others"])
    return f"{group}{f' ({kind})' if kind else ''}{f'; with {others}' if others else ''}"


def _node(names: list[str], node: dict[str, Any] | None) -> str:
    if node is None:
        return f"{', '.join(names)}; name one to see it" if names else "none"
    others = [name for name in names if f"/dev/{name}" != node["path"]]
    beside = f"; beside {', '.join(others)}" if others else ""
    return f"{node['path']} ({node['driver_name']}), {node['event_count']} interrupts{beside}"


def _could_be(could: dict[str, list[str]]) -> str:
    generic = f"{', '.join(could['generic'])} on request" if could["generic"] else ""
    return "; ".join(filter(None, (", ".join(could["kernel"]), generic))) or "no other that is here"


def _header(configuration: dict[str, Any]) -> list[tuple[str, str | None]]:
    command, status = configuration["command"], configuration["status"]
    functions = "one of several functions" if configuration["multi_function"] else "the only function"
    pin = configuration["interrupt_pin"]
    pin_text = "none" if pin == 0 else f"INT{'ABCD'[pin - 1]}#" if pin <= 4 else f"{pin:#04x}"
    return [
        ("command", f"{command['value']:04x}: {', '.join(command['bits']) or 'no bits'}"),
        ("status", f"{status['value']:04x}: {', '.join(status['bits']) or 'no bits'}; DEVSEL {status['devsel']}"),
        ("revision", f"{configuration['revision']:02x}"),
        ("subsystem", configuration["subsystem_ids"]),
        ("header", f"type {configuration['header_type']}, {functions}"),
        ("cache line", f"{configuration['cache_line_size']} words of 32 bits"),
        ("latency timer", str(configuration["latency_timer"])),
        ("interrupt", f"pin {pin_text}, line {configuration['interrupt_line']:#04x}"),
    ]


def _bar(bar: dict[str, Any]) -> tuple[str, ...]:
    address = f"{bar['address']:#x}" if bar["address"] else "none assigned"
    prefetchable = "yes" if bar["prefetchable"] else "no"
    return str(bar["index"]), bar["kind"], f"{bar['width']}-bit", prefetchable, size(bar["size"]), address


def _capability(capability: dict[str, Any]) -> tuple[str, ...]:
    digits = 4 if capability["extended"] else 2
    name = capability["name"] + (f" v{capability['version']}" if capability["extended"] else "")
    words = (f"{key.replace('_', ' ')} {_value(key, value)}" for key, value in capability["details"].items())
    return f"{capability['offset']:03x}", f"{capability['id']:0{digits}x}", name, ", ".join(words)


def _value(key: str, value: int | str | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:#x}" if key.endswith(("_offset", "_id")) else str(value)


def _map(item: dict[str, Any]) -> tuple[str, ...]:
    return str(item["index"]), item["name"] or "-", size(item["size"]), f"{item['address']:#x}", f"{item['offset']:#x}"
