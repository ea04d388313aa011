# SPDX-License-Identifier: MIT
"""Kernel drivers of PCI functions: which driver has a function, which drivers serve user space, and module loading.

Sources: Documentation/ABI/testing/sysfs-bus-pci; modprobe(8).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from pyuio.errors import KernelSupportError, PermissionDeniedError
from pyuio.kernel.programs import environment, find_program
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, link_name, read_optional
from pyuio.kernel.uio import UioNode

UIO_PCI_GENERIC = "uio_pci_generic"
IGB_UIO = "igb_uio"
VFIO_PCI = "vfio-pci"
# These drivers accept any PCI function that they are told to bind, and hand it on to user space.
GENERIC_DRIVERS = (UIO_PCI_GENERIC, VFIO_PCI, IGB_UIO)
# These drivers do not operate the function themselves; pci-stub reserves it for a virtual machine.
USER_SPACE_DRIVERS = (*GENERIC_DRIVERS, "pci-stub")
MODPROBE_SECONDS = 30


def bound_driver(address: str) -> str | None:
    """Return the name of the kernel driver bound to a PCI function, or None if there is none."""
    return link_name(PCI_DEVICES / address / "driver")


def is_for_user_space(address: str) -> bool:
    """Return whether the kernel driver of a function only hands it on to user space."""
    return bool(UioNode.of_device(PCI_DEVICES / address)) or bound_driver(address) in USER_SPACE_DRIVERS


def hands_on(driver: str) -> bool:
    """Return whether a kernel driver is known to hand functions on to `pyuio.open`: it is generic, or uses UIO."""
    module = link_name(PCI_DRIVERS / driver / "module")
    return driver in GENERIC_DRIVERS or (module is not None and Path("/sys/module/uio/holders", module).exists())


INSTALL_UIO_PCI_GENERIC = (
    "install the package that has it (Ubuntu: apt install linux-modules-extra-$(uname -r), Fedora: dnf install "
    "kernel-modules-extra), or boot a kernel with CONFIG_UIO and CONFIG_UIO_PCI_GENERIC, as Debian's linux-image-amd64"
)
"""The remedy if this kernel has no module of that name."""

# Parts of modprobe's error messages (kmod translates the kernel's errno into words), and the remedy for each.
_MODPROBE_REMEDIES = (
    (
        "not found",
        "it is not among this kernel's modules: load one that you built with insmod; for "
        f"{UIO_PCI_GENERIC}, {INSTALL_UIO_PCI_GENERIC}; for {VFIO_PCI}, boot a kernel with CONFIG_VFIO_PCI, as "
        f"those of distributions but for the cloud flavours",
    ),
    (
        "ey was rejected",
        "Secure Boot requires a signature: sign it and enrol the key (mokutil --import), or switch Secure Boot off",
    ),
    ("equired key not available", "Secure Boot requires a signature: sign it and enrol the key (mokutil --import)"),
    ("not permitted", "loading modules was switched off until the next boot: see pyuio doctor"),
    ("Unknown symbol", "it was built for another kernel: build it for this one (uname -r)"),
    ("Exec format error", "it was built for another kernel: build it for this one (uname -r)"),
)


def load_driver(driver: str) -> None:
    """Load the kernel module of a PCI driver, unless the driver is loaded already.

    Raises:
        KernelSupportError: this kernel does not have the driver; the message says why, and what to do.
        PermissionDeniedError: the driver is not loaded, and only root may load it.
    """
    import subprocess

    if (PCI_DRIVERS / driver).exists():
        return
    modprobe = find_program("modprobe")
    if modprobe is None:
        reason = f"the kernel driver {driver} is not loaded, and there is no modprobe (Debian: package kmod) to load it"
        raise KernelSupportError(errno.ENOSYS, reason)
    try:
        command = [modprobe, "--", driver]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MODPROBE_SECONDS, env=environment(), check=False
        )
        answer = done.stderr.strip() or "it succeeded, but the driver did not appear"
    except subprocess.TimeoutExpired:
        answer = f"not finished after {MODPROBE_SECONDS} s"
    if (PCI_DRIVERS / driver).exists():
        return
    remedies = [remedy for words, remedy in _MODPROBE_REMEDIES if words in answer]
    if "not found" not in answer and os.geteuid() != 0:
        raise PermissionDeniedError(errno.EPERM, f"only root may load the kernel driver {driver} (modprobe: {answer})")
    remedy = remedies[0] if remedies else "the kernel log (dmesg) may say more, and so may pyuio doctor"
    raise KernelSupportError(errno.ENOSYS, f"this kernel has no driver {driver} (modprobe: {answer}); {remedy}")


def modprobe(*words: str) -> str | None:
    """Return what modprobe printed; None if it failed or is not installed."""
    import subprocess

    program = find_program("modprobe")
    if program is None:
        return None
    try:
        command = [program, *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MODPROBE_SECONDS, env=environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def is_available(driver: str) -> bool:
    """Return whether a PCI driver is loaded, or modprobe could load it."""
    if (PCI_DRIVERS / driver).exists():
        return True
    would_do = modprobe("--dry-run", "--verbose", driver)
    # An "install" line in modprobe.d runs a command instead, usually one that does nothing.
    return would_do is not None and not any(line.startswith("install ") for line in would_do.splitlines())


def generic_drivers() -> tuple[str, ...]:
    """Return those of `GENERIC_DRIVERS` that are loaded or that modprobe could load."""
    return tuple(filter(is_available, GENERIC_DRIVERS))


def matching_modules(directory: Path) -> tuple[str, ...]:
    """Return the modules that would bind to a device by themselves, because they list its ids or its class.

    Args:
        directory: the device's directory in sysfs.

    Returns:
        The names of the modules, sorted; () if there is none, or if modprobe does not tell.
    """
    alias = read_optional(directory / "modalias")
    names = modprobe("--resolve-alias", alias) if alias else None
    return tuple(sorted(set((names or "").split())))
