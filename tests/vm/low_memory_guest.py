# SPDX-License-Identifier: MIT
"""test_low_memory.py runs this program in a guest that has memory above 4 GiB: cards get the memory that they reach.

``low_memory_guest BITS...`` looks at all of it, with these masks. ``low_memory_guest PART`` is one of `PARTS`.
"""

import ctypes
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from pyuio_drivers.edu import DMA_BUFFER, Edu

import pyuio
from pyuio.dma import DmaBuffer
from pyuio.dma.low_memory import LowMemory
from pyuio.dma.pinned_hugepages import PinnedHugepages
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.memory_use import available
from pyuio.kernel.memory_zones import zones
from tests.guest.support import killed_amid, result_of_a_fork, start_dma, wait_for_dma

LOW = (1 << 32) - 1
HUGE = hugepages()[0]
OVERCOMMIT = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages")


def set_aside() -> tuple[int, str]:
    """Return what the kernel has of hugepages, and how many more it would make."""
    return HUGE.total, OVERCOMMIT.read_text()


def opened() -> Edu:
    """Return a driver of the card, which QEMU made so that it has 32 bits of address."""
    return Edu.open(next(device for device in pyuio.devices() if device.ids == "1234:11e8"))


def transferred(card: Edu, buffer: DmaBuffer, at: int) -> None:
    """Have the card read bytes of the buffer and write them to another place there."""
    buffer[at : at + 50] = data = random.randbytes(50)
    for source, destination, to_memory in (
        (buffer[at : at + 50].address, DMA_BUFFER, False),
        (DMA_BUFFER, buffer[at + 50 : at + 100].address, True),
    ):
        start_dma(card, source, destination, 50, to_memory)
        wait_for_dma(card)
    assert bytes(buffer[at + 50 : at + 100]) == data


def the_card_reaches_it(mask: int) -> None:
    """Memory of each kind is below the mask, and where the card finds it."""
    with opened() as card:
        dma = card.device.dma
        dma.mask = mask
        with dma.alloc(4096) as small, dma.alloc(5 << 20) as several:
            for buffer, at in ((small, 0), (several, (2 << 20) - 70)):
                assert buffer.address + buffer.size - 1 <= mask
                transferred(card, buffer, at)
            print(f"{mask:#x}: {small.address:#x} and {several.address:#x}")
        with dma.scatter(9 << 20) as scattered:
            assert all(segment.address + segment.size - 1 <= mask for segment in scattered.segments)
            transferred(card, scattered, (4 << 20) - 50)


def an_ordinary_page() -> None:
    """What there is without hugepages. (What is above is held by some, so that few ordinary pages are.)"""
    with opened() as card:
        with LowMemory(HUGE, LOW) as search, mock.patch("pyuio.dma.physical_memory.hugepages", list):
            assert search.held
            buffer = card.device.dma.alloc(4096, mask=LOW)
        assert buffer.page.size == 4096
        assert buffer.address <= LOW
        transferred(card, buffer, 0)
        buffer.verify()
        print(f"an ordinary page: {buffer.address:#x}")


def locked_memory_is_not_touched() -> None:
    """A search in a process that has locked its memory takes no page that it does not look at."""

    def touched() -> int:
        assert ctypes.CDLL(None, use_errno=True).mlockall(3) == 0  # MCL_CURRENT | MCL_FUTURE
        with LowMemory(HUGE, LOW) as search:
            assert search.held
            found = re.search(r"^HugetlbPages:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
            assert found is not None
            return int(found[1])

    assert result_of_a_fork(touched) == 0


def killed_in_a_search() -> None:
    """The kernel has all back that the search held."""

    def begin() -> tuple[int, object]:
        search = LowMemory(HUGE, LOW)
        search.__enter__()
        return search.held, search

    before = HUGE.total, available()
    held = killed_amid(begin)
    assert held * HUGE.size > 500 << 20, held
    assert HUGE.total == before[0]
    assert available() > before[1] - (100 << 20)
    OVERCOMMIT.write_text("0")  # as docs/dma.md says


def less_memory(mask: int) -> None:
    """After the boot with what the error's message says."""
    assert max(zone.end for zone in zones()) <= mask + 1
    the_card_reaches_it(mask)


def refused(card: Edu, size: int, mask: int, kept: list[DmaBuffer]) -> str:
    """Return the message of the error that comes when nothing is left; what there was until then is kept."""
    dma = card.device.dma
    while True:
        try:
            kept.append(dma.alloc(size, mask=mask))
        except pyuio.DmaMemoryError as error:
            print(f"after {len(kept)} buffers: {error}")
            return str(error)
        assert kept[-1].address + size - 1 <= mask


def nothing_is_left() -> None:
    """Searches that find nothing end, say why, and give all back."""
    taken = []
    with LowMemory(HUGE, LOW) as search:
        count = search.room
        while count:
            try:
                taken.append(PinnedHugepages(HUGE, count, lambda addresses: below(addresses, LOW), shared=False))
            except OSError:
                count //= 2
    print(f"{sum(pages.count for pages in taken)} hugepages below 4 GiB are taken")
    with opened() as card:
        kept: list[DmaBuffer] = []
        message = refused(card, 2 << 20, LOW, kept)
        before = set_aside(), available()
        again = refused(card, 2 << 20, LOW, kept)
        assert "hugepages above it were held meanwhile, and none is below; close what has the low memory" in message
        assert "or boot with mem=4096M" in again
        several = refused(card, 5 << 20, LOW, [])
        assert "and none of them are below and adjacent; close what has the low memory" in several
        assert "hugepages=" not in several, "they would come from above"
        scattered = ""
        try:
            card.device.dma.scatter(64 << 20, mask=LOW)
        except pyuio.DmaMemoryError as error:
            scattered = str(error)
        assert "are below; close what has the low memory" in scattered
        assert set_aside() == before[0]
        assert available() > before[1] - (100 << 20)


def below(addresses: list[int], mask: int) -> list[int]:
    """Return the indices of the hugepages that are not above the mask."""
    return [index for index, address in enumerate(addresses) if address <= mask]


GROUPS = Path("/sys/fs/cgroup")


def in_a_group(limits: dict[str, str], what: Callable[[], object]) -> object:
    """Call a function in a process of a control group with these limits; fail if the kernel ends one there."""
    group = GROUPS / "pyuio-test"

    def enter() -> object:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        for file, limit in limits.items():
            (group / file).write_text(limit)
        return what()

    group.mkdir()
    try:
        result = result_of_a_fork(enter)
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
        assert events["oom_kill"] == "0", events
        return result
    finally:
        group.rmdir()


def groups() -> None:
    """A control group that may have little memory bounds a search, and the kernel ends nobody for it."""
    if not (GROUPS / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", GROUPS], check=True)
    (GROUPS / "cgroup.subtree_control").write_text("+memory +hugetlb")

    def one(size: int, *, ordinary: bool) -> str:
        with opened() as card, mock.patch("pyuio.dma.physical_memory.hugepages", list if ordinary else hugepages):
            try:
                buffer = card.device.dma.alloc(size, mask=LOW)
            except pyuio.DmaMemoryError as error:
                return str(error)
            assert buffer.address + size - 1 <= LOW
            transferred(card, buffer, 0)
            return "found"

    little = {"memory.max": str(64 << 20)}
    assert in_a_group(little, partial(one, 5 << 20, ordinary=False)) == "found", "hugepages do not count"
    message = in_a_group(little, partial(one, 4096, ordinary=True))
    print(message)
    assert message == "found" or "its control group (memory.max) has room for no more" in str(message)
    no_hugepages = {"hugetlb.2MB.max": "0"}
    assert in_a_group(no_hugepages, partial(one, 4096, ordinary=False)) == "found", "an ordinary page does"
    refusal = str(in_a_group(no_hugepages, partial(one, 5 << 20, ordinary=False)))
    assert "memory is in small pieces, or a control group (hugetlb.2MB.max) forbids it" in refusal


PARTS: dict[str, Callable[[], object]] = {
    **{f"boot {bits}": partial(less_memory, (1 << bits) - 1) for bits in (30, 31, 32)},
    "nothing": nothing_is_left,
    "groups": groups,
}


def everything(bits: list[int]) -> None:
    """Look at what there is on a machine with memory above 4 GiB."""
    assert max(zone.end for zone in zones()) > 1 << 32, "there is no memory above 4 GiB"
    before = set_aside()
    for number in bits:
        the_card_reaches_it((1 << number) - 1)
        assert set_aside() == before, set_aside()
    an_ordinary_page()
    assert set_aside() == before, set_aside()
    locked_memory_is_not_touched()
    killed_in_a_search()


words = " ".join(sys.argv[1:])
if words in PARTS:
    PARTS[words]()
else:
    everything([int(word) for word in sys.argv[1:]])
print("all is well")
