# SPDX-License-Identifier: MIT
"""The zones of physical memory, what a search in them may take, and what its messages say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.dma import low_memory
from pyuio.doctor import memory
from pyuio.errors import KernelFileError
from pyuio.kernel import memory_use, memory_zones
from pyuio.kernel.memory_zones import Zone, parse_zones

HUGE = 2 << 20
GIB = 1 << 30

# Recorded in a guest of 3 GiB, shortened.
ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 1735
  pages free     3840
        boost    0
        min      86
        low      107
        high     128
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 1923, 2891, 2891, 2891)
      nr_free_pages 3840
  start_pfn:           1
Node 0, zone    DMA32
  pages free     489352
        low      13946
        spanned  1044480
        present  520158
        protection: (0, 0, 968, 968, 968)
  start_pfn:           4096
Node 0, zone   Normal
  pages free     229913
        low      7063
        spanned  262144
        present  262144
        protection: (0, 0, 0, 0, 0)
  start_pfn:           1048576
Node 0, zone  Movable
  pages free     0
        low      0
        spanned  0
        present  0
        protection: (0, 0, 0, 0, 0)
  start_pfn:           0
"""
BUDDYINFO = """\
Node 0, zone      DMA      0      0      0      0      0      0      0      1      0      1      3 
Node 0, zone    DMA32      2      3      2      1      1      1      1      2      2      2    476 
Node 0, zone   Normal      0      2      1      2      2      1      2      3      2      1    223 
"""  # noqa: W291


def test_zones() -> None:
    dma, dma32, normal = parse_zones(ZONEINFO, BUDDYINFO)
    assert (dma.name, dma.start, dma.end) == ("DMA", 4096, 16 << 20)
    assert (dma32.name, dma32.start, dma32.end) == ("DMA32", 16 << 20, 4 * GIB)
    assert (normal.name, normal.start, normal.end) == ("Normal", 4 * GIB, 5 * GIB)
    assert normal.free == 229913 * 4096
    assert (dma32.low, dma32.protected, dma32.size) == (13946 * 4096, 968 * 4096, 520158 * 4096)
    assert [zone.for_programs for zone in (dma, dma32, normal)] == [True, True, True]
    assert not dma._replace(protected=4000 * 4096).for_programs
    # The blocks limit it, or the pages that are kept.
    assert normal.available(HUGE) == (229913 - 7063) * 4096 // HUGE * HUGE
    assert dma32.available(HUGE) == (489352 - 13946 - 968) * 4096 // HUGE * HUGE
    assert dma32.available(4096) == (489352 - 13946 - 968) * 4096
    assert dma32._replace(blocks=(500, 0, 3)).available(HUGE) == 0
    assert dma32._replace(free=0).available(4096) == 0


@pytest.mark.parametrize(
    ("zoneinfo", "buddyinfo", "message"),
    [
        ("", "", "should name zones"),
        (ZONEINFO, "", "buddyinfo should have node 0, zone DMA"),
        (ZONEINFO.replace("start_pfn:", "start:"), BUDDYINFO, "start_pfn:"),
        (ZONEINFO.replace("present", "here"), BUDDYINFO, "present"),
        (ZONEINFO.replace("4096\n", "9" * 30 + "\n"), BUDDYINFO, "start_pfn:"),
    ],
)
def test_files_of_another_form(zoneinfo: str, buddyinfo: str, message: str) -> None:
    with pytest.raises(KernelFileError, match=message):
        parse_zones(zoneinfo, buddyinfo)


@given(st.text("Node 0,zeDMA32pagsfrtl\n", max_size=80), st.text("Node 0,zeDMA32\n", max_size=60))
def test_any_text(zoneinfo: str, buddyinfo: str) -> None:
    with pytest.raises(KernelFileError):
        parse_zones(zoneinfo, buddyinfo)
    with pytest.raises(KernelFileError):
        parse_zones(f"Node 0, zone DMA\n{zoneinfo}", buddyinfo)


def test_this_machine() -> None:
    found = memory_zones.zones()
    assert all(zone.start < zone.end for zone in found)
    total = memory_use.total()
    assert sum(zone.free for zone in found) <= total
    assert 0 <= low_memory.spare() < total
    room = memory_use.group_room()
    assert room is None or room >= 0


def zone(start: int, free: int) -> Zone:
    return Zone(0, "some", start, start + 4 * GIB, 2 * GIB, 0, 0, free, (0,) * 10 + (free >> 22,))


def test_what_the_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    below, above = zone(1 << 24, GIB), zone(4 * GIB, GIB)
    assert memory.judge_low_memory([below._replace(end=4 * GIB)]).state == "good"
    answer = memory.judge_low_memory([below._replace(end=4 * GIB), above])
    assert answer.state == "good"
    assert "1024 MiB below it are free" in answer.found
    answer = memory.judge_low_memory([zone(1 << 24, 8 << 20)._replace(end=4 * GIB), above])
    assert answer.state == "advice"
    assert "8 MiB below it are free" in answer.found
    assert "vfio-pci" in answer.remedy
    monkeypatch.setattr(low_memory, "zones", lambda: [below, above])
    assert not low_memory.nothing_up_to((1 << 28) - 1)
    assert low_memory.nothing_up_to((1 << 20) - 1)
    assert "mem=2048M" in low_memory.remedy((1 << 31) - 1)
    assert "mem=" not in low_memory.remedy((1 << 24) - 1)
    assert low_memory.remedy((1 << 64) - 1) == "free some memory"
