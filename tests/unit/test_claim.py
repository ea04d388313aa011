# SPDX-License-Identifier: MIT
"""Claiming a device, where another process changes it meanwhile; tests/guest has real devices."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

import pyuio
from pyuio.backend.opening import open_backend
from pyuio.claim import binding
from pyuio.claim.binding_record import BindingRecord
from pyuio.claim.claim import claim
from pyuio.kernel.uio import UioNode
from pyuio.pci.discovery import FoundDevice

claim_module = sys.modules["pyuio.claim.claim"]


@pytest.mark.parametrize("bind", [False, True])
def test_a_node_that_goes_at_this_moment_is_not_bound_anew(
    bind: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device had a UIO driver when it was looked at; whatever comes after that binds nothing."""
    nodes: list[tuple[UioNode, ...]] = [(UioNode("uio0"),), (), ()]
    monkeypatch.setattr(claim_module.UioNode, "of_device", lambda _directory: nodes.pop(0))
    monkeypatch.setattr(claim_module, "bind_driver", lambda *_arguments: pytest.fail("it was bound"))
    claimed = claim(FoundDevice(tmp_path, "0000:00:04.0", "1234:11e8", 0xFF0000, "uio_pci_generic", "uio0"), bind)
    assert [node.name for node in claimed.nodes] == ["uio0"]
    assert claimed.binding is None


@pytest.mark.parametrize("bind", [False, True])
def test_a_platform_device_without_its_driver(bind: bool, tmp_path: Path) -> None:
    found = FoundDevice(tmp_path, None, None, None, None, None)
    with pytest.raises(pyuio.DriverNotBoundError, match="its driver was unbound"):
        claim(found, bind)


def test_a_platform_device_goes_by_no_driver_of_pci_functions(tmp_path: Path) -> None:
    found = FoundDevice(tmp_path, None, None, None, None, None)
    for driver in ("vfio-pci", "uio_pci_generic"):
        with pytest.raises(pyuio.BindingError, match="not a PCI function"):
            open_backend(found, bind=driver, close_parts=lambda: None)


def test_a_device_that_goes_while_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel answers ENODEV, not ENOENT, while it removes a device's files."""
    remembered: list[tuple[str, BindingRecord | None]] = []

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(binding, "_remember", lambda address, record: remembered.append((address, record)))
    monkeypatch.setattr(os, "open", refuse)
    binding.Binding("0000:00:1e.7", "uio_pci_generic", None, "").undo()
    assert remembered == [("0000:00:1e.7", None)]
