# SPDX-License-Identifier: MIT
"""What stands between this box and low latency, or a working driver: ``pyuio doctor``.

``docs/doctor.md`` describes every check.
"""

from __future__ import annotations

import os

from pyuio.doctor import device as device_checks
from pyuio.doctor import driver, interrupts, memory, processors, scheduling
from pyuio.doctor.finding import Finding, State
from pyuio.pci.discovery import FoundDevice, find

__all__ = ["CHECKS", "Finding", "State", "examine", "something_blocks"]

CHECKS = (
    *driver.CHECKS,
    *device_checks.CHECKS,
    *memory.CHECKS,
    *scheduling.CHECKS,
    *processors.CHECKS,
    *interrupts.CHECKS,
)


def examine(device: str | os.PathLike[str] | FoundDevice | None = None) -> list[Finding]:
    """Look at this box, and at a device if one is named, and return what was found, by subject.

    Nothing is changed. Without privilege less can be told: those findings are "unknown" and say why.

    Args:
        device: named as for `pyuio.open`; None for none.

    Raises:
        DeviceNotFoundError: there is no such device.
        AmbiguousDeviceError: there is more than one.
        ValueError: `device` does not have the form of a device's name.
        TypeError: `device` is of a wrong type.
    """
    found = None if device is None else find(device)
    findings = (check.run(found) for check in CHECKS)
    return [finding for finding in findings if finding is not None]


def something_blocks(findings: list[Finding]) -> bool:
    """Return whether any finding keeps part of a driver from working; advice, and what is unknown, do not."""
    return any(finding.state == "blocks" for finding in findings)
