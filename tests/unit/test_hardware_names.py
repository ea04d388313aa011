# SPDX-License-Identifier: MIT
"""Names from udev's hardware database, if this machine has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyuio.pci import hardware_names
from pyuio.pci.hardware_names import HardwareNames, names, names_of

XHCI = "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30"


def test_names() -> None:
    found = names_of(XHCI)
    if found == HardwareNames():
        pytest.skip("no hardware database here")
    assert found == HardwareNames("Red Hat, Inc.", "QEMU XHCI Host Controller", "USB controller")


def test_a_function_that_is_not_in_the_database_has_a_class_at_most(tmp_path: Path) -> None:
    (tmp_path / "modalias").write_text("pci:v00001234d0000FFFEsv00000000sd00000000bc00scFFi00\n")
    found = names(tmp_path)
    assert (found.vendor, found.device) == (None, None)
    assert names(tmp_path / "gone") == HardwareNames()


def test_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_names, "_database", lambda: None)
    assert names_of(XHCI) == HardwareNames()
