# SPDX-License-Identifier: MIT
"""Whether the kernel remaps interrupts, by the names of their controllers in /proc/interrupts."""

from __future__ import annotations

import pytest

from pyuio.kernel.interrupt_remapping import is_off

# Recorded in guests with Intel's IOMMU: Linux 6.1 without and with remapping, Linux 6.12 with it.
OFF = """\
           CPU0       CPU1
  0:         77          0   IO-APIC   2-edge      timer
 24:          0          0   PCI-MSI 16384-edge      virtio0-config
DMAR-MSI:     0          0   DMAR-MSI   0-edge      dmar0
NMI:          0          0   Non-maskable interrupts
"""
ON = OFF.replace("IO-APIC", "IR-IO-APIC").replace("PCI-MSI", "IR-PCI-MSI")
NEWER = OFF.replace("IO-APIC", "IR-IO-APIC").replace("PCI-MSI 16384", "IR-PCI-MSIX-0000:00:01.0   0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OFF, True),
        (ON, False),
        (NEWER, False),
        ("", False),
        ("CPU0\n", False),
        (OFF.replace("IO-APIC", "GICv3").replace("PCI-MSI", "ITS-MSI"), False),  # no x86, where it shows otherwise
        (OFF + " 30:  0  0   PCI-MSI 1-edge   IR-PCI-MSI\n", True),  # what a handler is called does not count
        ("CPU0 CPU1\n 3: 0\n : \nERR: 0\n", False),
    ],
)
def test_the_names_of_controllers_tell(text: str, expected: bool) -> None:
    assert is_off(text) == expected
