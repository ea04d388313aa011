# SPDX-License-Identifier: MIT
"""Kernel drivers of PCI functions: which one has a function, which hand it on to user space, and loading their modules.

Sources: Documentation/ABI/testing/sysfs-bus-pci; modprobe(8).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pyuio.errors import KernelSupportError, PermissionDeniedError
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, link_name, read_optional
from pyuio.kernel.uio import UioNode

UIO_PCI_GENERIC = "uio_pci_generic"
IGB_UIO = "igb_uio"
VFIO_PCI = "vfio-pci"
# They take any PCI function that they are told to take, and hand it on to user space.
GENERIC_DRIVERS = (UIO_PCI_GENERIC, VFIO_PCI, IGB_UIO)
# They do nothing with a function themselves; the last one keeps it for a virtual machine.
USER_SPACE_DRIVERS = (*GENERIC_DRIVERS, "pci-stub")
MODPROBE_SECONDS = 30


def bound_driver(address: str) -> str | None:
    """Return the name of the kernel driver bound to a PCI function, or None without one."""
    return link_name(PCI_DEVICES / address / "driver")


def is_for_user_space(address: str) -> bool:
    """Return whether the kernel driver that has a function does nothing but hand it on to user space."""
    return UioNode.of_device(PCI_DEVICES / address) is not None or bound_driver(address) in USER_SPACE_DRIVERS


def find_modprobe() -> str | None:
    """Return the path of modprobe, or None without it."""
    import shutil

    # An ordinary user's PATH does not have it on Debian.
    return shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")


# What modprobe prints (kmod's, which words the kernel's errno), and what to do then.
_MODPROBE_REMEDIES = (
    (
        "not found",
        "it is not among this kernel's modules: uio_pci_generic needs CONFIG_UIO and CONFIG_UIO_PCI_GENERIC, on Ubuntu "
        "in the package linux-modules-extra, on Fedora in kernel-modules-extra; one that was built apart: insmod it",
    ),
    (
        "ey was rejected",
        "Secure Boot wants it signed: sign it and enrol the key (mokutil --import), or switch Secure Boot off",
    ),
    ("equired key not available", "Secure Boot wants it signed: sign it and enrol the key (mokutil --import)"),
    ("not permitted", "loading modules was switched off until the next boot: see pyuio doctor"),
    ("Unknown symbol", "it was built for another kernel: build it for this one (uname -r)"),
    ("Exec format error", "it was built for another kernel: build it for this one (uname -r)"),
)


def load_driver(driver: str) -> None:
    """Load the kernel module of a PCI driver, unless the driver is there already.

    Raises:
        KernelSupportError: this kernel does not have it; the message says why, and what to do.
        PermissionDeniedError: it is not there, and only root may load it.
    """
    import subprocess

    if (PCI_DRIVERS / driver).exists():
        return
    modprobe = find_modprobe()
    if modprobe is None:
        reason = f"the kernel driver {driver} is not loaded, and there is no modprobe (Debian: package kmod) to load it"
        raise KernelSupportError(errno.ENOSYS, reason)
    try:
        command = [modprobe, "--", driver]
        done = subprocess.run(command, capture_output=True, text=True, timeout=MODPROBE_SECONDS, check=False)
        answer = done.stderr.strip() or "done, but it is not there"
    except subprocess.TimeoutExpired:
        answer = f"not done after {MODPROBE_SECONDS} s"
    if (PCI_DRIVERS / driver).exists():
        return
    remedies = [remedy for words, remedy in _MODPROBE_REMEDIES if words in answer]
    if "not found" not in answer and os.geteuid() != 0:
        raise PermissionDeniedError(
            errno.EPERM, f"loading the kernel driver {driver} (modprobe: {answer}): only root may"
        )
    remedy = remedies[0] if remedies else "the kernel log (dmesg) may say more, and so may pyuio doctor"
    raise KernelSupportError(errno.ENOSYS, f"this kernel has no driver {driver} (modprobe: {answer}); {remedy}")


def _modprobe(*words: str) -> str | None:
    """Return what modprobe printed; None when it failed, or is not here."""
    import subprocess

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
