# SPDX-License-Identifier: MIT
"""Devices that are not PCI functions: registers, interrupt and memory by the maps and the name of a UIO node.

The device is an edu card that edu_board.c presents as a board.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from pyuio_drivers.edu import EduRegisters

import pyuio
from pyuio.device import Device
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci.discovery import find
from pyuio.region import Region
from tests.guest.conftest import board_loaded
from tests.guest.support import EDU, PATIENCE, PCI_TESTDEV, Cards, set_aside_what_the_card_reaches, wait_until

BOUND = Path("/sys/bus/platform/drivers/edu_board")
IDENTIFICATION = 0x010000ED
LIVENESS, STATUS, RAISE, ACKNOWLEDGE = 0x04, 0x24, 0x60, 0x64
CARD_MEMORY = 0x40000  # in the card's view (drivers/edu.py)
START, TO_MEMORY = 1, 2


@pytest.fixture(scope="module")
def edu_board(cards: Cards) -> Iterator[None]:
    """Load the module once for all tests here: under emulation that takes longer than most of them.

    The first tests are those that need the card to be free.
    """
    with pyuio.open(cards(EDU)[0], bind=True):
        set_aside_what_the_card_reaches()
    with board_loaded("own"):
        yield


@pytest.fixture
def bar(edu_board: None, cards: Cards) -> int:
    """The address of the BAR of the card on the board, read without pyuio."""
    return int((PCI_DEVICES / cards(EDU)[-1] / "resource").read_text().split()[0], 16)


@pytest.fixture
def board(bar: int) -> Iterator[Device]:
    """The board's node with the card's registers, open."""
    with pyuio.open("edu-board") as opened:
        yield opened


@pytest.fixture
def memory(edu_board: None) -> Iterator[Device]:
    """The board's node with memory for the card, open."""
    with pyuio.open("edu-memory") as opened:
        yield opened


class DmaRegisters(pyuio.RegisterMap, width=32):
    """The card's registers from 0x80 on, as far as 32 bits reach them."""

    source = pyuio.Register(0x00)
    destination = pyuio.Register(0x08)


class Board(pyuio.Driver):
    """A driver for the board, by the name of its node."""

    uio_names = ("edu-board",)
    register_maps: ClassVar = {"registers": EduRegisters, "dma-registers": DmaRegisters}

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = EduRegisters(device.map("registers"))
        self.dma = DmaRegisters(device.map("dma-registers"))


def transfer(registers: Region, source: int, destination: int, count: int, command: int) -> None:
    """Have the card transfer, and wait for the end."""
    for offset, value in ((0x80, source), (0x88, destination), (0x90, count), (0x98, START | command)):
        registers.write64(offset, value)
    registers.poll32(0x98, START, 0, PATIENCE)


def round_trip(registers: Region, buffer: pyuio.DmaBuffer) -> None:
    """Have the card read one half of a buffer and write the other half."""
    half = min(len(buffer) // 2, 2048)
    buffer[:half] = os.urandom(half)
    buffer[half : 2 * half] = bytes(half)
    transfer(registers, buffer.address, CARD_MEMORY, half, 0)
    transfer(registers, CARD_MEMORY, buffer.address + half, half, TO_MEMORY)
    assert bytes(buffer[half : 2 * half]) == bytes(buffer[:half])


def line_in_proc(name: str) -> tuple[int, int]:
    """Return the number of the interrupt whose handler has a name, and how often it fired, from /proc/interrupts."""
    found = re.findall(rf"^ *(\d+):((?: +\d+)+) .*\b{name}$", Path("/proc/interrupts").read_text(), re.MULTILINE)
    ((number, counts),) = found
    return int(number), sum(map(int, counts.split()))


def test_maps_of_a_pci_function_are_its_bars(device: Device) -> None:
    bar = device.bar(0)
    (item,) = device.maps
    assert (item.address, item.size) == (bar.address, bar.size)
    with pytest.raises(pyuio.MappingError, match="the maps of uio_pci_generic are BARs"):
        device.map(0)
    assert device.irq == int((PCI_DEVICES / str(device.address) / "irq").read_text())


def test_no_driver_is_there_for_it(cards: Cards) -> None:
    with pytest.raises(pyuio.DeviceNotFoundError, match=r"no Board card \(the node edu-board\)"):
        Board.open()
    with pytest.raises(ValueError, match=f"Board serves the node edu-board; .* is {EDU}"):
        Board.open(cards(EDU)[0])


def test_the_maps(board: Device, bar: int) -> None:
    *registers, memory = board.maps
    assert [tuple(item) for item in registers] == [
        (0, "registers", bar, mmap.PAGESIZE, 0),
        (1, "dma-registers", bar, mmap.PAGESIZE, 0x80),
        (2, "unaligned", bar + 0x80, mmap.PAGESIZE, 0),
        (3, "odd-size", bar, 0x98, 0),
    ]
    assert (memory.index, memory.name, memory.size, memory.address % mmap.PAGESIZE) == (4, "", 0x100, 0x10)
    assert isinstance(memory, pyuio.UioMap)
    assert (board.name, board.address, board.ids) == ("edu_board.0", None, None)
    assert (board.uio_name, board.uio.name) == ("edu-board", find("edu-board").uio)
    with pytest.raises(AttributeError, match="not a PCI function"):
        board.config  # noqa: B018
    with pytest.raises(pyuio.MappingError, match="no BAR 0"):
        board.bar(0)


def test_registers_by_index_and_by_name(board: Device, bar: int) -> None:
    region = board.map(0)
    assert region is board.map("registers") is board.map("map0")
    assert region is not board.map(0, endian="big")
    assert (region.size, region.address, region.name) == (mmap.PAGESIZE, bar, "map 0 (registers) of edu_board.0")
    assert region.read32(0) == IDENTIFICATION
    assert board.map("registers", endian="big").read32(0) == 0xED000001
    region.write32(LIVENESS, 0x12345678)
    assert region.read32(LIVENESS) == 0xFFFFFFFF ^ 0x12345678
    assert region.mmio.read32(0) == IDENTIFICATION
    region.close()
    again = board.map(0)
    assert again is not region
    board.close()
    for closed in (region, again):
        with pytest.raises(pyuio.ClosedError):
            closed.read32(0)
    with pytest.raises(pyuio.ClosedError):
        board.map(0)
    with pytest.raises(pyuio.ClosedError):
        board.maps  # noqa: B018


def test_a_map_that_starts_in_the_middle_of_a_page(board: Device, bar: int) -> None:
    whole, part = board.map("registers"), board.map("dma-registers")
    assert (part.size, part.address) == (mmap.PAGESIZE - 0x80, bar + 0x80)
    part.write32(0, 0xCAFE0000)
    assert whole.read32(0x80) == 0xCAFE0000
    whole.write32(0x88, 0x1000)
    assert part.read32(8) == 0x1000
    part.read32(part.size - 4)
    with pytest.raises(ValueError, match="not inside"):
        part.read32(part.size)
    with pytest.raises(pyuio.MappingError, match="0x80 bytes into its page"):
        part.mmio  # noqa: B018
    exact = board.map("dma-registers", size=0x20)
    assert exact.size == 0x20
    assert exact.read32(0) == 0xCAFE0000
    with pytest.raises(ValueError, match=r"size 0x20\): 32-bit read at offset 0x20"):
        exact.read32(0x20)
    for size in (0, -1, mmap.PAGESIZE - 0x80 + 1, 1 << 70):
        with pytest.raises(ValueError, match="size"):
            board.map("dma-registers", size=size)
    with pytest.raises(TypeError):
        board.map("dma-registers", size="0x20")  # type: ignore[arg-type]


def test_memory_of_the_kernel(board: Device) -> None:
    """Its map starts at the address of its first byte, as no driver says where in a page that is."""
    region = board.map(4)
    assert (region.size, region.read(0, 0x100)) == (0x100, bytes(0x100))
    region.write(0, bytes(range(256)))
    assert board.map("map4", size=8).read(0, 8) == bytes(range(8))


def test_what_cannot_be_mapped(board: Device, memory: Device, bar: int) -> None:
    has = rf"; it has: map 0 \(registers\) of 0x1000 bytes at {bar:#x}; map 1 \(dma-registers\) .*, from 0x80 on; .*"
    for which, shown in ((5, "5"), (-1, "-1"), (1 << 70, str(1 << 70)), ("regs", "'regs'"), ("map5", "'map5'")):
        with pytest.raises(pyuio.MappingError, match=f"edu_board.0 has no map {shown}{has}") as caught:
            board.map(which)
        assert caught.value.errno == errno.ENXIO
    for wrong in (None, 1.0, b"registers", True):
        with pytest.raises(TypeError, match="a map is given by its index or its name"):
            board.map(wrong)  # type: ignore[arg-type]
    start = rf"mapping map 2 \(unaligned\) of edu_board.0, .* of /dev/uio\d+: .*; it starts at {bar + 0x80:#x}, 0x80 "
    with pytest.raises(pyuio.MappingError, match=rf"{start}bytes into a page, and mmap takes whole pages: .*edu-board"):
        board.map("unaligned")
    with pytest.raises(pyuio.MappingError, match=r"it has 0x98 bytes, and the kernel maps whole pages of 0x1000"):
        board.map("odd-size")
    with pytest.raises(pyuio.MappingError, match=r"map 1 \(nothing\) of edu_board.1: its driver has no memory"):
        memory.map("nothing")
    with pytest.raises(ValueError, match="endian"):
        board.map(0, endian="middle")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the widest access is of 8, 16, 32 or 64 bits, not 24"):
        board.map(0, width=24)
    assert board.map(0).read32(0) == IDENTIFICATION


def test_a_driver_that_refuses_mmap(edu_board: None) -> None:
    twin = next(found for found in pyuio.devices() if found.uio_name == "twin")
    with pyuio.open(twin) as device:
        with pytest.raises(pyuio.MappingError, match=r"edu_board.2 has 2 maps named 'same'; give the index"):
            device.map("same")
        refusal = (
            r"mapping map 1 \(same\) of edu_board.2, .*: .*; the kernel driver of /dev/uio\d+ \(twin\) refuses mmap"
        )
        with pytest.raises(pyuio.MappingError, match=refusal) as caught:
            device.map(1)
        assert caught.value.errno == errno.EPERM


def test_a_driver_that_admits_one_opener(edu_board: None) -> None:
    twin = [found for found in pyuio.devices() if found.uio_name == "twin"][-1]
    with pyuio.open(twin) as device:
        region = device.map(0)
        assert region.read32(0) == IDENTIFICATION
        with pytest.raises(pyuio.DeviceBusyError):
            pyuio.open(twin)
        device.map(0, size=8).close()
        assert region.read32(0) == IDENTIFICATION


def test_interrupts(board: Device) -> None:
    registers, interrupt = board.map(0), board.interrupt
    number, before = line_in_proc("edu-board")
    counted = board.uio.event_count
    assert board.irq == number
    assert interrupt.masked
    for count in range(1, 51):
        registers.write32(RAISE, 1)
        assert interrupt.read(PATIENCE) == 1
        assert registers.read32(STATUS) == 1
        registers.write32(ACKNOWLEDGE, 1)
        assert board.uio.event_count == counted + count
    with pytest.raises(pyuio.WouldBlockError):
        interrupt.read(0)
    assert line_in_proc("edu-board")[1] >= before + 50
    steered = Path(f"/proc/irq/{number}/smp_affinity_list")
    affinity = steered.read_text()
    with pyuio.realtime(interrupt=board, interrupt_cpu=0, lock_memory=False, freeze_garbage=False):
        assert steered.read_text().strip() == "0"
    assert steered.read_text() == affinity


def test_a_node_without_interrupt(memory: Device) -> None:
    assert memory.irq is None
    with pytest.raises(
        pyuio.InterruptUnavailableError, match="could deliver: its kernel driver was given none"
    ) as caught:
        memory.interrupt  # noqa: B018
    assert "INTx" not in str(caught.value)
    with pytest.raises(pyuio.InterruptUnavailableError, match="does not tell its interrupt"):
        pyuio.realtime(interrupt=memory)


def test_names(edu_board: None) -> None:
    found = find("edu-board")
    assert (found.device_name, found.uio_name, found.driver) == ("edu_board.0", "edu-board", "edu_board")
    assert str(found) == f"edu_board.0 (driver: edu_board, /dev/{found.uio} named edu-board)"
    assert found in pyuio.devices()
    with pyuio.open("edu-board"), pytest.raises(pyuio.DeviceBusyError, match=r"edu_board\.0 is open already"):
        pyuio.open("edu-board")
    twins = [device for device in pyuio.devices() if device.uio_name == "twin"]
    listed = "".join(rf"\n  {re.escape(str(twin))}" for twin in twins)
    with pytest.raises(pyuio.AmbiguousDeviceError, match=f"twin names 2 devices; name one .*:{listed}$"):
        pyuio.open("twin")
    with pyuio.open(str(twins[1].uio)) as second:
        assert second.uio_name == "twin"
    with pytest.raises(pyuio.DeviceNotFoundError, match=r"there is no device edu-bored; there is:(.|\n)*edu-board"):
        pyuio.open("edu-bored")


def test_a_driver_by_the_name_of_a_node(bar: int, caplog: pytest.LogCaptureFixture) -> None:
    with Board.open() as driver:
        assert driver.registers.identification.card == 0x00ED
        driver.dma.source.write(0x1234)
        assert driver.registers.dma_source.read() & 0xFFFFFFFF == 0x1234
        with pytest.raises(ValueError, match="at most 32 bits"):
            driver.device.map("dma-registers").read64(0)
        driver.device.map("dma-registers", width=64).read64(0)
    with caplog.at_level(logging.DEBUG, "pyuio.tracing"), Board.open("edu-board", trace=True) as driver:
        assert driver.registers.liveness.read() is not None
        driver.dma.destination.write(0x40)
    assert "edu_board.0: registers read32 0x004 liveness = 0x" in caplog.text
    assert "edu_board.0: dma-registers write32 0x008 destination = 0x00000040" in caplog.text
    with pytest.raises(ValueError, match=r"Board serves the node edu-board; edu_board\.1 is the node edu-memory"):
        Board.open("edu-memory")
    with pyuio.open("edu-board") as device:
        device.map(0)
        with pytest.raises(ValueError, match="traced from the start or not"):
            device.trace_registers()


def test_memory_that_the_driver_gave(board: Device, memory: Device) -> None:
    registers, region = board.map("registers"), memory.map("buffer")
    assert region.address is not None
    buffer = memory.dma.adopt(region, region.address)
    assert (len(buffer), buffer.address) == (2 * mmap.PAGESIZE, memory.maps[0].address)
    for _ in range(3):
        round_trip(registers, buffer)
    part = buffer[256:]
    round_trip(registers, part)
    buffer.registers.write32(0, 0x12345678)
    assert region.read32(0) == 0x12345678
    buffer.verify()
    assert memory.dma.owns(buffer)
    buffer.close()
    assert part.closed
    assert region.read32(0) == 0x12345678, "the memory stays the driver's"
    again = memory.dma.adopt(region, region.address)
    region.close()
    round_trip(registers, again)  # the mapping stays as long as a buffer is on it
    memory.close()
    with pytest.raises(pyuio.ClosedError):
        again.address  # noqa: B018
    with pytest.raises(pyuio.ClosedError):
        memory.dma.adopt(region, 0)


def test_memory_by_a_mapping_of_ones_own(board: Device, memory: Device) -> None:
    with Path(memory.uio.path).open("r+b", buffering=0) as node:
        mapping = mmap.mmap(node.fileno(), mmap.PAGESIZE)
    with memory.dma.adopt(mapping, memory.maps[0].address) as buffer:
        round_trip(board.map("registers"), buffer)
        with pytest.raises(BufferError):
            mapping.close()
    mapping.close()


def test_memory_that_cannot_be_adopted(memory: Device) -> None:
    region = memory.map("buffer")
    dma = memory.dma
    for wrong, kind in ((bytes(8), BufferError), (3, TypeError), (memoryview(bytearray(8))[::2], TypeError)):
        with pytest.raises(kind):
            dma.adopt(wrong, 0)  # type: ignore[arg-type]
    for memory_, address in ((bytearray(0), 0), (region, -1), (region, 1 << 64), (region, (1 << 64) - 8)):
        with pytest.raises(ValueError, match=r"at least 1 byte|not within 64 bits"):
            dma.adopt(memory_, address)
    dma.mask = 0xFFFF
    with pytest.raises(
        pyuio.DmaMemoryError, match=r"edu_board.1: the memory at 0xf000 is not for DMA: it ends at 0x10fff"
    ):
        dma.adopt(region, 0xF000)


def test_memory_of_ones_own_is_refused_unless_the_board_is_coherent(board: Device) -> None:
    with pytest.raises(pyuio.DmaUnavailableError, match=r"not a PCI function, .*dma\.adopt.*dma\.assume_coherent"):
        board.dma.alloc(4096)
    adopted = board.dma.adopt(bytearray(64), 0x1000)
    with pytest.raises(pyuio.DmaUnavailableError):
        board.dma.alloc(4096)
    adopted.close()
    board.dma.assume_coherent()
    with board.dma.alloc(4096) as buffer:
        round_trip(board.map("registers"), buffer)


def test_a_child_has_the_registers_and_nothing_else(board: Device, memory: Device) -> None:
    registers, region = board.map("registers"), memory.map("buffer")
    assert region.address is not None
    buffer = memory.dma.adopt(region, region.address)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if registers.read32(0) == IDENTIFICATION and buffer.closed and board.closed else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    round_trip(registers, buffer)


def test_removal(board: Device) -> None:
    registers, kernels = board.map("registers"), board.map(4)
    reader = threading.Timer(0.05, lambda: (BOUND / "unbind").write_text("edu_board.0"))
    reader.start()
    try:
        with pytest.raises(pyuio.DeviceRemovedError):
            board.interrupt.read(PATIENCE)
        reader.join()
        assert board.removed
        assert board.uio_name is None
        with contextlib.suppress(pyuio.DeviceRemovedError):
            kernels.write32(0, 1)  # mapped already, so that this is no SIGBUS
        for gone in (lambda: board.map(0), lambda: board.maps, lambda: registers.poll32(STATUS, 1, 1, 1)):
            with pytest.raises(pyuio.DeviceRemovedError):
                gone()
        with pytest.raises(pyuio.DeviceNotFoundError):
            pyuio.open("edu-board")
    finally:
        reader.join()
        board.close()
        (BOUND / "bind").write_text("edu_board.0")
    with pyuio.open("edu-board") as again:
        assert again.map(0).read32(0) == IDENTIFICATION


def test_nodes_that_come_and_go(edu_board: None) -> None:
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)  # the boards have just come
    with pyuio.Hotplug() as hotplug, pyuio.Hotplug(EDU) as of_edu:
        for _ in range(2):
            uio = find("edu-board").uio
            (BOUND / "unbind").write_text("edu_board.0")
            went = hotplug.read(PATIENCE)
            assert went.device is not None
            assert (went.action, went.device.uio, went.device.device_name) == ("remove", uio, "edu_board.0")
            assert str(went) == f"remove {uio} of edu_board.0"
            (BOUND / "bind").write_text("edu_board.0")
            came = hotplug.read(PATIENCE)
            assert came.action == "add"
            assert came.device == find("edu-board")
            assert str(came) == f"add {find('edu-board').uio} edu-board of edu_board.0"
            with pyuio.open(came.device) as device:
                wait_until(lambda: len(device.maps) == 5)
                assert device.map(0).read32(0) == IDENTIFICATION
        for other in (hotplug, of_edu):
            with pytest.raises(pyuio.WouldBlockError):
                other.read(0)


def test_hotplug_leaves_nodes_of_pci_functions_out(cards: Cards, edu_board: None) -> None:
    subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)
    with pyuio.Hotplug() as hotplug:
        with pyuio.open(cards(PCI_TESTDEV)[0], bind=True):
            pass
        (BOUND / "unbind").write_text("edu_board.0")
        (BOUND / "bind").write_text("edu_board.0")
        assert str(hotplug.read(PATIENCE)).endswith(" of edu_board.0")
