# SPDX-License-Identifier: MIT
"""A search for memory below a mask: what is above is held meanwhile, so that the kernel gives what is below.

The kernel takes hugepages from the highest zone that has free ones. So the search takes those above the mask first. It
asks the kernel for surplus hugepages, which are the kernel's again when nobody maps them: they are given back at the
end of the search, and when the process is killed in its middle. What is held is mapped and never touched, so it costs
no time but the kernel's to find it (and to zero it, with init_on_alloc=1).

Source: mm/hugetlb.c (gather_surplus_pages), mm/page_alloc.c (get_page_from_freelist).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import Any

from pyuio.kernel.hugepages import MAP_HUGETLB, HugepageSize, size_flag
from pyuio.kernel.memory_use import available, total
from pyuio.kernel.memory_zones import Zone, zones
from pyuio.kernel.processors import parse_list
from pyuio.process.signals import postponed_signals

# In bytes. With less the kernel does not start. (In the guest, with 1 GiB.)
_LEAST_MEMORY = 1 << 30
# In bytes. What one call takes: Ctrl-C waits for it.
_STEP = 1 << 30
# In bytes. As long as other programs have it, the kernel tries to make room for so much where nothing is free.
_MADE_FREE = 128 << 20
# In bytes. Other programs keep a sixteenth of the machine's memory, but at least, and at most, this. (What is below
# 4 GiB is all that may be left while the rest is held.)
_LEAST_LEFT, _MOST_LEFT = 128 << 20, 512 << 20


def spare() -> int:
    """Return how many bytes a search may take: what is available less what other programs may need meanwhile."""
    return max(0, available() - min(_MOST_LEFT, max(_LEAST_LEFT, total() // 16)))


def nothing_up_to(mask: int) -> bool:
    """Return whether the kernel gives programs no memory up to the mask, whatever is free."""
    return not any(zone.start <= mask and zone.for_programs for zone in zones())


def is_narrow(mask: int) -> bool:
    """Return whether there is memory above the mask."""
    return mask < max(zone.end for zone in zones()) - 1


def remedy(mask: int) -> str:
    """Return what to do where there is no memory up to the mask."""
    if not is_narrow(mask):
        return "free some memory"
    ways = ["close what has the low memory", "start the driver soon after boot"]
    if mask >= _LEAST_MEMORY - 1:
        ways.append(f"boot with mem={mask + 1 >> 20}M, which gives up all memory above")
    return f"{', or '.join(ways)}; by VFIO (bind='vfio-pci') any memory does"


class LowMemory(contextlib.ExitStack):
    """A ``with`` block inside which a mapping of hugepages gets more than are free, below the mask where there are any.

    Attributes:
        held: how many hugepages above the mask are held.
        free: how many more the kernel has at once.
        room: how many more can be mapped, if the kernel makes room; 0 if this process may not have any.

    Args:
        huge: their size; None if the kernel has none.
        mask: the highest address that is wanted.
    """

    def __init__(self, huge: HugepageSize | None, mask: int) -> None:
        super().__init__()
        self.held = self.free = self.room = 0
        self._huge = huge
        self._mask = mask

    def __enter__(self) -> LowMemory:
        """Hold what is above the mask."""
        if self._huge is not None and self._huge.may_change:
            try:
                self._hold(self._huge)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *exception: Any) -> None:
        """Give back what is held. If a signal's handler raises before it is done, `close` does the rest."""
        with postponed_signals():
            super().__exit__(*exception)

    def _hold(self, huge: HugepageSize) -> None:
        with postponed_signals():
            most = spare() // huge.size
            if not huge.change_overcommit(most):
                return
            self.callback(huge.change_overcommit, -most)
        above, below = self._zones()
        if above:
            self._stay_on(max(below, key=lambda zone: zone.free).node)
        while step := min(_STEP, _available(above, huge), spare()) // huge.size:
            before = _available(below, huge)
            if not self._take(step, huge):
                break
            self.held += step
            above, below = self._zones()
            if before - _available(below, huge) > step * huge.size // 2:
                break  # there is no more above, whatever the kernel says
        self.free = min(_available(below, huge), spare()) // huge.size
        self.room = min(max(_available(below, huge), _MADE_FREE), spare()) // huge.size

    def _zones(self) -> tuple[list[Zone], list[Zone]]:
        """Return the zones above the mask, of the nodes that have others, and those others."""
        found = zones()
        below = [zone for zone in found if zone.start <= self._mask]
        nodes = {zone.node for zone in below}
        return [zone for zone in found if zone.start > self._mask and zone.node in nodes], below

    def _stay_on(self, node: int) -> None:
        """Run on the processors of a NUMA node: there the kernel looks first."""
        with contextlib.suppress(OSError):  # no such file: not NUMA; or this process may not run there
            processors = parse_list(Path(f"/sys/devices/system/node/node{node}/cpulist").read_text())
            allowed = os.sched_getaffinity(0)
            if not allowed <= processors:
                with postponed_signals():
                    os.sched_setaffinity(0, processors)
                    self.callback(os.sched_setaffinity, 0, allowed)

    def _take(self, count: int, huge: HugepageSize) -> bool:
        """Map hugepages that nobody touches; return whether there were so many."""
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_HUGETLB | size_flag(huge.size)
        try:
            # Nobody may access them, or a process whose memory is locked (mlockall) would touch each.
            mapping = mmap.mmap(-1, count * huge.size, flags=flags, prot=0)
        except OSError:
            return False
        self.callback(mapping.close)
        mapping.madvise(mmap.MADV_DONTFORK)
        return True


def _available(zones: list[Zone], huge: HugepageSize) -> int:
    return sum(zone.available(huge.size) for zone in zones)
