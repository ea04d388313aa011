# SPDX-License-Identifier: MIT
"""DMA memory in a guest with an IOMMU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]


def run(vm: Vm, module: str, *devices: str, remapping: str = "on") -> str:
    """Run a module of this directory in a guest with Intel's IOMMU and these devices; return what it prints."""
    vm.append = "intel_iommu=on"
    machine = ["-M", "q35,kernel-irqchip=split", f"--qemu=-device intel-iommu,intremap={remapping},caching-mode=on"]
    cards = [f"--device={device}" for device in devices]
    command = [sys.executable, "-m", f"tests.vm.{module}"]
    result = vm.run(*machine, *cards, "--", *command, cwd=ROOT)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    return output


@pytest.mark.long
def test_two_functions_of_one_group_in_one_process(vm: Vm) -> None:
    output = run(vm, "group_guest", "edu,addr=10.0,multifunction=on", "edu,addr=10.1")
    assert output.split("\n")[-2] == "one group: 120, 720, through the memory of the other; 24, 6"


@pytest.mark.long
def test_an_iommu_without_interrupt_remapping(vm: Vm) -> None:
    """VFIO is refused in a sentence, until root accepts the risk. UIO goes on; what it gives for DMA, and what not."""
    output = run(vm, "iommu_guest", "edu", remapping="off")
    assert "its IOMMU translates (iommu_group/type is DMA" in output
    assert "iommu=pt" in output
    assert "VFIO" in output
    assert "identity: through the IOMMU" in output
    assert "\nby VFIO: 3628800 by INTx, 1 by MSI\n" in output
