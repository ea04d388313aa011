# SPDX-License-Identifier: MIT
"""``pyuio doctor``: checks of this box for obstacles to a working driver or to low latency.

``docs/doctor.md`` describes every check.
"""

from __future__ import annotations

import os

from pyuio.doctor import device as device_checks
from pyuio.doctor import driver, interrupts, iommu_faults, memory, processors, scheduling
from pyuio.doctor.finding import Finding, State
from pyuio.pci.discovery import FoundDevice, find

__all__ = ["CHECKS", "Finding", "State", "examine", "something_blocks"]

CHECKS = (
    *driver.CHECKS,
    *device_checks.CHECKS,
    *iommu_faults.CHECKS,
    *memory.CHECKS,
    *scheduling.CHECKS,
    *processors.CHECKS,
    *interrupts.CHECKS,
)


def examine(device: str | os.PathLike[str] | FoundDevice | None = None) -> list[Finding]:
    """Examine this box, and a device if `device` names one, and return the findings, grouped by subject.

    The checks change nothing. A check that lacks privilege gives the state "unknown" and says why.

    Args:
        device: named as for `pyuio.open`; None to examine no device.

    Raises:
        DeviceNotFoundError: there is no such device.
        AmbiguousDeviceError: `device` names more than one device.
        ValueError: `device` does not have the form of a device's name.
        TypeError: `device` is of a wrong type.
    """
    found = None if device is None else find(device)
    findings = (check.run(found) for check in CHECKS)
    return [finding for finding in findings if finding is not None]


def something_blocks(findings: list[Finding]) -> bool:
    """Return whether any finding keeps part of a driver from working. The states "advice" and "unknown" do not."""
    return any(finding.state == "blocks" for finding in findings)
