# SPDX-License-Identifier: MIT
"""DMA through VFIO, on a real IOMMU driver and QEMU's edu card."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyuio_drivers.edu import DMA_BUFFER, DMA_REACHABLE, Edu

import pyuio
from pyuio.dma import Dma
from pyuio.dma.iommu_memory import IommuMemory
from pyuio.doctor.iommu_faults import faults_of, look_at_faults
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.log import messages
from pyuio.kernel.memory_use import locked_size, pinned_size
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci.discovery import find
from tests.guest.support import (
    BUS_MASTER,
    EDU,
    PATIENCE,
    Cards,
    command_register,
    keep_bound,
    killed_amid,
    start_dma,
    wait_for_dma,
    wait_until,
)
from tests.guest.test_dma_interrupted import Interrupter, apart

TRANSFER = 0.1  # seconds, in which QEMU's card does nothing; then it moves everything at once


@pytest.fixture
def bound(edu: str) -> str:
    """An edu card that stays bound to vfio-pci."""
    keep_bound(edu, VFIO_PCI)
    return edu


@pytest.fixture
def card(bound: str) -> Iterator[Edu]:
    with Edu.open(bound) as opened:
        assert opened.device.driver == VFIO_PCI
        yield opened


def taken() -> int:
    """Return how many bytes this process has for devices: by containers, or by iommufd."""
    return locked_size() + pinned_size()


def copy(card: Edu, source: int, destination: int, count: int) -> None:
    """Have the card copy bytes from one bus address to another, by its own memory."""
    start_dma(card, source, DMA_BUFFER, count, to_memory=False)
    wait_for_dma(card)
    start_dma(card, DMA_BUFFER, destination, count, to_memory=True)
    wait_for_dma(card)


@pytest.mark.parametrize("size", [8 << 20, pytest.param(64 << 20, marks=pytest.mark.long)])
def test_much_memory_in_one_buffer(card: Edu, size: int) -> None:
    before = taken()
    with card.device.dma.alloc(size) as buffer, card.device.dma.alloc(4096) as small:
        assert not any(memoryview(buffer)[:: 1 << 12])
        assert buffer.address + buffer.size - 1 <= card.device.dma.mask
        data = random.randbytes(200)
        # Across a border of pages, of large pages, in the middle, and at the end.
        for at in (4000, (2 << 20) - 100, size // 2 - 77, size - 200):
            buffer[at : at + 200] = data
            copy(card, buffer[at:].address, small.address, 200)
            assert bytes(small)[:200] == data, at
            small.zero()
        copy(card, buffer.address + (2 << 20) - 100, buffer[(6 << 20) - 100 :].address, 200)
        assert bytes(buffer[(6 << 20) - 100 : (6 << 20) + 100]) == data
        buffer.verify()
        assert taken() - before >= size
    card.device.close()
    assert taken() == before


def test_memory_that_is_there(card: Edu, tmp_path: Path) -> None:
    """At any place in its page: an array, a bytearray, a file; and twice at once."""
    source = card.device.dma.alloc(1000)
    data = source[:] = random.randbytes(1000)
    array: Any = np.full(20001, 7, dtype=np.uint8)
    with card.device.dma.map(array[1:]) as mapped:
        assert mapped.size == 20000
        with card.device.dma.map(array[1:]) as again:
            copy(card, source.address, again[9000:].address, 1000)
        assert array[9001:10001].tobytes() == data
        assert set(array[:9001]) | set(array[10001:]) == {7}
        array[1:1001] = 9
        copy(card, mapped.address, source.address, 1000)
        assert set(bytes(source)) == {9}

    text = bytearray(b"short")
    mapped = card.device.dma.map(text)
    with pytest.raises(BufferError):
        text.append(0)
    mapped.close()
    text.append(0)

    path = tmp_path / "file"
    path.write_bytes(bytes(10000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        with card.device.dma.map(memory) as mapped:
            copy(card, source.address, mapped[5000:].address, 1000)
        memory.flush()
        assert path.read_bytes()[5000:6000] == b"\x09" * 1000


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        (b"constant", BufferError, "read-only"),
        (np.zeros(100)[::2], BufferError, "gaps"),
        (bytearray(), ValueError, "no bytes"),
        (7, TypeError, "bytes-like"),
    ],
    ids=str,
)
def test_memory_that_cannot_be_mapped(card: Edu, memory: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        card.device.dma.map(memory)  # type: ignore[arg-type]


def test_memory_that_the_kernel_cannot_pin(card: Edu, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        file.truncate(0)
        with pytest.raises(pyuio.DmaMemoryError, match="the kernel cannot pin it"):
            card.device.dma.map(memory)


def test_two_cards_on_one_memory(card: Edu, cards: Cards) -> None:
    if len(cards(EDU)) < 2:
        pytest.skip("there is no second card")
    with pyuio.open(cards(EDU)[1], bind=VFIO_PCI) as device:
        other = Edu(device)
        with card.device.dma.alloc(100) as buffer, device.dma.map(buffer) as theirs:
            card.to_device(b"from one to the other")
            start_dma(card, DMA_BUFFER, buffer.address, 21, to_memory=True)
            wait_for_dma(card)
            other.to_device(theirs)
            assert other.from_device(21) == b"from one to the other"


def test_pools_rings_and_parts(card: Edu) -> None:
    dma = card.device.dma
    with dma.pool(1500, 2048) as pool:
        taken = [pool.take() for _ in range(1500)]
        assert len({one.address // 2048 for one in taken}) == 1500
        taken[7][:5] = b"seven"
        card.to_device(taken[7][:5])
        assert card.from_device(5) == b"seven"
    ring = pyuio.DescriptorRing(dma.alloc(256), entry_size=16, fields={"a": (0, 64), "own": (8, 32)}, owner="own")
    ring.publish(3, a=5, own=1)
    start_dma(card, ring.address(3), DMA_BUFFER, 16, to_memory=False)
    wait_for_dma(card)
    assert card.from_device(16) == (5).to_bytes(8, "little") + (1).to_bytes(8, "little")
    scattered = dma.scatter(5 << 20)
    assert [size for _, size in scattered.segments] == [5 << 20]
    assert dma.alloc(10, align=1 << 20).address % (1 << 20) == 0


def test_no_room(card: Edu) -> None:
    dma = card.device.dma
    with pytest.raises(pyuio.DmaMemoryError, match="no free range of so many bus addresses: the IOMMU translates 0x"):
        dma.alloc(64, mask=4095)  # the page at 0 is given to nobody
    with pytest.raises(pyuio.DmaMemoryError, match=r"the kernel has \d+ bytes left"):
        dma.alloc(1 << 40)
    with pytest.raises(pyuio.DmaMemoryError, match="no free range"):
        dma.map(bytearray(10), mask=4095)
    assert not command_register(str(card.device.address)) & BUS_MASTER
    with dma.alloc(4096, mask=0xFFFF) as low:
        assert 4096 <= low.address < 0x10000


@pytest.mark.skipif(Path("/dev/iommu").exists(), reason="iommufd has no such limit")
def test_a_full_container(bound: str) -> None:
    """Each mapping takes an entry of the container, and the kernel gives a container only so many."""
    limit = Path("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
    usual = limit.read_text()
    limit.write_text("2")  # the next container takes it over
    try:
        with Edu.open(bound) as card:
            memory = [card.device.dma.map(mmap.mmap(-1, 4096)) for _ in range(2)]
            with pytest.raises(pyuio.DmaMemoryError, match="the container is full, with 2 mappings of this device"):
                card.device.dma.map(mmap.mmap(-1, 4096))
            memory.pop().close()
            card.to_device(b"there is room for it now")
            assert card.from_device(24) == b"there is room for it now"
    finally:
        limit.write_text(usual)


def in_a_child(what: Callable[[], object]) -> None:
    """Run a function in a fork, and fail with its exception."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        message = "it ended early"
        try:
            what()
            message = ""
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, message.encode() or b"ok")
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "ok"
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        (8 << 20, (100, 4 << 20)),
        pytest.param(64 << 10, (4096,), marks=pytest.mark.long),  # less than small buffers share
        pytest.param(0, (), marks=pytest.mark.long),
    ],
)
def test_the_limit_of_locked_memory(bound: str, limit: int, sizes: tuple[int, ...]) -> None:
    def limited() -> None:
        card = Edu.open(bound)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        os.setuid(65534)  # CAP_IPC_LOCK lifts the limit
        kept = [card.device.dma.alloc(size) for size in sizes]
        assert all(card.device.dma.owns(one) for one in kept)
        message = ""
        try:
            card.device.dma.alloc(9 << 20)
        except pyuio.DmaMemoryError as error:
            message = str(error)
        assert f"the limit of locked memory (ulimit -l) is {limit} bytes, of which" in message, message
        assert "memlock unlimited" in message, message
        if sizes:
            card.to_device(b"a small limit")
            assert card.from_device(13) == b"a small limit"

    in_a_child(limited)


def test_a_stray_access_does_no_harm(card: Edu) -> None:
    kept, closed = card.device.dma.alloc(4096), card.device.dma.alloc(4 << 20)
    array: Any = np.zeros(4096, np.uint8)
    mapped = card.device.dma.map(array)
    addresses = (closed.address, mapped.address, kept.address + (8 << 20), 0, 0x1000)
    mapped.close()
    closed.close()
    card.to_device(b"\xee" * 64)
    for address in addresses:
        start_dma(card, DMA_BUFFER, address, 64, to_memory=True)
        wait_for_dma(card)
    assert not array.any()
    assert not any(bytes(kept))
    # The kernel logs the first few of many.
    assert {fault.address for fault in faults_of(str(card.device.address), messages())} & set(addresses)
    answer = look_at_faults(find(str(card.device.address)))
    assert answer is not None
    assert answer.state == "advice"
    assert re.search("s ago, to (write to|reach) 0x", answer.found), answer.found  # virtio's in QEMU does not tell
    card.to_device(b"and it goes on")
    assert card.from_device(14) == b"and it goes on"


def test_memory_is_given_back_while_messages_need_bus_mastering(card: Edu) -> None:
    device = card.device
    device.vectors(1)
    before = taken()
    device.dma.alloc(4 << 20).close()
    assert taken() == before
    assert command_register(str(device.address)) & BUS_MASTER
    card.raise_interrupt()
    assert card.wait_for_interrupt(PATIENCE) == 1


def test_each_open_begins_at_another_address(bound: str) -> None:
    first = set()
    for _ in range(4):
        with pyuio.open(bound) as device:
            first.add(device.dma.alloc(4096, mask=Edu.dma_mask).address)
    assert len(first) > 1  # of 16,384 places


def test_fork_during_a_transfer(card: Edu) -> None:
    """The child has neither the buffers nor their views, and what it does to a copy reaches no transfer."""
    data = random.randbytes(64)
    card.to_device(data)
    buffer = card.device.dma.alloc(64)
    array: Any = np.zeros(64, np.uint8)
    mapped = card.device.dma.map(array)
    view = memoryview(buffer)

    def child() -> None:
        view[:] = b"\xff" * 64
        array[:] = 255
        uses: tuple[Callable[[], object], ...] = (
            lambda: buffer[0],
            lambda: mapped.address,
            lambda: card.device.dma.map(bytearray(1)),
        )
        for use in uses:
            with pytest.raises(pyuio.ClosedError):
                use()

    for target, memory in ((buffer, view), (mapped, array)):
        start_dma(card, DMA_BUFFER, target.address, 64, to_memory=True)
        in_a_child(child)
        wait_for_dma(card)
        assert bytes(memory) == data
    view.release()
    mapped.close()


def test_nothing_is_adopted(card: Edu) -> None:
    with pytest.raises(pyuio.DmaUnavailableError, match=r"no memory is adopted by VFIO.*map\(\) it"):
        card.device.dma.adopt(bytearray(64), 0x1000)


def test_a_device_that_was_let_go_closes(card: Edu) -> None:
    address = str(card.device.address)
    buffer, mapped = card.device.dma.alloc(4096), card.device.dma.map(bytearray(100))
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            (PCI_DEVICES / address / "driver/unbind").write_text(address)
        os._exit(0)
    wait_until(lambda: card.device.removed)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(pyuio.DeviceRemovedError):
        card.device.dma.alloc(10)
    with pytest.raises(pyuio.DeviceRemovedError):
        card.device.dma.map(bytearray(1))
    buffer[:4] = b"mine"
    buffer.close()
    mapped.close()
    card.device.close()
    assert taken() == 0
    Path("/sys/bus/pci/drivers", VFIO_PCI, "bind").write_text(address)


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_ctrl_c_before_any_line(bound: str, step: int) -> None:
    """No memory is anyone else's, and none stays mapped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupter = Interrupter()
    text = bytearray(5000)
    at, came = -step + 1, True
    try:
        while came:
            at += step
            with pyuio.open(bound) as device:
                dma = device.dma
                dma.mask = (1 << 32) - 1
                kept, given = dma.alloc(100), dma.alloc(200)

                def steps(dma: Dma = dma, given: pyuio.DmaBuffer = given) -> None:
                    given.close()
                    dma.alloc(100).close()
                    dma.alloc(3 << 20)
                    dma.map(text).close()

                came = interrupter.run(at, steps)
                later = [dma.alloc(size) for size in (64, 4 << 20, 64)]
                assert apart(list(dma._live)), at
                for buffer in (given, kept, *later, *dma._live):
                    buffer.close()
                assert not command_register(bound) & BUS_MASTER, at
                assert [page.free.untouched for page in dma._pages] == [True], at
                assert isinstance(dma._source, IommuMemory)
                assert dma._source._mapped == set(dma._pages), at
                assert set(dma._source._space._taken) == set(dma._pages), at
                text.append(0)
            assert taken() == 0, at
    finally:
        signal.signal(signal.SIGINT, before)
    assert at > 50


# -- killed --


def killed(address: str) -> int:
    """Have a driver in a process of its own start a transfer to memory, and kill it. Return the address on the bus."""

    def begin() -> tuple[int, object]:
        card = Edu.open(address)
        card.to_device(b"\xee" * DMA_REACHABLE)
        buffer = card.device.dma.alloc(4 << 20)
        start_dma(card, DMA_BUFFER, buffer.address, DMA_REACHABLE, to_memory=True)
        return buffer.address, (card, buffer)

    return killed_amid(begin)


def kill_and_look(address: str) -> None:
    """Kill a driver in mid-transfer; nobody's memory has a byte of the transfer, not even the next driver's."""
    at = killed(address)
    assert not command_register(address) & BUS_MASTER
    anyone = bytearray(b"\x11" * (16 << 20))  # some of it is what was the driver's
    with pyuio.open(address) as device:
        buffer = device.dma.alloc(4096, mask=Edu.dma_mask)  # bus mastering is on from here on
        if at == buffer.address:  # once in 16,384 times
            return
        buffer[:] = b"\x11" * 4096
        time.sleep(1.5 * TRANSFER)
        assert bytes(buffer).count(0x11) == 4096
    assert anyone.count(0x11) == len(anyone)


def test_killed_in_mid_transfer(bound: str) -> None:
    kill_and_look(bound)
    with Edu.open(bound) as card:
        card.to_device(b"and again")
        assert card.from_device(9) == b"and again"


def transfer_after_all(address: str) -> bool:
    """Kill a driver in mid-transfer, and put the next one's buffer at the same address; return whether it is hit."""
    at = killed(address)
    with pyuio.open(address) as device:
        assert isinstance(device.dma._source, IommuMemory)
        space = device.dma._source._space
        space._start = at // space.unit
        space._rebuild()
        buffer = device.dma.alloc(4096, mask=Edu.dma_mask)
        if buffer.address != at:  # the first addresses end before that
            return False
        time.sleep(2 * TRANSFER)
        return buffer[0] == 0xEE


def test_the_transfer_was_on_its_way(bound: str) -> None:
    """The control: what was killed does write, and a start that is the same for each open would let it."""
    assert any(transfer_after_all(bound) for _ in range(20))  # on a busy machine most come too late


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_thousand_kills(bound: str) -> None:
    """As many as fit two minutes."""
    end = time.monotonic() + 120
    done = 0
    while done < 1000 and time.monotonic() < end:
        kill_and_look(bound)
        done += 1
    print(done, "drivers killed")
