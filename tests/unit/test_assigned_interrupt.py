# SPDX-License-Identifier: MIT
"""The interrupts of a function, from attributes in the kernel's form."""

from __future__ import annotations

from pathlib import Path

from pyuio.pci.assigned_interrupt import AssignedInterrupt, assigned_interrupt


def test_a_line(tmp_path: Path) -> None:
    (tmp_path / "irq").write_text("11\n")
    found = assigned_interrupt(tmp_path, 2)
    assert found == AssignedInterrupt("INTx", "B", (11,))
    assert str(found) == "INTB 11"


def test_a_line_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "irq").write_text("0\n")
    assert str(assigned_interrupt(tmp_path, 1)) == "INTA, not routed"


def test_neither_pin_nor_message(tmp_path: Path) -> None:
    (tmp_path / "irq").write_text("5\n")
    assert assigned_interrupt(tmp_path, 0) == AssignedInterrupt(None, None, ())
    assert str(assigned_interrupt(tmp_path, 0xFF)) == "none"


def test_messages(tmp_path: Path) -> None:
    (tmp_path / "irq").write_text("30\n")
    (tmp_path / "msi_irqs").mkdir()
    for number in (30, 9, 31):
        (tmp_path / f"msi_irqs/{number}").write_text("msix\n")
    found = assigned_interrupt(tmp_path, 1)
    assert found == AssignedInterrupt("MSI-X", "A", (9, 30, 31))
    assert str(found) == "MSI-X 9,..."
    (tmp_path / "msi_irqs/9").unlink()
    assert str(assigned_interrupt(tmp_path, 1)) == "MSI-X 30-31"
    (tmp_path / "msi_irqs/31").unlink()
    (tmp_path / "msi_irqs/30").write_text("msi\n")
    assert str(assigned_interrupt(tmp_path, 0)) == "MSI 30"
