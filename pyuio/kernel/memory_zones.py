# SPDX-License-Identifier: MIT
"""The zones of physical memory: where each is, and what the kernel would give a program from it.

The kernel takes a program's memory from the highest zone that has some, so zone DMA32, below 4 GiB on x86, comes last;
and from zone DMA, below 16 MiB, it gives none (Documentation/admin-guide/sysctl/vm.rst, lowmem_reserve_ratio).

Sources: proc(5), Documentation/filesystems/proc.rst, mm/vmstat.c.
"""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import KernelFileError
from pyuio.kernel.sysfs import read_text

_ZONEINFO = Path("/proc/zoneinfo")
_BUDDYINFO = Path("/proc/buddyinfo")


class Zone(NamedTuple):
    """One zone of one NUMA node, as it was when it was looked at. All but the numbers of `blocks` are in bytes.

    Attributes:
        node: number of the NUMA node.
        name: ``DMA``, ``DMA32``, ``Normal``, ``Movable``.
        start: the first physical address.
        end: the one after the last.
        size: what of it is memory.
        protected: what is kept for requests that must have memory from a zone as low as this.
        low: the watermark at which the kernel begins to free more.
        free: what is free.
        blocks: how many free blocks there are, of one page, of two, four and so on.
    """

    node: int
    name: str
    start: int
    end: int
    size: int
    protected: int
    low: int
    free: int
    blocks: tuple[int, ...]

    @property
    def for_programs(self) -> bool:
        """Whether the kernel gives programs any memory from it."""
        return self.size > self.protected

    def available(self, size: int) -> int:
        """Return how many bytes a program would get at once in pieces of `size` bytes, a power of two."""
        sizes = ((mmap.PAGESIZE << order, number) for order, number in enumerate(self.blocks))
        free = sum(block * number for block, number in sizes if block >= size)
        return max(0, min(free, self.free - self.low - self.protected)) // size * size


def zones() -> list[Zone]:
    """Return the zones that have memory. KernelFileError: their files have another form than expected."""
    return parse_zones(read_text(_ZONEINFO), read_text(_BUDDYINFO))


def parse_zones(zoneinfo: str, buddyinfo: str) -> list[Zone]:
    """Return the zones that have memory, from the text of ``/proc/zoneinfo`` and of ``/proc/buddyinfo``.

    Raises:
        KernelFileError: a text has another form than expected.
    """
    blocks = {}
    for line in buddyinfo.splitlines():
        match = re.fullmatch(r"Node (\d{1,9}), zone +(\w{1,20}) +([\d ]{1,500})", line.strip())
        if match is not None:
            blocks[match[1], match[2]] = tuple(map(int, match[3].split()))
    found = []
    for part in re.split(r"^(?=Node )", zoneinfo, flags=re.MULTILINE):
        heading, _, text = part.partition("\n")
        match = re.fullmatch(r"Node (\d{1,9}), zone +(\w{1,20})", heading)
        if match is None:
            continue
        if _pages(text, "present") == 0:
            continue
        start = _pages(text, "start_pfn:")
        protection = re.search(r"^ *protection: \(([\d, ]{1,200})\)$", text, re.MULTILINE)
        most = max(map(int, re.findall(r"\d+", protection[1])), default=0) if protection else 0
        key = match[1], match[2]
        if key not in blocks:
            raise KernelFileError(f"{_BUDDYINFO} should have node {key[0]}, zone {key[1]}, as {_ZONEINFO} has")
        found.append(
            Zone(
                int(match[1]),
                match[2],
                start * mmap.PAGESIZE,
                (start + _pages(text, "spanned")) * mmap.PAGESIZE,
                _pages(text, "present") * mmap.PAGESIZE,
                most * mmap.PAGESIZE,
                _pages(text, "low") * mmap.PAGESIZE,
                _pages(text, "pages free") * mmap.PAGESIZE,
                blocks[key],
            )
        )
    if not found:
        raise KernelFileError(f"{_ZONEINFO} should name zones with memory, not {zoneinfo[:80]!r}")
    return found


def _pages(text: str, item: str) -> int:
    match = re.search(rf"^ *{item} +(\d{{1,18}})$", text, re.MULTILINE)
    if match is None:
        raise KernelFileError(f"{_ZONEINFO} should have a line {item!r} with a number for each zone")
    return int(match[1])
