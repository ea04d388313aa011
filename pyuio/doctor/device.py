# SPDX-License-Identifier: MIT
"""Checks of one device: which driver has it, its BARs, its interrupt pin, and power saving on its link."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from pyuio.claim import choice, group_users
from pyuio.claim.binding import bind_command
from pyuio.doctor.driver import goes_by_vfio
from pyuio.doctor.finding import Answer, Check, advice, blocks, good, unknown
from pyuio.kernel import vfio
from pyuio.kernel.drivers import IGB_UIO, VFIO_PCI
from pyuio.kernel.preempt_rt import FREEZES, WHY, is_realtime
from pyuio.kernel.sysfs import read_optional, read_text
from pyuio.pci.bars import Bar, parse_resources
from pyuio.pci.capability_details import details
from pyuio.pci.config_image import HEADER_LENGTH
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice

SUBJECT = "device"
ASPM_POLICY = Path("/sys/module/pcie_aspm/parameters/policy")


def look_at_driver(device: FoundDevice | None) -> Answer | None:
    """Check which kernel driver has the device."""
    if device is None:
        return None
    if device.nodes:
        nodes = ", ".join(f"/dev/{name}" for name in device.nodes)
        return good(f"{device.driver or 'a UIO driver'} has {device.device_name}, as {nodes}")
    if device.driver == VFIO_PCI:
        return good(f"{VFIO_PCI} has {device.name}, in IOMMU group {vfio.group_of(device.directory)}")
    if device.address is None:
        return good(f"no kernel driver has {device.name}")
    if taking := group_users.taking(device.directory):
        return blocks(f"{device.name}: {taking}", "end that program, or close the device there")
    chosen = choice.choose(device)
    if device.driver is None:
        takes = f"pyuio.open(..., bind=True) binds {chosen.driver}, because {chosen.reason}"
        return good(f"no kernel driver has {device.name}; {takes}")
    return advice(
        f"{device.driver} has {device.name}; pyuio.open takes it only with bind=True, and closing gives it back",
        f"unless it is in use (a disk, the network), as root: {bind_command(device.address, chosen.driver)}",
    )


def judge_bars(name: str, bars: tuple[Bar, ...]) -> Answer:
    """Judge whether a driver can use a device's BARs."""
    without = [bar for bar in bars if not bar.address]
    if without:
        return blocks(
            f"{name}: " + "; ".join(map(str, without)) + ": the kernel found no address for it",
            "pci=realloc on the kernel's command line; in the firmware's setup, allow BARs above 4 GB",
        )
    return good(f"{name}: " + ("; ".join(map(str, bars)) or "no BARs"))


def look_at_bars(device: FoundDevice | None) -> Answer | None:
    """Check whether every BAR has an address."""
    if device is None or device.address is None:
        return None
    return judge_bars(device.name, parse_resources(read_text(device.directory / "resource")))


def judge_pin(name: str, pin: int, irq: int) -> Answer:
    """Judge a device's interrupt.

    Args:
        name: of the device.
        pin: its interrupt pin: 0 for none, 1 to 4.
        irq: the kernel's number of its line; 0 for none.
    """
    if pin == 0:
        return blocks(
            f"{name} has no INTx pin, and uio_pci_generic delivers no other interrupt",
            "for a card that has MSI-X or MSI: pyuio bind --driver vfio-pci, where there is an IOMMU, or a UIO driver "
            "that delivers it (DPDK's igb_uio); otherwise poll a status register",
        )
    if pin > 4:
        return unknown(f"{name} gives its interrupt pin as {pin:#x}; if that is 0xff, the device is gone or asleep")
    if irq == 0:
        return blocks(
            f"{name} has INT{'ABCD'[pin - 1]}#, but the firmware routed it nowhere",
            "look for the card's interrupt in the firmware's setup, or put the card into another slot",
        )
    return good(f"{name} has INT{'ABCD'[pin - 1]}#")


def judge_vectors(name: str, pin: int, messages: dict[str, int], visible: bool) -> Answer:
    """Judge the interrupts of a device that goes by ``vfio-pci``.

    Args:
        name: of the device.
        pin: its interrupt pin: 0 for none, 1 to 4.
        messages: how many it has by MSI and MSI-X.
        visible: whether this user may see the capabilities, which tell.
    """
    has = [f"INT{'ABCD'[pin - 1]}#"] if 1 <= pin <= 4 else []
    has += [f"{kind} {count}" for kind, count in messages.items()]
    if has:
        return good(f"{name} has {', '.join(has)}, which vfio-pci delivers" + ("" if visible else "; MSI is not shown"))
    if not visible:
        return unknown(f"{name} has no INTx pin; only root may see whether it has MSI or MSI-X", "run it as root")
    return blocks(f"{name} has neither an INTx pin nor MSI nor MSI-X", "poll a status register")


def look_at_pin(device: FoundDevice | None) -> Answer | None:
    """Check whether the device has an interrupt that its kernel driver for user space delivers."""
    if device is None or device.address is None:
        return None
    if device.driver == FREEZES and is_realtime():
        return blocks(f"{device.name}: {WHY}", f"pyuio bind {device.name} --driver uio_pci_generic")
    if device.driver == IGB_UIO:
        return good(f"{device.name}: igb_uio delivers its interrupt, INTx, MSI or MSI-X")
    with closing(ConfigSpace(device.directory)) as config:
        pin = config.interrupt_pin
        if goes_by_vfio(device):
            counts = ((one.name, details(config, one).get("messages")) for one in config.capabilities())
            messages = {name: count for name, count in counts if isinstance(count, int)}
            return judge_vectors(device.name, pin, messages, config.size > HEADER_LENGTH)
    return judge_pin(device.name, pin, int(read_optional(device.directory / "irq") or "0"))


def judge_aspm(policy: str, states: dict[str, str]) -> Answer:
    """Judge what power saving on a PCI Express link means for its latency.

    Args:
        policy: the text of the parameter ``policy`` of ``pcie_aspm``: "[default] performance powersave".
        states: the attributes ``l0s_aspm``, ``l1_aspm`` and so on that the device's link has, each "0" or "1".
    """
    chosen = re.search(r"\[(\w+)\]", policy)
    on = sorted(name.removesuffix("_aspm") for name, value in states.items() if value == "1")
    found = f"policy {chosen[1] if chosen else 'unknown'}; on at the device's link: {', '.join(on) or 'none'}"
    if not on:
        return good(found)
    return advice(found, "pcie_aspm.policy=performance, or pcie_aspm=off, on the kernel's command line")


def look_at_aspm(device: FoundDevice | None) -> Answer | None:
    """Check whether the device's link saves power; None if the device has no such link."""
    if device is None or device.address is None:
        return None
    attributes = sorted((device.directory / "link").glob("*_aspm"))
    policy = read_optional(ASPM_POLICY)
    if policy is None or not attributes:
        return None
    return judge_aspm(policy, {path.name: read_text(path) for path in attributes})


CHECKS = (
    Check(
        "bound_driver",
        SUBJECT,
        "Only one kernel driver can have a device, and pyuio takes a device from it only on request.",
        look_at_driver,
    ),
    Check(
        "bars",
        SUBJECT,
        "A BAR without an address cannot be mapped, so its registers are out of reach.",
        look_at_bars,
    ),
    Check(
        "interrupt_pin",
        SUBJECT,
        "uio_pci_generic delivers only the interrupt of the INTx pin, and masks it in the command register; vfio-pci "
        "delivers MSI and MSI-X, too.",
        look_at_pin,
    ),
    Check(
        "link_power",
        SUBJECT,
        "A link in an ASPM state must wake first, which adds up to tens of microseconds to a register access or an "
        "interrupt.",
        look_at_aspm,
    ),
)
