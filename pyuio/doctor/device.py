# SPDX-License-Identifier: MIT
"""Checks of one device: which driver has it, its BARs, its interrupt pin, and its link."""

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
from pyuio.pci.aer import LinkErrors, is_counted, ports_above, read_link_errors
from pyuio.pci.bars import Bar, lost_bars, parse_resources
from pyuio.pci.capability_details import details
from pyuio.pci.config_image import ERROR_REPORTING, HEADER_LENGTH
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.discovery import FoundDevice
from pyuio.pci.link import Link, read_link

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
    """Check whether every BAR has an address, in the kernel's list and in the device."""
    if device is None or device.address is None:
        return None
    bars = parse_resources(read_text(device.directory / "resource"))
    with closing(ConfigSpace(device.directory)) as config:
        # Those of a virtual function are in the physical one (SR-IOV 1.1, section 3.4.1.11).
        lost = [] if (device.directory / "physfn").exists() else lost_bars(config, bars)
    if lost:
        return blocks(
            f"{device.name}: the device has lost the address of BAR {', '.join(str(bar.index) for bar in lost)}: it "
            "was reset, or programmed anew, without the kernel's doing",
            f"as root: pyuio remove {device.name}; pyuio rescan",
        )
    return judge_bars(device.name, bars)


def judge_pin(name: str, pin: int, irq: int, *, enabled: bool) -> Answer:
    """Judge a device's interrupt.

    Args:
        name: of the device.
        pin: its interrupt pin: 0 for none, 1 to 4.
        irq: the kernel's number of its line; 0 for none.
        enabled: whether a driver has enabled the device. The kernel routes the pin only then (``pci_enable_device``);
            before, `irq` is what the firmware wrote, which was not there for a device that came later.
    """
    if pin == 0:
        return blocks(
            f"{name} has no INTx pin, and uio_pci_generic delivers no other interrupt",
            "for a card that has MSI-X or MSI: pyuio bind --driver vfio-pci, where there is an IOMMU, or a UIO driver "
            "that delivers it (DPDK's igb_uio); otherwise poll a status register",
        )
    if pin > 4:
        return unknown(f"{name} gives its interrupt pin as {pin:#x}; if that is 0xff, the device is gone or asleep")
    if irq == 0 and not enabled:
        return unknown(
            f"{name} has INT{'ABCD'[pin - 1]}#; the kernel routes it when a driver takes the device",
            f"pyuio bind {name}, and ask again",
        )
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
    irq = int(read_optional(device.directory / "irq") or "0")
    return judge_pin(device.name, pin, irq, enabled=read_optional(device.directory / "enable") != "0")


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


def judge_link(name: str, link: Link, port: str, above: Link | None) -> Answer:
    """Judge the speed and the width of a link.

    Args:
        name: of the device.
        link: its end of it.
        port: the name of the port above it.
        above: the port's end; None if it is not known.
    """
    ends = [link] if above is None else [link, above]
    speed, width = min(end.maximum_speed for end in ends), min(end.maximum_width for end in ends)
    other = "" if above is None else f"; {port}, the port above, has a maximum of {above.maximum}"
    if link.speed is None or link.width is None:
        return blocks(f"the link of {name} is down{other}", "look whether the card has power, and sits in its slot")
    found = f"{name}: {link}{other}"
    if link.speed >= speed and link.width >= width:
        return good(found)
    return advice(
        found,
        f"both ends can do {speed:g} GT/s x{width}: put the card in again, without a riser or extension; look for a "
        "limit in the firmware's setup; some cards use a slower link while they have nothing to do",
    )


def look_at_link(device: FoundDevice | None) -> Answer | None:
    """Check the speed and width of the device's link; None if the device has none."""
    if device is None or device.address is None or (link := read_link(device.directory)) is None:
        return None
    port = next(ports_above(device.directory), None)
    return judge_link(device.name, link, port.name if port else "", read_link(port) if port else None)


def judge_link_errors(reported: dict[str, LinkErrors], *, counted: bool, switch_on: str = "") -> Answer:
    """Judge the errors on a link.

    Args:
        reported: by the device, and by the port above it, by name.
        counted: whether the kernel gets them.
        switch_on: the command that has the device report them; "" if it does, or if that is not known.
    """
    if not counted:
        return unknown(
            "the kernel does not get the errors of the device's link; the firmware may",
            "look into the firmware's log; pcie_ports=native on the kernel's command line takes them from the firmware",
        )
    told = [f"{name}: {errors}" for name, errors in reported.items() if errors]
    if told:
        fatal = any(errors.uncorrectable for errors in reported.values())
        first = (
            "dmesg says what was lost; after a fatal one, as root: pyuio remove DEVICE; pyuio rescan" if fatal else ""
        )
        remedy = "if they go on: put the card in again, without a riser; another slot; a slower link; pcie_aspm=off"
        return advice("; ".join(told), f"{first}{'; ' if fatal else ''}{remedy}")
    if switch_on:
        return unknown("none, but the device is set up not to report them", f"as root: {switch_on}")
    return good(f"none, says the kernel of {' and '.join(reported)}")


def look_at_link_errors(device: FoundDevice | None) -> Answer | None:
    """Check whether errors on the device's link were counted; None if the device has no counters."""
    if device is None or device.address is None or (errors := read_link_errors(device.directory)) is None:
        return None
    reported = {device.name: errors}
    port = next(ports_above(device.directory), None)
    if port is not None and (seen := read_link_errors(port)) is not None:
        reported[port.name] = seen
    switch_on = ""
    with closing(ConfigSpace(device.directory)) as config:
        if config.reports_errors is False and (offset := config.device_control) is not None:
            value = config.read16(offset) | ERROR_REPORTING
            switch_on = f"pyuio write {device.name} config+{offset:#x} {value:#x} --width 16 --force"
    return judge_link_errors(reported, counted=is_counted(device.directory), switch_on=switch_on)


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
    Check(
        "link_speed",
        SUBJECT,
        "A link that is slower or narrower than both ends can be takes longer for each transfer.",
        look_at_link,
    ),
    Check(
        "link_errors",
        SUBJECT,
        "A correctable error costs the time to send again, a nonfatal one a transaction, and a fatal one the device's "
        "set-up, because the kernel resets the link.",
        look_at_link_errors,
    ),
)
