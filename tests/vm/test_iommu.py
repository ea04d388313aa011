# SPDX-License-Identifier: MIT
"""DMA memory in a guest with an IOMMU."""

from __future__ import annotations

import sys
from pathlib import Path

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]


def test_memory_for_dma_behind_an_iommu(vm: Vm) -> None:
    """What UIO refuses, and what it gives where the IOMMU is told not to translate."""
    vm.append = "intel_iommu=on"
    iommu = "-device intel-iommu,intremap=on,caching-mode=on"
    command = [sys.executable, "-m", "tests.vm.iommu_guest"]
    result = vm.run(
        "--one-thread", "-M", "q35,kernel-irqchip=split", "--qemu", iommu, "--device", "edu", "--", *command, cwd=ROOT
    )
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert "its IOMMU translates (iommu_group/type is DMA" in output
    assert "iommu=pt" in output
    assert "VFIO" in output
    assert "identity: through the IOMMU" in output
