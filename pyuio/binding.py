# SPDX-License-Identifier: MIT
"""Binding a kernel driver to a PCI function, and giving the function back to the driver it had.

Through ``driver_override`` and ``drivers_probe``, which concern one function only; an id written to ``new_id`` would
take every card of the kind (Documentation/ABI/testing/sysfs-bus-pci).
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pyuio.errors import BindingError, DeviceRemovedError, KernelSupportError
from pyuio.signals import postponed_signals
from pyuio.sysfs import PCI_DEVICES, PCI_DRIVERS, link_name, read_text, translated

UIO_PCI_GENERIC = "uio_pci_generic"
MODPROBE_SECONDS = 30


def bound_driver(address: str) -> str | None:
    """Return the name of the kernel driver bound to a PCI function, or None without one."""
    return link_name(PCI_DEVICES / address / "driver")


def bind_command(address: str, driver: str = UIO_PCI_GENERIC) -> str:
    """Return the shell commands, on one line, that bind `driver` to a PCI function as root."""
    device = PCI_DEVICES / address
    release = f" && echo {address} > {device}/driver/unbind" if bound_driver(address) else ""
    override = f"modprobe {driver} && echo {driver} > {device}/driver_override"
    return f"{override}{release} && echo {address} > /sys/bus/pci/drivers_probe"


def find_modprobe() -> str | None:
    """Return the path of modprobe, or None without it."""
    # An ordinary user's PATH does not have it on Debian.
    return shutil.which("modprobe") or shutil.which("modprobe", path="/usr/sbin:/sbin")


def load_driver(driver: str) -> None:
    """Load the kernel module of a PCI driver, unless the driver is there already.

    Raises:
        KernelSupportError: this kernel does not have it.
    """
    if (PCI_DRIVERS / driver).exists():
        return
    modprobe = find_modprobe()
    if modprobe is None:
        reason = f"the kernel driver {driver} is not loaded, and there is no modprobe (Debian: package kmod) to load it"
        raise KernelSupportError(errno.ENOSYS, reason)
    try:
        done = subprocess.run([modprobe, driver], capture_output=True, text=True, timeout=MODPROBE_SECONDS, check=False)
        answer = done.stderr.strip() or "done, but it is not there"
    except subprocess.TimeoutExpired:
        answer = f"not done after {MODPROBE_SECONDS} s"
    if not (PCI_DRIVERS / driver).exists():
        reason = (
            f"this kernel has no driver {driver} (modprobe: {answer}); it "
            f"needs CONFIG_UIO and CONFIG_UIO_PCI_GENERIC, on Ubuntu in the package linux-modules-extra"
        )
        raise KernelSupportError(errno.ENOSYS, reason)


def _write(address: str, target: Path, text: str) -> None:
    try:
        target.write_text(text)
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"writing {target}: there is no device {address}") from error
    except OSError as error:
        raise translated(error, f"writing {text.strip()!r} to {target}", BindingError) from error


@dataclass(frozen=True)
class Binding:
    """A driver bound to a PCI function, and what is needed to undo that.

    Attributes:
        address: of the function.
        driver: the kernel driver that was bound.
        previous: the driver that had the function before, or None.
        previous_override: ``driver_override`` before, "" for none.
    """

    address: str
    driver: str
    previous: str | None
    previous_override: str

    def undo(self) -> None:
        """Release the function and give it back to the driver it had, if any; nothing when the function is gone.

        Raises:
            BindingError: the previous driver did not take it back.
        """
        with postponed_signals():
            self._undo()

    def _undo(self) -> None:
        device = PCI_DEVICES / self.address
        if not device.exists():
            return
        # An empty line clears the override.
        _write(self.address, device / "driver_override", self.previous_override + "\n")
        if bound_driver(self.address) == self.driver != self.previous:
            _write(self.address, device / "driver/unbind", self.address)
        if self.previous is not None and bound_driver(self.address) != self.previous:
            if not (PCI_DRIVERS / self.previous).exists():
                reason = f"{self.address} cannot be given back: its driver {self.previous} is not loaded any more"
                raise BindingError(errno.ENODEV, reason)
            _write(self.address, PCI_DRIVERS / self.previous / "bind", self.address)


def bind(address: str, driver: str = UIO_PCI_GENERIC) -> Binding:
    """Bind a kernel driver to a PCI function, taking it from the one that has it, and return how to undo that.

    Args:
        address: in the kernel's form, ``0000:00:04.0``.
        driver: its module is loaded if need be.

    Raises:
        BindingError: the kernel refused; the function is with its previous driver again.
        DeviceRemovedError: there is no such function.
        KernelSupportError: this kernel does not have the driver.
        PermissionDeniedError: not root.
    """
    load_driver(driver)
    with postponed_signals():
        return _bind(address, driver)


def _bind(address: str, driver: str) -> Binding:
    device = PCI_DEVICES / address
    try:
        override = read_text(device / "driver_override")
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"binding {driver}: there is no device {address}") from error
    binding = Binding(address, driver, bound_driver(address), "" if override == "(null)" else override)
    _write(address, device / "driver_override", driver)
    try:
        if binding.previous is not None:
            _write(address, device / "driver/unbind", address)
        _write(address, PCI_DRIVERS.parent / "drivers_probe", address)
        if bound_driver(address) != driver:
            raise BindingError(errno.EINVAL, f"{driver} did not take {address}; the kernel log (dmesg) says why")
    except BaseException:
        binding.undo()
        raise
    return binding
