# SPDX-License-Identifier: MIT
"""Checks of memory: hugepages and low memory for DMA, locked memory, transparent hugepages."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

from pyuio.dma import low_memory
from pyuio.doctor.finding import Answer, Check, advice, box, good, unknown
from pyuio.kernel import privilege
from pyuio.kernel.hugepages import HugepageSize, hugepages
from pyuio.kernel.memory_zones import Zone, zones
from pyuio.kernel.sysfs import read_optional, read_text

SUBJECT = "memory"
_4_GIB, _HUGEPAGE, _ENOUGH = 4 << 30, 2 << 20, 64 << 20
TRANSPARENT_HUGEPAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def judge_hugepages(sizes: dict[HugepageSize, tuple[int, int]], root: bool, command: str) -> Answer:
    """Judge what the hugepages mean for DMA buffers.

    Args:
        sizes: the number of total and of free pages of each size.
        root: whether this user may set more aside.
        command: the command that sets more aside.
    """
    if not sizes:
        return advice("this kernel has no hugepages: a DMA buffer is at most one page (4 KiB)", "CONFIG_HUGETLBFS=y")
    found = "; ".join(f"{size}: {total}, {free} free" for size, (total, free) in sizes.items())
    if any(free > 0 for _, free in sizes.values()):
        return good(found)
    on_demand = "the kernel finds one for root when a buffer needs it, if there is contiguous memory then"
    return advice(
        f"{found}; {on_demand if root else 'this user may not have more'}",
        f"{command}, as root; at boot, before memory fragments: hugepages=16 on the kernel's command line",
    )


def look_at_hugepages() -> Answer:
    """Check the hugepages that are set aside."""
    sizes = hugepages()
    command = sizes[0].command(16) if sizes else ""
    return judge_hugepages({size: (size.total, size.free) for size in sizes}, os.geteuid() == 0, command)


def judge_low_memory(found: list[Zone]) -> Answer:
    """Judge what the zones of memory mean for cards whose addresses have 32 bits or fewer."""
    if all(zone.end <= _4_GIB for zone in found):
        return good("all memory is below 4 GiB")
    low = sum(zone.available(_HUGEPAGE) for zone in found if zone.start < _4_GIB)
    text = f"there is memory above 4 GiB; {low >> 20} MiB below it are free in pieces of 2 MiB"
    return good(text) if low >= _ENOUGH else advice(text, low_memory.remedy(_4_GIB - 1))


def look_at_low_memory() -> Answer:
    """Check whether memory below 4 GiB is free."""
    return judge_low_memory(zones())


def judge_locked_memory(limit: int | None, unlimited: bool, mapped: int) -> Answer:
    """Judge the limit on locked memory.

    Args:
        limit: in bytes; None for no limit.
        unlimited: whether a capability lifts the limit.
        mapped: how many bytes a process such as this one has mapped; mlockall counts all of them, touched or not.
    """
    if unlimited:
        return good("no limit for this user, who has CAP_IPC_LOCK")
    if limit is None:
        return good("no limit")
    found = f"this user may lock {limit >> 10} KiB; this Python process alone has {mapped >> 10} KiB mapped"
    if limit >= 2 * mapped:
        return good(found)
    return advice(found, privilege.remedy(privilege.CAP_IPC_LOCK, "memlock", "unlimited"))


def parse_mapped(text: str) -> int:
    """Return how many bytes a process has mapped, from the text of its ``/proc/PID/status``.

    Raises:
        ValueError: the text does not tell.
    """
    match = re.search(r"^VmSize:\s*(\d+) kB$", text, re.MULTILINE)
    if match is None:
        raise ValueError("/proc/self/status has no line VmSize with a number of kB")
    return int(match[1]) << 10


def look_at_locked_memory() -> Answer:
    """Check how much memory this user may lock."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    mapped = parse_mapped(read_text(Path("/proc/self/status")))
    unlimited = privilege.has(privilege.CAP_IPC_LOCK)
    return judge_locked_memory(None if limit == resource.RLIM_INFINITY else limit, unlimited, mapped)


def judge_transparent(text: str | None) -> Answer:
    """Judge the text of ``transparent_hugepage/enabled``, "always [madvise] never"; None if there is no such file."""
    if text is None:
        return good("this kernel has none")
    match = re.search(r"\[(\w+)\]", text)
    if match is None:
        return unknown(f"{TRANSPARENT_HUGEPAGES} has an unexpected form: {text[:80]!r}")
    if match[1] != "always":
        return good(match[1])
    return advice(
        "always: for every process",
        f"echo madvise > {TRANSPARENT_HUGEPAGES}, as root; at boot: transparent_hugepage=madvise",
    )


def look_at_transparent() -> Answer:
    """Check whether the kernel gathers ordinary memory into hugepages without the program's request."""
    return judge_transparent(read_optional(TRANSPARENT_HUGEPAGES))


CHECKS = (
    Check(
        "hugepages",
        SUBJECT,
        "By UIO, a contiguous DMA buffer that is longer than a page comes from a hugepage; VFIO needs none.",
        box(look_at_hugepages),
    ),
    Check(
        "low_memory",
        SUBJECT,
        "By UIO, a card whose addresses have 32 bits or fewer needs memory below 4 GiB, which the kernel gives last; "
        "by VFIO, any memory does.",
        box(look_at_low_memory),
    ),
    Check(
        "memlock",
        SUBJECT,
        "Memory that is not locked (mlockall) may be swapped out or not be present yet, and then a page fault in the "
        "handler takes microseconds to milliseconds; by VFIO, memory for DMA counts as locked, too.",
        box(look_at_locked_memory),
    ),
    Check(
        "transparent_hugepages",
        SUBJECT,
        "khugepaged replaces pages of a running process by hugepages, and a thread that touches them meanwhile waits.",
        box(look_at_transparent),
    ),
)
