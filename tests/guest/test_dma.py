# SPDX-License-Identifier: MIT
"""DMA on real memory, real pagemap and QEMU's edu card."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import DMA_BUFFER, DMA_REACHABLE, Edu

import pyuio
from pyuio.dma import DmaBuffer
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.sysfs import PCI_DEVICES
from tests.guest.marks import on_x86
from tests.guest.support import (
    BUS_MASTER,
    EDU,
    PROCESSOR,
    Cards,
    command_register,
    forked,
    start_dma,
    wait_for_dma,
)

pytestmark = pytest.mark.usefixtures("reachable")

HUGE = 2 << 20
LOW = (1 << 28) - 1
ALL_ADDRESSES = (1 << 64) - 1


def free_hugepages() -> tuple[int, int]:
    size = hugepages()[0]
    return size.total, size.free


# -- the card --


def round_trip(card: Edu, length: int, offset: int, by_interrupt: bool) -> None:
    room = DMA_REACHABLE - offset
    length = min(length, 2 * room)  # 200 ms each way at most
    data = random.randbytes(length)
    card.to_device(data, offset, by_interrupt=by_interrupt)
    # What was too long for the card started again at the offset.
    model = bytearray(card.from_device(min(length, room), offset)) if length <= room else bytearray(data[:room])
    model[: max(0, length - room)] = data[room:]
    assert card.from_device(min(length, room), offset, by_interrupt=by_interrupt) == model
    if length <= room:
        assert model == data


def test_round_trips(card: Edu) -> None:
    source = random.Random(1)
    cases = [
        (0, 0),
        (1, DMA_REACHABLE - 1),
        (DMA_REACHABLE, 0),
        (source.randrange(4200), source.randrange(DMA_REACHABLE)),
    ]
    for number, (length, offset) in enumerate(cases):
        round_trip(card, length, offset, by_interrupt=number % 2 == 0)


def test_the_whole_buffer_and_more(card: Edu) -> None:
    data = random.randbytes(DMA_REACHABLE)
    card.to_device(data)
    assert card.from_device(DMA_REACHABLE + 5) == data + data[:5]


def test_from_a_buffer_without_a_copy(card: Edu) -> None:
    with card.device.dma.alloc(100) as buffer:
        buffer[:] = random.randbytes(100)
        card.to_device(buffer[10:20])
        assert card.from_device(10) == bytes(buffer)[10:20]


def test_nothing_makes_the_card_end_its_machine(card: Edu) -> None:
    card.to_device(b"")
    assert card.from_device(0) == b""
    for offset in (-1, DMA_REACHABLE, 4096, 1 << 40):
        with pytest.raises(ValueError, match="offset in the card's memory"):
            card.to_device(b"x", offset)
        with pytest.raises(ValueError, match="offset in the card's memory"):
            card.from_device(1, offset)
    with pytest.raises(ValueError, match="length"):
        card.from_device(-1)
    card.to_device(b"last", DMA_REACHABLE - 4)
    assert card.from_device(4, DMA_REACHABLE - 4) == b"last"


def test_a_driver_waits_for_what_another_left_running(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        first = Edu(device)
        start_dma(first, DMA_BUFFER, device.dma.alloc(64).address, 64, to_memory=True)
        second = Edu(device)
        assert not second.registers.dma_command.start


# -- addresses --


@on_x86  # elsewhere there is no memory below its mask
def test_the_card_cuts_what_is_above_its_mask(card: Edu) -> None:
    """What the check is for: the card cuts the address, and says nothing."""
    card.to_device(b"good")
    # The cut address must be the test's own memory: four bytes in a library's page can end every new process of the
    # machine. The whole one is beyond all memory, should a card not cut it.
    with card.device.dma.alloc(4096) as buffer:
        assert buffer.address & LOW == buffer.address
        start_dma(card, DMA_BUFFER, buffer.address | 1 << 40, 4, to_memory=True)
        wait_for_dma(card)
        assert bytes(buffer[:4]) == b"good"


def test_a_card_that_reaches_all_memory(cards: Cards) -> None:
    if len(cards(EDU)) < 2:
        pytest.skip("there is no second card, which is the one that reaches all memory")
    with Edu.open(cards(EDU)[-1]) as card:
        card.to_device(b"below")  # from here on its buffer for copies is there, below 28 bits
        card.device.dma.mask = ALL_ADDRESSES
        for _ in range(512):
            buffer = card.device.dma.alloc(HUGE)
            if buffer.address > LOW:
                break
        else:
            pytest.skip("there is no memory above 28 bits")
        buffer[:5] = b"above"
        card.to_device(buffer[:5])
        # Or else the card cuts addresses, and would now write to somebody else's memory.
        assert card.from_device(5) == b"above"
        buffer.zero()
        start_dma(card, DMA_BUFFER, buffer.address + 100, 5, to_memory=True)
        wait_for_dma(card)
        assert bytes(buffer[100:105]) == b"above"


@pytest.mark.usefixtures("little_to_search")
def test_alignment_and_masks(device: pyuio.Device) -> None:
    for align in (1, 64, 4096, 65536, HUGE):
        assert device.dma.alloc(10, align=align).address % align == 0
    for align in (0, 3, -1):
        with pytest.raises(ValueError, match="power of two"):
            device.dma.alloc(10, align=align)
    for mask in (0, -1, 5, 1 << 64):
        with pytest.raises(ValueError, match="2\\^n - 1"):
            device.dma.alloc(10, mask=mask)
        with pytest.raises(ValueError, match="2\\^n - 1"):
            device.dma.mask = mask
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least 1 byte"):
            device.dma.alloc(size)
    with pytest.raises(pyuio.DmaMemoryError, match=r"adjacent hugepages, 524288 of 2048 kB, and \d+ were to be had"):
        device.dma.alloc(1 << 40)
    with pytest.raises(pyuio.DmaMemoryError, match="that were looked at have none"):
        device.dma.alloc(10, align=1 << 40)


@pytest.mark.usefixtures("little_to_search")
def test_masks_below_which_there_is_no_memory(device: pyuio.Device) -> None:
    if PROCESSOR == "x86_64":  # elsewhere there is none at all as low as this
        with pytest.raises(pyuio.DmaMemoryError, match="looked at"):
            device.dma.alloc(10, mask=(1 << 13) - 1)
    with pytest.raises(pyuio.DmaMemoryError, match="gives programs no memory there"):
        device.dma.alloc(10, mask=(1 << 12) - 1)  # the first page: the kernel gives it to nobody


# -- more than a hugepage --


@pytest.fixture
def far(cards: Cards) -> Iterator[Edu]:
    """The card that reaches all memory."""
    if len(cards(EDU)) < 2:
        pytest.skip("there is no second card, which is the one that reaches all memory")
    with Edu.open(cards(EDU)[-1]) as card:
        card.to_device(b"")
        card.device.dma.mask = ALL_ADDRESSES
        yield card


def copied(card: Edu, source: int, destination: DmaBuffer, count: int) -> bytes:
    """Have the card copy bytes from a bus address to a buffer, by its own memory, and return them."""
    start_dma(card, source, DMA_BUFFER, count, to_memory=False)
    wait_for_dma(card)
    start_dma(card, DMA_BUFFER, destination.address, count, to_memory=True)
    wait_for_dma(card)
    return bytes(destination[:count])


@pytest.mark.parametrize("pages", [3, pytest.param(16, marks=pytest.mark.long)])
def test_adjacent_hugepages_in_one_buffer(far: Edu, pages: int) -> None:
    before = free_hugepages()
    with far.device.dma.alloc(64) as small, far.device.dma.alloc(pages * HUGE + 1) as buffer:
        assert not any(memoryview(buffer)[::4096])
        buffer.verify()
        data = random.randbytes(60)
        for border in (HUGE, (pages - 1) * HUGE):
            buffer[border - 30 : border + 30] = data
            assert copied(far, buffer[border - 30 :].address, small, 60) == data
        # The rest of the last hugepage is there for others.
        with far.device.dma.alloc(4096) as other:
            assert other.page in (buffer.page, small.page)
        child = os.fork()
        if child == 0:
            os._exit(0 if buffer.closed and not any(memoryview(buffer.page.memory)[::4096]) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        buffer.verify()
    far.device.close()
    assert free_hugepages() == before


def test_scattered_memory(far: Edu) -> None:
    before = free_hugepages()
    size = (7 << 20) + 100
    with far.device.dma.scatter(size) as buffer, far.device.dma.alloc(64) as small:
        segments = buffer.segments
        assert sum(one.size for one in segments) == buffer.size == size
        assert sorted(one.size for one in far.device.dma.buffers) == [64, size]
        places = [number for one in segments for number in range(one.address // HUGE, (one.address + one.size) // HUGE)]
        assert len(places) == len(set(places)) == 3
        buffer.verify()
        start = 0
        for segment in segments:  # each byte of the view is where its segment says
            buffer[start : start + 30] = data = random.randbytes(30)
            assert copied(far, segment.address, small, 30) == data
            start += segment.size
        part = buffer[HUGE - 10 : HUGE + 10]
        assert sum(one.size for one in part.segments) == 20
        part[:] = bytes(range(20))
        assert bytes(buffer)[HUGE - 10 : HUGE + 10] == bytes(range(20))
        assert buffer[5:10].address == segments[0].address + 5
        if len(segments) > 1:
            with pytest.raises(ValueError, match="segments, each with an address of its own"):
                buffer.address  # noqa: B018
        buffer.registers.write32(HUGE - 2 & ~3, 0x12345678)
    with pytest.raises(pyuio.ClosedError):
        buffer.segments  # noqa: B018
    with far.device.dma.scatter(100) as little:
        assert little.segments == ((little.address, 100),)
    far.device.close()
    assert free_hugepages() == before


@pytest.mark.usefixtures("little_to_search")
@on_x86  # elsewhere there is no memory as low as this
def test_no_adjacent_hugepages(device: pyuio.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    before = free_hugepages()
    with pytest.raises(pyuio.DmaMemoryError, match=r"looked at have none; scatter\(4194304\) takes ones from anywhere"):
        device.dma.alloc(4 << 20, align=1 << 30)
    # Which of these depends on how much the search may hold, how much is above, and how it is spread.
    reasons = r"fewer of \d+ are below|\d+ were to be had while \d+ above it were held|the kernel gave none[^;]+"
    with pytest.raises(pyuio.DmaMemoryError, match=f"2 of 2048 kB(, and|;) ({reasons}); close what has the low memory"):
        device.dma.scatter(4 << 20, mask=(1 << 21) - 1)
    assert free_hugepages() == before
    monkeypatch.setattr("pyuio.kernel.hugepages.HugepageSize.may_change", False)
    for make in (device.dma.alloc, device.dma.scatter):
        with pytest.raises(pyuio.DmaMemoryError, match=r"100 of 2048 kB, and .* were to be had; .*root: echo 1\d\d "):
            make(100 * HUGE)
    assert free_hugepages() == before


def test_memory_that_is_there_is_not_mapped(device: pyuio.Device) -> None:
    with pytest.raises(pyuio.DmaUnavailableError, match=r"copy it into a buffer of alloc\(\), or use VFIO"):
        device.dma.map(bytearray(10))
    assert not command_register(str(device.address)) & BUS_MASTER


# -- life --


def test_bus_mastering_follows_the_buffers(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        assert not command_register(edu) & BUS_MASTER
        first = device.dma.alloc(100)
        second = device.dma.alloc(100)
        assert command_register(edu) & BUS_MASTER
        first.close()
        first.close()
        assert command_register(edu) & BUS_MASTER
        second.close()
        assert not command_register(edu) & BUS_MASTER
        third = device.dma.alloc(100)
        assert command_register(edu) & BUS_MASTER
    assert not command_register(edu) & BUS_MASTER
    assert third.closed
    with pytest.raises(pyuio.ClosedError):
        device.dma.alloc(1)


def test_memory_is_zeroed_each_time(device: pyuio.Device) -> None:
    buffer = device.dma.alloc(10000)
    address = buffer.address
    buffer[:] = b"\xff" * 10000
    buffer.close()
    again = device.dma.alloc(10000)
    assert again.address == address
    assert bytes(again) == bytes(10000)


class Header(pyuio.RegisterMap):
    length = pyuio.Register(0x4, width=16)


def test_use_after_close(device: pyuio.Device) -> None:
    buffer = device.dma.alloc(4096)
    part = buffer[16:32]
    window = part.registers
    length = Header(buffer, endian="big").length
    length.write(0x1234)
    assert (buffer[4], Header(buffer).length.read()) == (0x12, 0x3412)
    buffer.close()
    for use in (
        lambda: buffer.address,
        lambda: buffer[0],
        lambda: buffer[0:4],
        lambda: buffer.__setitem__(0, 1),
        lambda: buffer.verify(),
        lambda: buffer.registers,
        lambda: buffer.zero(),
        lambda: memoryview(buffer),
        lambda: part.address,
        lambda: part[0],
        lambda: bytes(part),
        lambda: window.read32(0),
        lambda: length.read(),
        lambda: Header(buffer),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert buffer.size == len(buffer) == 4096


def test_memory_waits_for_its_views(device: pyuio.Device) -> None:
    """A view outlives its buffer; nobody else gets the memory meanwhile."""
    buffer = device.dma.alloc(4096)
    address = buffer.address
    view = memoryview(buffer[1024:2048]).cast("I")
    buffer.close()
    for index in range(256):
        view[index] = 0x12345678
    other = device.dma.alloc(4096)
    assert other.address != address
    assert bytes(other) == bytes(4096)
    assert sum(view) == 0x12345678 * 256
    del view
    gc.collect()
    assert device.dma.alloc(4096).address == address


def test_views_outlive_the_device(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        view = memoryview(device.dma.alloc(4096))
    view[:4] = b"here"
    child = os.fork()
    if child == 0:  # not left out of children any more: nothing would fill the hole in
        view[:4] = b"also"
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view[:4]) == b"also"


def test_parts_closed_in_the_wrong_order(edu: str) -> None:
    """Nothing can stop the device then, so its memory stays until the process ends: one of its own."""

    def program() -> None:
        with pyuio.open(edu, bind=True) as device:
            buffer = device.dma.alloc(4096)
            device.config.close()
            try:
                buffer.close()
            except pyuio.ClosedError:
                print("refused")
        assert buffer.closed
        hugepages()[0].change(-hugepages()[0].total)  # what is in use goes with the process

    done = forked(program, "parts")
    assert (done.returncode, done.stdout, done.stderr) == (0, "refused\n", "")
    assert not command_register(edu) & BUS_MASTER


def test_a_card_that_is_pulled_out(edu: str) -> None:
    device = pyuio.open(edu, bind=True)
    try:
        buffer, second = device.dma.alloc(4096), device.dma.alloc(4096)
        (PCI_DEVICES / edu / "remove").write_text("1")
        with pytest.raises(pyuio.DeviceRemovedError):
            device.config.read32(0)
        with pytest.raises(pyuio.DeviceRemovedError):
            device.dma.alloc(4096)
        buffer[:4] = b"kept"  # what the card left is still there
        buffer.close()
        second.close()
        with pytest.raises(pyuio.DeviceRemovedError):
            device.dma.alloc(4096)
        device.close()
        device.close()
        with pytest.raises(pyuio.ClosedError):
            device.dma  # noqa: B018
    finally:
        device.close()
        Path("/sys/bus/pci/rescan").write_text("1")


def test_a_slice_closes_alone(device: pyuio.Device) -> None:
    buffer = device.dma.alloc(4096)
    part = buffer[100:200]
    inner = part[50:]
    assert (part.address, inner.address) == (buffer.address + 100, buffer.address + 150)
    part.close()
    part.close()
    inner[0] = 7
    assert buffer[150] == 7
    with pytest.raises(pyuio.ClosedError):
        part[0] = 1
    buffer.close()
    with pytest.raises(pyuio.ClosedError):
        inner[0] = 1


def test_forgotten_buffers_stay(device: pyuio.Device) -> None:
    """The device may still be at work on what the program has forgotten."""
    addresses = {device.dma.alloc(4096).address for _ in range(20)}
    gc.collect()
    assert len(addresses) == 20


def test_hugepages_are_given_back(edu: str) -> None:
    before = free_hugepages()
    with pyuio.open(edu, bind=True) as device:
        buffers = [device.dma.alloc(HUGE) for _ in range(3)]
        assert free_hugepages()[0] >= 3
        for buffer in buffers:
            buffer.close()
    assert free_hugepages() == before


@pytest.mark.usefixtures("no_hugepages")
def test_single_pages_where_there_are_no_hugepages(device: pyuio.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyuio.kernel.hugepages.HugepageSize.change_overcommit", lambda self, more: False)
    with pytest.raises(pyuio.DmaMemoryError, match="and the kernel found no memory for another"):
        device.dma.alloc(4097)
    buffers = [device.dma.alloc(4096) for _ in range(10)]
    assert len({buffer.address for buffer in buffers}) == 10
    for buffer in buffers:
        buffer.verify()
    with device.dma.pool(10, 1024) as pool:
        assert len(pool) == 10


@pytest.mark.usefixtures("no_hugepages")
def test_the_command_in_the_message_is_the_remedy(device: pyuio.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process is told that may not reserve hugepages is run, and then there is one for it."""
    monkeypatch.setattr("pyuio.kernel.hugepages.HugepageSize.may_change", False)
    with pytest.raises(pyuio.DmaMemoryError, match=r"as root: echo \d+ > /sys/kernel/mm/hugepages/hug\S+$") as caught:
        device.dma.alloc(4097)
    command = str(caught.value).partition("as root: ")[2]
    try:
        assert os.system(command) == 0
        assert device.dma.alloc(4097).page.size == HUGE
    finally:
        monkeypatch.undo()
        hugepages()[0].change(-1)


def test_small_buffers_share_a_page_and_touch_nothing_of_each_other(device: pyuio.Device) -> None:
    sizes = (1, 63, 64, 65, 100, 200)
    buffers = [device.dma.alloc(size, align=1) for size in sizes]
    assert len({buffer.page for buffer in buffers}) == 1
    for number, buffer in enumerate(buffers):
        buffer[:] = bytes([number + 1]) * buffer.size
    assert [set(bytes(buffer)) for buffer in buffers] == [{number + 1} for number in range(len(buffers))]
    lines = [{address // 64 for address in range(one.address, one.address + one.size)} for one in buffers]
    assert sum(map(len, lines)) == len(set().union(*lines)), "two share a cache line"


def test_another_devices_buffer_is_refused(cards: Cards, card: Edu) -> None:
    if len(cards(EDU)) < 2:
        pytest.skip("there is no second card")
    with pyuio.open(cards(EDU)[1], bind=True) as other, pytest.raises(ValueError, match="is another device's"):
        card.to_device(other.dma.alloc(64))


def test_what_a_transfer_left_running_still_reads_is_not_written(card: Edu) -> None:
    """After a time limit the card goes on, in the memory that the next transfer would fill."""
    card.to_device(b"the first")

    def read_until_it_takes_too_long() -> None:
        while True:  # on a busy machine a transfer may be done when somebody looks
            card.from_device(9, timeout=0.01)

    with pytest.raises(pyuio.DeviceTimeoutError):
        read_until_it_takes_too_long()
    card.to_device(b"the second")
    assert card.from_device(10) == b"the second"


def test_a_buffer_of_a_pool_that_was_closed_can_be_given_back(device: pyuio.Device) -> None:
    pool = device.dma.pool(2, 2048)
    with pool.take() as buffer:
        address = buffer.address
    pool.give(buffer)
    again = pool.take()
    assert (again.address, again.closed, len(pool)) == (address, False, 1)
    pool.close()
    with pytest.raises(pyuio.ClosedError):
        pool.give(again)


def test_pool(device: pyuio.Device) -> None:
    pool = device.dma.pool(100, 2048)
    buffers = [pool.take() for _ in range(100)]
    assert len({buffer.address // 2048 for buffer in buffers}) == 100
    with pytest.raises(pyuio.DmaMemoryError, match="all 100 buffers of the pool are taken"):
        pool.take()
    pool.give(buffers[3])
    assert pool.take() is buffers[3]
    pool.give(buffers[3])
    with pytest.raises(ValueError, match="given back already"):
        pool.give(buffers[3])
    with pytest.raises(ValueError, match="not taken from this pool"):
        pool.give(device.dma.alloc(2048))
    pool.close()
    pool.close()
    with pytest.raises(pyuio.ClosedError):
        pool.take()
    with pytest.raises(pyuio.ClosedError):
        buffers[0][0] = 1
    with pytest.raises(pyuio.DmaMemoryError):
        device.dma.pool(10, 1 << 40)
    with pytest.raises(ValueError, match="a pool has"):
        device.dma.pool(0, 64)


# -- all there is; last, as the kernel is slow to find hugepages afterwards --


@pytest.mark.long
@pytest.mark.timeout(600)  # it takes all hugepages there are, one by one
def test_addresses_above_the_mask_are_never_handed_out(card: Edu) -> None:
    """With 1 GiB of memory most of it is above 28 bits: the low part runs out first, and says so."""
    # What memory has of files goes first, or the kernel makes room for each hugepage by itself, which took minutes.
    Path("/proc/sys/vm/drop_caches").write_text("3")
    # A kernel that has run for a while may have a hundred high hugepages to give before the first low one.
    high = []
    while (buffer := card.device.dma.alloc(HUGE, mask=ALL_ADDRESSES)).address > LOW:
        high.append(buffer)
    buffer.close()
    buffers = []
    with pytest.raises(pyuio.DmaMemoryError, match="looked at, and none is below") as caught:  # noqa: PT012
        while True:
            buffers.append(card.device.dma.alloc(HUGE))
            assert len(buffers) <= (LOW + 1) // HUGE
    assert isinstance(caught.value, MemoryError)
    print(len(high), len(buffers), caught.value)
    assert buffers
    for buffer in buffers:
        assert buffer.address + buffer.size - 1 <= LOW
        buffer.verify()
    while not high:
        buffer = card.device.dma.alloc(HUGE, mask=ALL_ADDRESSES)
        (high if buffer.address > LOW else buffers).append(buffer)  # or the same one comes again
    with pytest.raises(ValueError, match="beyond"):
        card.to_device(high[0][:4])
