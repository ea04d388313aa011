# SPDX-License-Identifier: MIT
"""The kernel drivers that a device could have, as ``modprobe`` tells."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pyuio.binding import MODPROBE_SECONDS, find_modprobe
from pyuio.sysfs import PCI_DRIVERS, read_optional

# They take any PCI function that they are told to take.
GENERIC_DRIVERS = ("uio_pci_generic", "vfio-pci", "igb_uio")


def _modprobe(*words: str) -> str | None:
    """Return what modprobe printed; None when it failed, or is not here."""
    modprobe = find_modprobe()
    if modprobe is None:
        return None
    try:
        done = subprocess.run([modprobe, *words], capture_output=True, text=True, timeout=MODPROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def generic_drivers() -> tuple[str, ...]:
    """Return those of `GENERIC_DRIVERS` that are loaded, or could be."""
    return tuple(
        name
        for name in GENERIC_DRIVERS
        if (PCI_DRIVERS / name).exists() or _modprobe("--dry-run", "--quiet", name) is not None
    )


def matching_modules(directory: Path) -> tuple[str, ...]:
    """Return the modules that take the device with this directory in sysfs of their own accord, by its ids and class.

    () where there is none, and where modprobe does not tell.
    """
    alias = read_optional(directory / "modalias")
    names = _modprobe("--resolve-alias", alias) if alias else None
    return tuple(sorted(set((names or "").split())))
