# SPDX-License-Identifier: MIT
"""DMA memory in a guest with an IOMMU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]


def run(vm: Vm, module: str, *devices: str) -> str:
    """Run a module of this directory in a guest with Intel's IOMMU and these devices; return what it prints."""
    vm.append = "intel_iommu=on"
    machine = ["-M", "q35,kernel-irqchip=split", "--qemu", "-device intel-iommu,intremap=on,caching-mode=on"]
    cards = [f"--device={device}" for device in devices]
    command = [sys.executable, "-m", f"tests.vm.{module}"]
    result = vm.run("--one-thread", *machine, *cards, "--", *command, cwd=ROOT)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    return output


@pytest.mark.long
def test_two_functions_of_one_group_in_one_process(vm: Vm) -> None:
    output = run(vm, "group_guest", "edu,addr=10.0,multifunction=on", "edu,addr=10.1")
    assert output.split("\n")[-2] == "one group: 120, 720, through the memory of the other; 24, 6"


def test_memory_for_dma_behind_an_iommu(vm: Vm) -> None:
    """What UIO refuses, and what it gives where the IOMMU is told not to translate."""
    output = run(vm, "iommu_guest", "edu")
    assert "its IOMMU translates (iommu_group/type is DMA" in output
    assert "iommu=pt" in output
    assert "VFIO" in output
    assert "identity: through the IOMMU" in output
