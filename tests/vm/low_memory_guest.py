# SPDX-License-Identifier: MIT
"""test_low_memory.py runs this program in a guest that has memory above 4 GiB: cards get the memory that they reach."""

import ctypes
import random
import re
import sys
from pathlib import Path
from unittest import mock

from pyuio_drivers.edu import DMA_BUFFER, Edu

import pyuio
from pyuio.dma import DmaBuffer
from pyuio.dma.low_memory import LowMemory
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


assert max(zone.end for zone in zones()) > 1 << 32, "there is no memory above 4 GiB"
before = set_aside()
for bits in map(int, sys.argv[1:]):
    the_card_reaches_it((1 << bits) - 1)
    assert set_aside() == before, set_aside()
an_ordinary_page()
assert set_aside() == before, set_aside()
locked_memory_is_not_touched()
killed_in_a_search()
print("all is well")
