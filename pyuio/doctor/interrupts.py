# SPDX-License-Identifier: MIT
"""Checks of interrupts: which CPUs they go to, whether irqbalance moves them, and the line of the named device.

Sources: Documentation/core-api/irq/irq-affinity.rst, Documentation/filesystems/proc.rst (``/proc/interrupts``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pyuio.doctor import facts
from pyuio.doctor.driver import goes_by_vfio
from pyuio.doctor.finding import Answer, Check, advice, box, counted, good, unknown
from pyuio.doctor.scheduling import WANTED_PRIORITY
from pyuio.kernel.irq import effective_affinity, parse_line
from pyuio.kernel.irq import threads as interrupt_threads
from pyuio.kernel.processors import format_list
from pyuio.kernel.sysfs import read_optional, read_text
from pyuio.kernel.uio import UioNode
from pyuio.pci.assigned_interrupt import line_of_node
from pyuio.pci.discovery import FoundDevice

SUBJECT = "interrupts"
IRQS = Path("/proc/irq")
# The default priority of a PREEMPT_RT kernel's interrupt threads (kernel/irq/manage.c).
USUAL_THREAD_PRIORITY = 50


def affinities() -> dict[int, frozenset[int]]:
    """Return the CPUs that each interrupt with a handler goes to."""
    found = {}
    for entry in IRQS.iterdir():
        # Each handler has a directory below its interrupt's directory.
        if entry.name.isdigit() and any(below.is_dir() for below in entry.iterdir()):
            cpus = effective_affinity(int(entry.name))
            if cpus:
                found[int(entry.name)] = cpus
    return found


def judge_affinities(found: dict[int, frozenset[int]], online: tuple[int, ...], isolated: tuple[int, ...]) -> Answer:
    """Judge the CPUs that interrupts go to.

    Args:
        found: the CPUs of each interrupt.
        online: the CPUs that are online.
        isolated: the CPUs that the scheduler leaves alone.
    """
    disturbing = sorted(irq for irq, cpus in found.items() if set(cpus) & set(isolated))
    if disturbing:
        names = counted([str(irq) for irq in disturbing])
        rest = format_list(set(online) - set(isolated))
        return advice(
            f"interrupts that go to isolated CPUs: {names}",
            f"as root, for each N of them: echo {rest} > /proc/irq/N/smp_affinity_list; at boot, on the kernel's "
            f"command line: irqaffinity={rest} isolcpus=managed_irq,domain,{format_list(isolated)}",
        )
    numbers: dict[int, int] = {}
    for cpus in found.values():
        for cpu in cpus:
            numbers[cpu] = numbers.get(cpu, 0) + 1
    spread = counted([f"CPU {cpu}: {numbers[cpu]}" for cpu in sorted(numbers)])
    return good(f"interrupts by CPU: {spread or 'none'}" + ("; none goes to an isolated one" if isolated else ""))


def look_at_affinities(device: FoundDevice | None) -> Answer:
    """Check where the interrupts go, except the device's own, which may go to an isolated CPU on purpose."""
    own = device_irq(device)
    others = {irq: cpus for irq, cpus in affinities().items() if irq != own}
    return judge_affinities(others, facts.online_cpus(), facts.isolated_cpus() or ())


# -- irqbalance --


def processes() -> Iterator[tuple[int, str]]:
    """Yield the number and the name (up to 15 characters) of every process that this user sees."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (name := facts.text_of(entry / "comm")) is not None:
            yield int(entry.name), name


def look_at_irqbalance() -> Answer:
    """Check whether irqbalance runs."""
    running = [number for number, name in processes() if name == "irqbalance"]
    if running:
        return advice(
            f"irqbalance runs (process {running[0]})",
            "systemctl disable --now irqbalance, as root; or keep it off the isolated CPUs: IRQBALANCE_BANNED_CPULIST "
            "in /etc/default/irqbalance (Debian, Ubuntu) or /etc/sysconfig/irqbalance (Fedora)",
        )
    if facts.text_of(Path("/proc/1/comm")) is None:
        return unknown("other users' processes are hidden (/proc is mounted with hidepid)", "run pyuio doctor as root")
    return good("irqbalance does not run")


# -- the device's own --


def device_irq(device: FoundDevice | None) -> int | None:
    """Return the kernel's number of a device's interrupt; None if it has none, or if no UIO driver has the device.

    Without a UIO driver the number in sysfs means something else: another driver may use MSI, and the number is then
    that of an MSI; without any driver it is the firmware's guess. The line of a device that is not a PCI function is
    found by the name of its UIO node.
    """
    if device is None or not device.nodes:
        return None
    if device.address is None:
        return line_of_node(UioNode(device.uio)) if device.uio else None
    return int(read_text(device.directory / "irq")) or None


def judge_line(irq: int, handlers: list[str], own: str, cpus: frozenset[int]) -> Answer:
    """Judge the line of a device's interrupt.

    Args:
        irq: the kernel's number of the interrupt.
        handlers: the names of its handlers.
        own: the name of the device's own handler, which is one of them.
        cpus: the CPUs that it goes to.
    """
    others = list(handlers)
    if own in others:
        others.remove(own)
    where = f"interrupt {irq}, which goes to CPU {format_list(cpus)}" if cpus else f"interrupt {irq}"
    if not others:
        return good(f"{where}, shared with nobody")
    return advice(
        f"{where}, shared with {counted(others)}",
        "put the card into another slot, or unbind the other devices (echo ADDRESS > "
        "/sys/bus/pci/devices/ADDRESS/driver/unbind, as root); MSI is never shared",
    )


def look_at_line(device: FoundDevice | None) -> Answer | None:
    """Check which line the device's interrupt has, which CPUs it goes to, and which drivers share it."""
    if device is None:
        return None
    if not device.nodes:
        # VFIO sets up what a program asks for when it has the device open.
        if read_optional(device.directory / "irq") in (None, "0") or goes_by_vfio(device):
            return None
        return unknown(f"the kernel sets the line up when a UIO driver binds {device.name}", "bind it, and ask again")
    irq = device_irq(device)
    if irq is None:
        return None  # the check interrupt_pin reports this
    line = parse_line(read_text(Path("/proc/interrupts")), irq)
    if line is None or not line.handlers:
        return unknown(f"interrupt {irq} has no handler in /proc/interrupts now; igb_uio has one while it is open")
    own = device.driver if device.address else device.uio_name
    return judge_line(irq, line.handlers, own or "", effective_affinity(irq))


def judge_thread(name: str, number: int, priority: int) -> Answer:
    """Judge the priority of a device's interrupt thread.

    Args:
        name: of the thread.
        number: its process id.
        priority: its real-time priority.
    """
    found = f"{name} (process {number}) has priority {priority}"
    if priority > USUAL_THREAD_PRIORITY:
        return good(found)
    return advice(found, f"chrt -f -p {WANTED_PRIORITY + 6} {number}, as root, each time a driver is bound")


def look_at_thread(device: FoundDevice | None) -> Answer | None:
    """Check the priority of the device's interrupt thread, which exists with PREEMPT_RT, threadirqs or Linux 6.12."""
    irq = device_irq(device)
    if irq is None:
        return None
    threads = [(os.sched_getparam(thread.id).sched_priority, thread.id) for thread in interrupt_threads(irq)]
    if not threads:
        return None
    priority, number = min(threads)
    return judge_thread(read_text(Path(f"/proc/{number}/comm")), number, priority)


CHECKS = (
    Check(
        "interrupt_cpus",
        SUBJECT,
        "An interrupt that goes to the handler's CPU stops the handler until the kernel has handled it.",
        look_at_affinities,
    ),
    Check(
        "irqbalance",
        SUBJECT,
        "irqbalance runs every ten seconds, and can move interrupts that were steered by hand.",
        box(look_at_irqbalance),
    ),
    Check(
        "interrupt_line",
        SUBJECT,
        "On a shared line the kernel calls every handler at every interrupt, so a storm from one device disturbs all.",
        look_at_line,
    ),
    Check(
        "interrupt_thread",
        SUBJECT,
        "Where interrupts are threads (PREEMPT_RT, threadirqs, Linux 6.12), UIO's handler waits for every real-time "
        "thread of a higher priority than its own, and for those of the same.",
        look_at_thread,
    ),
)
