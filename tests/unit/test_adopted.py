# SPDX-License-Identifier: MIT
"""Memory that a kernel driver gave, as a buffer for DMA: what needs no device."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyuio.dma import Dma
from pyuio.errors import ClosedError, DmaMemoryError
from pyuio.region import Region

ADDRESS = 0x1234_5678


def test_a_buffer_on_memory_of_others() -> None:
    memory = bytearray(range(200))
    dma = Dma("board")
    buffer = dma.adopt(memory, ADDRESS)
    assert (len(buffer), buffer.address, bytes(buffer)) == (200, ADDRESS, bytes(range(200)))
    part = buffer[100:110]
    assert part.address == ADDRESS + 100
    part[0:2] = b"ab"
    part.registers.write32(4, 0x01020304)
    assert memory[100:108] == b"abfg\x04\x03\x02\x01"
    assert dma.owns(buffer)
    assert dma.owns(part)
    with pytest.raises(BufferError):
        memory.append(0)
    buffer.close()
    assert part.closed
    memory.append(0)
    again = dma.adopt(memory, ADDRESS)
    view = memoryview(again)
    dma.close()
    assert again.closed
    assert view[100] == ord("a"), "what somebody still looks at stays"
    with pytest.raises(ClosedError):
        dma.adopt(memory, ADDRESS)


@pytest.mark.parametrize("page_offset", [0, 0x40])
def test_a_buffer_on_a_region(tmp_path: Path, page_offset: int) -> None:
    path = tmp_path / "map"
    path.write_bytes(bytes(range(256)) * 48)
    dma = Dma("board")
    region = Region(path, mmap.PAGESIZE, page_offset=page_offset, address=ADDRESS)
    buffer = dma.adopt(region, ADDRESS)
    assert (len(buffer), buffer[0]) == (mmap.PAGESIZE, page_offset)
    buffer[8:10] = b"ab"
    assert region.read(8, 2, 1) == b"ab"
    region.close()
    assert buffer[8:10].address == ADDRESS + 8
    assert bytes(buffer[8:10]) == b"ab"
    with pytest.raises(ClosedError):
        dma.adopt(region, ADDRESS)
    buffer.close()
    del region, buffer
    gc.collect()
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_an_array() -> None:
    array: Any = np.zeros((4, 8), dtype="<u4")
    with Dma("board").adopt(array, ADDRESS) as buffer:
        assert len(buffer) == 128
        buffer.registers.write32(4 * 8, 7)
    assert array[1, 0] == 7
    with pytest.raises(TypeError, match="one piece"):
        Dma("board").adopt(array[:, ::2], ADDRESS)


def test_what_cannot_be_adopted() -> None:
    dma = Dma("board")
    with pytest.raises(BufferError, match="writable"):
        dma.adopt(b"abc", ADDRESS)
    with pytest.raises(TypeError):
        dma.adopt(None, ADDRESS)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        dma.adopt(bytearray(8), "1")  # type: ignore[arg-type]
    for address in (-1, 1 << 64, (1 << 64) - 7):
        with pytest.raises(ValueError, match="not within 64 bits"):
            dma.adopt(bytearray(8), address)
    with pytest.raises(ValueError, match="at least 1 byte"):
        dma.adopt(bytearray(), ADDRESS)
    dma.adopt(bytearray(8), (1 << 64) - 8).close()
    dma.mask = 0xFFFF
    dma.adopt(bytearray(8), 0xFFF8).close()
    with pytest.raises(DmaMemoryError, match="board: the memory at 0xfff9 is not for DMA: it ends at 0x10000, and"):
        dma.adopt(bytearray(8), 0xFFF9)
