# SPDX-License-Identifier: MIT
"""The device tree that the kernel was started with: which of its nodes a device is, and what that says of the device.

There is none on a PC. Sources: Documentation/ABI/testing/sysfs-firmware-ofw; Devicetree Specification 0.4, sections 2.2
(paths, labels), 2.3.1 (compatible) and 3.3 (aliases).
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from pyuio.kernel.sysfs import link_name

BASE = Path("/sys/firmware/devicetree/base")
_MOST = 64  # nodes from one to the root


def _strings(path: Path) -> tuple[str, ...]:
    """Return a property that is a list of strings, each with a zero byte at its end; () if there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("ascii", "replace") for part in data.split(b"\0") if part)


def _cells(path: Path) -> tuple[int, ...]:
    """Return a property that is a list of numbers of 32 bits; () if there is none."""
    try:
        return tuple(number for (number,) in struct.iter_unpack(">I", path.read_bytes()))
    except (OSError, struct.error):
        return ()


def node_of(directory: Path) -> Path | None:
    """Return the node of a device, as a directory of `BASE`; None if it has none.

    Args:
        directory: of the device in sysfs.
    """
    try:
        return (directory / "of_node").resolve(strict=True)
    except OSError:
        return None


def path_of(directory: Path) -> str | None:
    """Return the path of a device's node, as in ``/pl031@9010000``; None if it has none."""
    node = node_of(directory)
    root = os.path.realpath(BASE)
    return str(node).removeprefix(root) if node is not None and str(node).startswith(f"{root}/") else None


def compatible(directory: Path) -> tuple[str, ...]:
    """Return what a device is compatible with, the most specific first; () if the device tree does not have it."""
    node = node_of(directory)
    return () if node is None else _strings(node / "compatible")


def resolve(name: str) -> str | None:
    """Return the path of the node that a name means; None if there is no such node.

    Args:
        name: a path, an alias, or a label. The tree has labels if it was compiled with them: ``dtc -@``.
    """
    if "\0" in name:
        return None
    if not name.startswith("/"):
        if "/" in name or name in ("", ".", ".."):
            return None
        found = _strings(BASE / "aliases" / name) or _strings(BASE / "__symbols__" / name)
        if not found:
            return None
        name = found[0]
    node = os.path.realpath(f"{BASE}{name}")
    root = os.path.realpath(BASE)
    return node.removeprefix(root) if node.startswith(f"{root}/") and Path(node).is_dir() else None


def _host_bridge(function: Path) -> Path | None:
    """Return the node of the host bridge above a PCI function; None if it has none."""
    # /sys/devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0
    bridge = next((parent for parent in function.resolve().parents if parent.name.startswith("pci")), None)
    return None if bridge is None else node_of(bridge.parent)


def stream_id(function: Path) -> int | None:
    """Return the number by which an IOMMU knows a PCI function, by the device tree; None if it has none for it.

    The host bridge's node has a table of them, ``iommu-map``: a function's requester id is its bus, device and
    function, 8, 5 and 3 bits. Source: Documentation/devicetree/bindings/pci/pci-iommu.txt of the kernel.

    Args:
        function: its directory in sysfs.
    """
    bridge = _host_bridge(function)
    if bridge is None or (numbers := re.fullmatch(r"\w+:(\w\w):(\w\w)\.(\w)", function.name)) is None:
        return None
    bus, device, part = (int(number, 16) for number in numbers.groups())
    requester = bus << 8 | device << 3 | part
    for mask in _cells(bridge / "iommu-map-mask"):
        requester &= mask
    rows = [iter(_cells(bridge / "iommu-map"))] * 4
    for first, _iommu, stream, length in zip(*rows, strict=False):
        if first <= requester < first + length:
            return int(stream + requester - first)
    return None


def is_coherent(directory: Path) -> bool | None:
    """Return whether caches follow a device's accesses to memory, by the device tree's word.

    That is the property ``dma-coherent`` or ``dma-noncoherent`` of its node, or of the nearest above that has one. A
    PCI function has that of its host bridge. Source: of_dma_is_coherent in drivers/of/address.c, pci_dma_configure in
    drivers/pci/pci-driver.c.

    Args:
        directory: of the device in sysfs.

    Returns:
        None if no node stands for the device, as on a PC, or the tree says nothing and the processor is no ARM.
    """
    node = _host_bridge(directory) if link_name(directory / "subsystem") == "pci" else node_of(directory.resolve())
    if node is None:
        return None
    root = os.path.realpath(BASE)
    for place in [node, *node.parents][:_MOST]:
        if (place / "dma-coherent").exists():
            return True
        if (place / "dma-noncoherent").exists():
            return False
        if str(place) == root:
            break
    # Without a word, the kernel takes all devices on ARM for such (arch_setup_dma_ops in arch/arm64/mm/dma-mapping.c).
    return False if os.uname().machine.startswith(("arm", "aarch64")) else None
