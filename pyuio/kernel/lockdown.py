# SPDX-License-Identifier: MIT
"""The kernel's lockdown, which forbids root itself to change the kernel. Source: kernel_lockdown(7)."""

from __future__ import annotations

from pathlib import Path

from pyuio.kernel.sysfs import read_optional

LOCKDOWN = Path("/sys/kernel/security/lockdown")


def is_locked_down() -> bool:
    """Return whether the kernel is locked down; False, too, if it does not tell."""
    text = read_optional(LOCKDOWN)
    return text is not None and "[" in text and "[none]" not in text
