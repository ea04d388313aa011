# SPDX-License-Identifier: MIT
"""ARM's IOMMU, SMMUv3: a function has no group before a driver was bound to it, and the device tree tells of one."""

from __future__ import annotations

import sys

from tests.run import EDU, WITH_IOMMU

from .conftest import Vm


def test_a_card_that_no_driver_ever_had(vm: Vm) -> None:
    result = vm.run(*WITH_IOMMU, f"--device={EDU}", "--", sys.executable, "-m", "tests.vm.smmu_guest")
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert output == (
        "no group: vfio-pci, because the device tree gives it an IOMMU, which translates once a driver is bound\n"
        "doctor: good\n"
        "vfio-pci: 120 by INTx, through the IOMMU, 1 by MSI\n"
        "uio_pci_generic: its IOMMU translates\n"
    )
