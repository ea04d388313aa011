# SPDX-License-Identifier: MIT
"""Whether drivers in user space can work on this box at all: UIO, lockdown, permissions, IOMMU."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from pathlib import Path

from pyuio._native._memory import pointer
from pyuio.doctor import facts
from pyuio.doctor.finding import Answer, Check, advice, blocks, box, counted, good, unknown
from pyuio.errors import PermissionDeniedError
from pyuio.kernel.drivers import MODPROBE_SECONDS, UIO_PCI_GENERIC, find_modprobe
from pyuio.kernel.pagemap import frame_numbers
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, read_optional
from pyuio.pci.discovery import FoundDevice

SUBJECT = "driver"
SECURITY = Path("/sys/kernel/security")
IOMMU_GROUPS = Path("/sys/kernel/iommu_groups")
# The firmware's variable of this name (UEFI specification, section 3.3): four bytes of attributes, one of value.
SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")

NO_MODULE = (
    "install it, if it is packaged apart (Ubuntu: apt install linux-modules-extra-$(uname -r), Fedora: dnf install "
    "kernel-modules-extra), or boot a kernel with CONFIG_UIO and CONFIG_UIO_PCI_GENERIC, as Debian's linux-image-amd64"
)
ALLOW_MODULES = "undo that (kernel.modules_disabled is set in /etc/sysctl.d or /etc/sysctl.conf), and reboot"


# -- uio_pci_generic --


def find_bar_to_loading(line: str, modules_disabled: str) -> str | None:
    """Return what keeps this kernel from loading the module, by its command line and sysctl; None for nothing.

    Args:
        line: the kernel's command line.
        modules_disabled: the text of ``/proc/sys/kernel/modules_disabled``.
    """
    parameters = facts.parse_parameters(line)
    listed = set(parameters.get("module_blacklist", "").replace("-", "_").split(","))
    if modules_disabled != "0":
        return "loading modules was switched off until the next boot (kernel.modules_disabled)"
    if "nomodule" in parameters:
        return "the kernel was booted with nomodule"
    if listed & {"uio", UIO_PCI_GENERIC}:
        return f"the kernel was booted with module_blacklist={parameters['module_blacklist']}"
    return None


def judge_modprobe(status: int, output: str) -> Answer:
    """Return whether the module could be loaded, from what ``modprobe -n -v`` answered."""
    if status != 0:
        last = output.strip().splitlines()[-1:] or ["no such module"]
        return blocks(f"not there, and this kernel has no module of that name (modprobe: {last[0]})", NO_MODULE)
    # An "install" line in modprobe.d runs a command in place of loading, usually one that does nothing.
    if replaced := re.search(r"^install .*", output, re.MULTILINE):
        where = f"grep -r {UIO_PCI_GENERIC} /etc/modprobe.d /lib/modprobe.d"
        return blocks(f"not loaded, and modprobe.d has a command in its place: {replaced[0]}", f"remove it: {where}")
    return good("not loaded; the module is there, and root loads it by opening a device")


def look_for_uio(device: FoundDevice | None) -> Answer:
    """Whether uio_pci_generic is there or can be; a device that another UIO driver has does without."""
    if (PCI_DRIVERS / UIO_PCI_GENERIC).exists():
        return good("loaded, or built into the kernel")
    if device is not None and device.uio is not None:
        return good(f"not loaded, nor needed: {device.driver} has {device.name} as /dev/{device.uio}")
    modules_disabled = read_optional(Path("/proc/sys/kernel/modules_disabled"))
    if modules_disabled is None:
        return blocks("not built into this kernel, which loads no modules (CONFIG_MODULES)", NO_MODULE)
    if (bar := find_bar_to_loading(facts.command_line() or "", modules_disabled)) is not None:
        return blocks(f"not there, and cannot be loaded: {bar}", ALLOW_MODULES)
    modprobe = find_modprobe()
    if modprobe is None:
        return blocks(
            "not loaded, and there is no modprobe to load it", "apt install kmod (Debian, Ubuntu); dnf install kmod"
        )
    done = subprocess.run(
        [modprobe, "-n", "-v", UIO_PCI_GENERIC], capture_output=True, text=True, timeout=MODPROBE_SECONDS, check=False
    )
    return judge_modprobe(done.returncode, done.stdout + done.stderr)


# -- lockdown --


def judge_lockdown(text: str, secure_boot: bool | None) -> Answer:
    """Return what the text of ``/sys/kernel/security/lockdown`` means: "none [integrity] confidentiality".

    Args:
        text: of that file.
        secure_boot: whether Secure Boot is on; None if that is not known.
    """
    match = re.search(r"\[(\w+)\]", text)
    if match is None:
        return unknown(f"{SECURITY}/lockdown has an odd form: {text[:80]!r}")
    boot = {True: "; Secure Boot is on", False: "; Secure Boot is off", None: ""}[secure_boot]
    if match[1] == "none":
        return good(f"the kernel is not locked down{boot}")
    return blocks(
        f"the kernel is locked down ({match[1]}){boot}: writing to configuration space, mapping BARs through "
        f"resourceN, ports, and loading modules that are not signed are refused, to root, too",
        "switch Secure Boot off in the firmware's setup, or in shim: mokutil --disable-validation, and reboot; "
        "without Secure Boot, remove lockdown= from the kernel's command line",
    )


def secure_boot() -> bool | None:
    """Return whether the firmware says that Secure Boot is on; None without such firmware."""
    try:
        return parse_secure_boot(SECURE_BOOT.read_bytes())
    except OSError:
        return None


def parse_secure_boot(variable: bytes) -> bool | None:
    """Return the value in the file of the firmware's variable SecureBoot; None for an odd form."""
    return bool(variable[4]) if len(variable) == 5 and variable[4] in (0, 1) else None


def look_at_lockdown() -> Answer:
    """The lockdown mode."""
    text = read_optional(SECURITY / "lockdown")
    if text is not None:
        return judge_lockdown(text, secure_boot())
    if (SECURITY / "lsm").exists():
        return good("this kernel has no lockdown")
    config = facts.kernel_config()
    if config and "CONFIG_SECURITY_LOCKDOWN_LSM" not in config:
        return good("this kernel has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM)")
    return unknown(f"there is no {SECURITY}/lockdown", f"mount -t securityfs none {SECURITY}, as root")


# -- permissions --


def files_to_open(device: FoundDevice | None) -> list[Path]:
    """Return the files that `pyuio.open` writes to, for a device as it is bound now; without one, those for binding."""
    binding = [Path("/sys/bus/pci/drivers_probe")]
    if device is None:
        return binding
    node = [Path("/dev", device.uio)] if device.uio else []
    if device.address is None:
        return node
    directory = PCI_DEVICES / device.address
    bars = sorted(directory.glob("resource[0-5]"))
    return [*(node or [directory / "driver_override", *binding]), directory / "config", *bars]


def look_at_permissions(device: FoundDevice | None) -> Answer:
    """Whether this user may do what opening a device takes."""
    doing = "opening a device" if device is None else f"opening {device.name}"
    refused = [str(path) for path in files_to_open(device) if not os.access(path, os.W_OK)]
    if not refused:
        return good(f"this user may write to the files that {doing} takes")
    remedy = (
        "run drivers as root (sudo), or have the card given to a group: pyuio setup"
        if os.geteuid()
        else "in a container: have /sys and /dev writable (--privileged)"
    )
    return blocks(f"this user may not write to {counted(refused)}, which {doing} takes", remedy)


def look_at_pagemap() -> Answer:
    """Whether this user may know where memory is, tried on a page."""
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[0] = 1  # present from here on
        try:
            frame_numbers(pointer(page), mmap.PAGESIZE)
        except PermissionDeniedError:
            return blocks(
                "the kernel hides physical addresses from this user, who has no CAP_SYS_ADMIN",
                "run drivers that use DMA as root (sudo); in a container: --privileged",
            )
    return good("this user may know physical addresses")


# -- IOMMU --


def judge_group(name: str, kind: str, others: list[str]) -> Answer:
    """Return what the type of a device's IOMMU group means for it.

    Args:
        name: of the device.
        kind: the text of ``iommu_group/type`` (Documentation/ABI/testing/sysfs-kernel-iommu_groups).
        others: the devices that share its group.
    """
    sharing = f"; {counted(others)} in the same group" if others else ""
    if kind == "identity":
        return good(f"the IOMMU lets {name} reach memory by physical addresses (type identity){sharing}")
    return blocks(
        f"the IOMMU translates for {name} (type {kind}){sharing}: registers and interrupts work, DMA is refused",
        f"iommu=pt on the kernel's command line; or, with no driver bound to the group: echo identity > "
        f"/sys/bus/pci/devices/{name}/iommu_group/type",
    )


def judge_groups(kinds: dict[str, str]) -> Answer:
    """Return what the types of all IOMMU groups, by their numbers, mean for a device that is not named."""
    if not kinds:
        return good("no IOMMU is in use: devices reach memory by physical addresses")
    count = {kind: list(kinds.values()).count(kind) for kind in sorted(set(kinds.values()))}
    found = "IOMMU groups by type: " + ", ".join(f"{number} {kind}" for kind, number in count.items())
    if set(count) == {"identity"}:
        return good(found)
    return advice(f"{found}; DMA is refused to a device whose group is not identity", "iommu=pt on the command line")


def look_at_iommu(device: FoundDevice | None) -> Answer | None:
    """The mode of the IOMMU, of the device if one is named."""
    if device is None:
        groups = sorted(IOMMU_GROUPS.iterdir()) if IOMMU_GROUPS.is_dir() else []
        kinds = {group.name: read_optional(group / "type") for group in groups}
        return judge_groups({number: kind or "unknown" for number, kind in kinds.items()})
    if device.address is None:
        return None
    kind = read_optional(device.directory / "iommu_group/type")
    if kind is None:
        return good(f"{device.name} is in no IOMMU group with a type: it reaches memory by physical addresses")
    members = sorted(entry.name for entry in (device.directory / "iommu_group/devices").iterdir())
    return judge_group(device.name, kind, [name for name in members if name != device.name])


CHECKS = (
    Check(
        "uio_pci_generic",
        SUBJECT,
        "It is the kernel's side of a PCI driver in user space: /dev/uioN, which counts the device's interrupts.",
        look_for_uio,
    ),
    Check(
        "lockdown",
        SUBJECT,
        "A locked-down kernel, as Secure Boot makes it on many distributions, keeps root, too, from the device's "
        "configuration space and BARs.",
        box(look_at_lockdown),
    ),
    Check(
        "permissions",
        SUBJECT,
        "Binding, /dev/uioN, configuration space and BARs are files of root's, unless a rule says otherwise.",
        look_at_permissions,
    ),
    Check(
        "pagemap",
        SUBJECT,
        "A device is given physical addresses, and the kernel shows those in /proc/self/pagemap to CAP_SYS_ADMIN only.",
        box(look_at_pagemap),
    ),
    Check(
        "iommu",
        SUBJECT,
        "Where an IOMMU translates, a physical address is not what the device must be given, and UIO cannot map memory "
        "for it.",
        look_at_iommu,
    ),
)
