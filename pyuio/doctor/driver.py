# SPDX-License-Identifier: MIT
"""Checks whether drivers in user space can work on this box at all, by UIO or by VFIO; permissions, IOMMU."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from pathlib import Path

from pyuio._native._memory import pointer
from pyuio.claim import choice
from pyuio.doctor import facts
from pyuio.doctor.finding import Answer, Check, advice, blocks, counted, good, unknown
from pyuio.errors import PermissionDeniedError
from pyuio.kernel import interrupt_remapping, iommufd, privilege, vfio
from pyuio.kernel.drivers import (
    INSTALL_UIO_PCI_GENERIC,
    MODPROBE_SECONDS,
    UIO_PCI_GENERIC,
    VFIO_PCI,
    bound_driver,
    is_available,
)
from pyuio.kernel.lockdown import is_locked_down
from pyuio.kernel.pagemap import frame_numbers
from pyuio.kernel.programs import environment, find_program
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, read_optional
from pyuio.pci.discovery import FoundDevice

SUBJECT = "driver"
SECURITY = Path("/sys/kernel/security")
IOMMU_GROUPS = Path("/sys/kernel/iommu_groups")
# The firmware's variable SecureBoot (UEFI specification, section 3.3): four bytes of attributes, one byte of value.
SECURE_BOOT = Path("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")

ALLOW_MODULES = "undo that (kernel.modules_disabled is set in /etc/sysctl.d or /etc/sysctl.conf), and reboot"


# -- the two ways --


def no_vfio(device: FoundDevice | None) -> str | None:
    """Return why VFIO cannot hand out the device, or any device if none is named; None if it can."""
    if device is not None:
        return "it is not a PCI function" if device.address is None else choice.no_vfio(device)
    if not IOMMU_GROUPS.is_dir() or not any(IOMMU_GROUPS.iterdir()):
        return "no IOMMU is in use"
    return choice.no_vfio_at_all()


def goes_by_vfio(device: FoundDevice | None) -> bool:
    """Return whether `pyuio.open` with ``bind=True`` opens the device by VFIO."""
    if device is None or device.address is None:
        return False
    return (choice.present_driver(device) or choice.choose(device).driver) == VFIO_PCI


def judge_ways(no_uio: str | None, no_vfio: str | None, chosen: str = "", limit: str = "") -> Answer:
    """Judge by which ways a device, or any device, can be driven.

    Args:
        no_uio: why UIO cannot do it; None if it can.
        no_vfio: why VFIO cannot do it; None if it can.
        chosen: the driver that `pyuio.open` takes and why; "" if no device is named.
        limit: what UIO cannot do for the device, although it can drive it.
    """
    uio = no_uio or f"possible{f', {limit}' if limit else ''}"
    found = f"UIO: {uio}; VFIO: {no_vfio or 'possible, and needs neither root nor a capability'}"
    if no_uio and no_vfio:
        return blocks(found, f"for VFIO: {choice.remedy(no_vfio)}")
    return good(f"{found}{f'; bind=True takes {chosen}' if chosen else ''}")


def look_at_ways(device: FoundDevice | None) -> Answer | None:
    """Check by which ways the device, or any device, can be driven."""
    if device is not None and device.address is None:
        return None
    no_uio = "the kernel is locked down, and forbids it" if is_locked_down() else None
    if no_uio is None and not is_available(UIO_PCI_GENERIC) and not (device and device.nodes):
        no_uio = f"this kernel has no {UIO_PCI_GENERIC}"
    if device is None:
        return judge_ways(no_uio, no_vfio(None))
    present = choice.present_driver(device)
    taken = choice.choose(device) if present is None else choice.Choice(present, "it has the device")
    limit = "without DMA, because an IOMMU translates" if choice.translates(device) else ""
    return judge_ways(no_uio, no_vfio(device), f"{taken.driver} ({taken.reason})", limit)


# -- uio_pci_generic --


def find_bar_to_loading(line: str, modules_disabled: str) -> str | None:
    """Return what keeps this kernel from loading the module, or None, from its command line and its sysctl.

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
    """Judge from the output of ``modprobe -n -v`` whether the module could be loaded.

    Args:
        status: the exit status.
        output: what modprobe printed.
    """
    if status != 0:
        last = output.strip().splitlines()[-1:] or ["no such module"]
        return blocks(
            f"not loaded, and this kernel has no module of that name (modprobe: {last[0]})", INSTALL_UIO_PCI_GENERIC
        )
    # An "install" line in modprobe.d runs a command instead of loading the module; usually the command does nothing.
    if replaced := re.search(r"^install .*", output, re.MULTILINE):
        where = f"grep -r {UIO_PCI_GENERIC} /etc/modprobe.d /lib/modprobe.d"
        return blocks(f"not loaded, and modprobe.d runs a command instead: {replaced[0]}", f"remove it: {where}")
    return good("not loaded; the module is installed, and pyuio loads it when root opens a device")


def look_for_uio(device: FoundDevice | None) -> Answer:
    """Check whether uio_pci_generic is loaded or loadable; a device that goes by another driver does not need it."""
    answer = _look_for_uio(device)
    if answer.state == "blocks" and goes_by_vfio(device):
        return good(f"{answer.found}; the device goes by {VFIO_PCI}")
    return answer


def _look_for_uio(device: FoundDevice | None) -> Answer:
    if (PCI_DRIVERS / UIO_PCI_GENERIC).exists():
        return good("loaded, or built into the kernel")
    if device is not None and device.nodes:
        nodes = ", ".join(f"/dev/{name}" for name in device.nodes)
        return good(f"not loaded and not needed: {device.driver} has {device.device_name} as {nodes}")
    modules_disabled = read_optional(Path("/proc/sys/kernel/modules_disabled"))
    if modules_disabled is None:
        return blocks("not built into this kernel, which loads no modules (CONFIG_MODULES)", INSTALL_UIO_PCI_GENERIC)
    if (bar := find_bar_to_loading(facts.command_line() or "", modules_disabled)) is not None:
        return blocks(f"not loaded, and cannot be loaded: {bar}", ALLOW_MODULES)
    modprobe = find_program("modprobe")
    if modprobe is None:
        return blocks(
            "not loaded, and there is no modprobe to load it", "apt install kmod (Debian, Ubuntu); dnf install kmod"
        )
    done = subprocess.run(
        [modprobe, "-n", "-v", UIO_PCI_GENERIC],
        capture_output=True,
        text=True,
        timeout=MODPROBE_SECONDS,
        env=environment(),
        check=False,
    )
    return judge_modprobe(done.returncode, done.stdout + done.stderr)


# -- lockdown --


def judge_lockdown(text: str, secure_boot: bool | None, no_vfio: str | None = "no IOMMU is in use") -> Answer:
    """Judge the lockdown mode.

    Args:
        text: of ``/sys/kernel/security/lockdown``: "none [integrity] confidentiality".
        secure_boot: whether Secure Boot is on; None if that is not known.
        no_vfio: why VFIO, which lockdown does not forbid, is no way round it; None if it is.
    """
    match = re.search(r"\[(\w+)\]", text)
    if match is None:
        return unknown(f"{SECURITY}/lockdown has an unexpected form: {text[:80]!r}")
    boot = {True: "; Secure Boot is on", False: "; Secure Boot is off", None: ""}[secure_boot]
    if match[1] == "none":
        return good(f"the kernel is not locked down{boot}")
    found = (
        f"the kernel is locked down ({match[1]}){boot}: it refuses, even to root, writing to configuration space, "
        f"mapping BARs through resourceN, ports, and loading unsigned modules"
    )
    if no_vfio is None:
        return good(f"{found}; so UIO is out, and VFIO is the way, which it does not forbid")
    return blocks(
        f"{found}; VFIO would work, but {no_vfio}",
        f"use VFIO: {choice.remedy(no_vfio)}; or switch Secure Boot off in the firmware's setup, or in shim: mokutil "
        f"--disable-validation, and reboot; without Secure Boot, remove lockdown= from the kernel's command line",
    )


def secure_boot() -> bool | None:
    """Return whether the firmware says that Secure Boot is on; None if the firmware has no such variable."""
    try:
        return parse_secure_boot(SECURE_BOOT.read_bytes())
    except OSError:
        return None


def parse_secure_boot(variable: bytes) -> bool | None:
    """Return the value in the file of the firmware's variable SecureBoot; None if the file has an unexpected form."""
    return bool(variable[4]) if len(variable) == 5 and variable[4] in (0, 1) else None


def look_at_lockdown(device: FoundDevice | None) -> Answer:
    """Check the lockdown mode."""
    text = read_optional(SECURITY / "lockdown")
    if text is not None:
        return judge_lockdown(text, secure_boot(), no_vfio(device))
    if (SECURITY / "lsm").exists():
        return good("this kernel has no lockdown")
    config = facts.kernel_config()
    if config and "CONFIG_SECURITY_LOCKDOWN_LSM" not in config:
        return good("this kernel has no lockdown (CONFIG_SECURITY_LOCKDOWN_LSM)")
    return unknown(f"there is no {SECURITY}/lockdown", f"mount -t securityfs none {SECURITY}, as root")


# -- permissions --


def files_to_open(device: FoundDevice | None) -> list[Path]:
    """Return the files that `pyuio.open` writes to.

    Args:
        device: the device, as it is bound now; None for the files that binding needs.
    """
    binding = [Path("/sys/bus/pci/drivers_probe")]
    if device is None:
        return binding
    nodes = [Path("/dev", name) for name in ((device.uio,) if device.uio else device.nodes)]
    if device.address is None:
        return nodes
    directory = PCI_DEVICES / device.address
    if goes_by_vfio(device):
        number = vfio.group_of(directory)
        node = iommufd.device_node(directory)
        if node is not None and iommufd.is_usable(directory):
            return [iommufd.IOMMU, node]
        if bound_driver(device.address) == VFIO_PCI and number is not None:
            return [vfio.CONTAINER, vfio.group_path(number)]
        return [directory / "driver_override", *binding]
    bars = sorted(directory.glob("resource[0-5]"))
    return [*(nodes or [directory / "driver_override", *binding]), directory / "config", *bars]


def container_options(device: FoundDevice | None, refused: list[str]) -> str:
    """Return the options of ``podman run`` that let a container write to files; or what to do outside of it.

    ``-v`` takes no path with a colon, as a PCI function's.
    """
    directory = "" if device is None else str(device.directory)
    nodes = [f"--device {path}" for path in refused if path.startswith("/dev/")]
    of_device = any(str(Path(path).resolve()).startswith(f"{directory}/") for path in refused) and directory
    if any(path.endswith(("driver_override", "drivers_probe")) for path in refused):
        return f"bind outside of it: pyuio bind {device.name if device else 'DEVICE'}; then start it with that DEVICE"
    volume = [f"--mount type=bind,source={directory},target={directory}"] if of_device else []
    if privilege.in_user_namespace():
        return " ".join([*nodes, *volume, "--group-add keep-groups, for a user of the group of pyuio setup, outside"])
    return " ".join([*nodes, *volume])


def look_at_permissions(device: FoundDevice | None) -> Answer:
    """Check whether this user may write to the files that opening a device needs."""
    doing = "opening a device" if device is None else f"opening {device.name}"
    refused = [str(path) for path in files_to_open(device) if not os.access(path, os.W_OK)]
    if not refused:
        return good(f"this user may write to the files that {doing} needs")
    remedy = (
        "run drivers as root (sudo), or have the card given to a group: pyuio setup (by vfio-pci, if that is a way)"
        if os.geteuid()
        else f"in a container: {container_options(device, refused)} (docs/containers.md)"
    )
    return blocks(f"this user may not write to {counted(refused)}, which {doing} takes", remedy)


def look_at_pagemap(device: FoundDevice | None) -> Answer:
    """Check, by trying it on a page, whether this user may know physical addresses, which only UIO needs."""
    if goes_by_vfio(device):
        return good("not needed: by VFIO the device gets bus addresses, which pyuio chooses")
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[0] = 1  # present from here on
        try:
            frame_numbers(pointer(page), mmap.PAGESIZE)
        except PermissionDeniedError:
            capability = (
                "no container without root may know them"
                if privilege.in_user_namespace()
                else "run drivers that use DMA as root (sudo); in a container: --cap-add SYS_ADMIN"
            )
            return blocks(
                "the kernel hides physical addresses from this user, who does not have CAP_SYS_ADMIN",
                f"{capability}; VFIO does without: pyuio setup --driver vfio-pci",
            )
    return good("this user may know physical addresses")


# -- IOMMU --


def judge_group(
    name: str, kind: str, others: list[str], no_vfio: str | None = "this kernel has no vfio-pci", by_uio: bool = True
) -> Answer:
    """Judge what the type of a device's IOMMU group means for the device.

    Args:
        name: of the device.
        kind: the text of ``iommu_group/type`` (Documentation/ABI/testing/sysfs-kernel-iommu_groups).
        others: the devices that share its group.
        no_vfio: why VFIO, which sets the IOMMU up for a driver, cannot have the device; None if it can.
        by_uio: whether a UIO driver has the device, or would get it.
    """
    sharing = f"; {counted(others)} in the same group" if others else ""
    if kind == "identity":
        return good(f"the IOMMU lets {name} reach memory by physical addresses (type identity){sharing}")
    translates = f"the IOMMU translates for {name} (type {kind}){sharing}"
    if no_vfio is None and not by_uio:
        return good(f"{translates}: VFIO sets it up for memory for DMA")
    vfio_way = f"pyuio bind {name} --driver {VFIO_PCI}" if no_vfio is None else f"VFIO is out, because {no_vfio}"
    if no_vfio == interrupt_remapping.OBSTACLE:
        vfio_way += f": {interrupt_remapping.REMEDY}"
    return blocks(
        f"{translates}: by UIO, registers and interrupts work, and DMA is refused",
        f"{vfio_way}; or iommu=pt on the kernel's command line; or, with no driver bound to the group: echo identity > "
        f"/sys/bus/pci/devices/{name}/iommu_group/type",
    )


def judge_groups(kinds: dict[str, str], no_vfio: str | None = "this kernel has no vfio-pci") -> Answer:
    """Judge what the types of all IOMMU groups mean for devices in general.

    Args:
        kinds: the type of each group, by its number.
        no_vfio: why VFIO cannot have any device; None if it can.
    """
    if not kinds:
        return good("no IOMMU is in use: devices reach memory by physical addresses")
    count = {kind: list(kinds.values()).count(kind) for kind in sorted(set(kinds.values()))}
    found = "IOMMU groups by type: " + ", ".join(f"{number} {kind}" for kind, number in count.items())
    if set(count) == {"identity"}:
        return good(found)
    if no_vfio is None:
        return good(f"{found}; where they are not identity, DMA works by VFIO only")
    return advice(
        f"{found}; by UIO, pyuio refuses DMA unless a device's group is identity, and VFIO is out, because {no_vfio}",
        "iommu=pt on the command line",
    )


def look_at_iommu(device: FoundDevice | None) -> Answer | None:
    """Check the mode of the IOMMU, for the device if one is named, else for all groups."""
    if device is None:
        groups = sorted(IOMMU_GROUPS.iterdir()) if IOMMU_GROUPS.is_dir() else []
        kinds = {group.name: read_optional(group / "type") for group in groups}
        return judge_groups({number: kind or "unknown" for number, kind in kinds.items()}, no_vfio(None))
    if device.address is None:
        return None
    kind = read_optional(device.directory / "iommu_group/type")
    if kind is None:
        return good(f"{device.name} is in no IOMMU group with a type: it reaches memory by physical addresses")
    members = sorted(entry.name for entry in (device.directory / "iommu_group/devices").iterdir())
    others = [name for name in members if name != device.name]
    return judge_group(device.name, kind, others, no_vfio(device), by_uio=not goes_by_vfio(device))


CHECKS = (
    Check(
        "ways",
        SUBJECT,
        "A device goes by UIO, or by VFIO, which needs an IOMMU and no privilege, and which lockdown does not forbid.",
        look_at_ways,
    ),
    Check(
        "uio_pci_generic",
        SUBJECT,
        "It is the kernel's part of a PCI driver in user space: /dev/uioN, which counts the device's interrupts.",
        look_for_uio,
    ),
    Check(
        "lockdown",
        SUBJECT,
        "A locked-down kernel, which Secure Boot causes on many distributions, keeps even root from the device's "
        "configuration space and BARs by UIO; it does not forbid VFIO.",
        look_at_lockdown,
    ),
    Check(
        "permissions",
        SUBJECT,
        "Only root may write the files for binding, /dev/uioN, configuration space and BARs, unless a udev rule says "
        "otherwise.",
        look_at_permissions,
    ),
    Check(
        "pagemap",
        SUBJECT,
        "By UIO a device needs physical addresses, which the kernel shows in /proc/self/pagemap to CAP_SYS_ADMIN only.",
        look_at_pagemap,
    ),
    Check(
        "iommu",
        SUBJECT,
        "Behind an IOMMU that translates, a device cannot use physical addresses; VFIO maps memory for it, UIO cannot.",
        look_at_iommu,
    ),
)
