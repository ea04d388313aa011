# SPDX-License-Identifier: MIT
"""What is VFIO's alone: messages, removal that waits for the program, forks, resets, and who else has the device."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.nvme import Nvme

import pyuio
from pyuio._native._access import Window
from pyuio.backend import removal_watch
from pyuio.claim import binding
from pyuio.dma.lock import lock as dma_lock
from pyuio.interrupt import Interrupt
from pyuio.kernel import iommufd, vfio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI, bound_driver
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from pyuio.pci import Command
from pyuio.program import Read
from pyuio.region import PortRegion, Region, mapping
from tests.guest.support import (
    BUS_MASTER,
    E1000E,
    PATIENCE,
    PCI_SERIAL,
    Beside,
    Cards,
    Later,
    command_register,
    keep_bound,
    kernel_count,
    let_go,
    wait_until,
    write_in_a_fork,
)

NVME = "1b36:0010"


# ---- The configuration space ----


def test_what_would_make_accesses_end_the_program_is_refused(device: pyuio.Device) -> None:
    """While memory decoding is off, or in D3, VFIO answers an access to a BAR with SIGBUS."""
    config, bar = device.config, device.bar(0)
    with pytest.raises(pyuio.ConfigLockedError, match="SIGBUS"):
        config.change_command(clear=Command.MEMORY_SPACE)
    with config.unlocked():
        writes: list[Callable[[], None]] = [
            lambda: config.write8(4, 0),
            lambda: config.write16(4, 0),
            lambda: config.write32(4, 0),
        ]
        for write in writes:
            with pytest.raises(pyuio.ConfigLockedError, match="SIGBUS"):
                write()
        config.write16(4, int(config.command))
    assert bar.read32(0) == 0x0100_00ED


def test_the_power_state_without_registers_is_refused(cards: Cards) -> None:
    with pyuio.open(cards(E1000E)[0], bind="vfio-pci") as device, device.config.unlocked():
        power = next(one.offset for one in device.config.capabilities() if one.id == 1)
        with pytest.raises(pyuio.ConfigLockedError, match="SIGBUS"):
            device.config.write8(power + 4, 3)
        with pytest.raises(pyuio.ConfigLockedError, match="SIGBUS"):
            device.config.write16(power + 4, 0x103)
        device.config.write8(power + 4, 0)


@pytest.mark.long
def test_a_process_that_reads_uevent_is_not_in_the_way(cards: Cards) -> None:
    """The kernel locks a device meanwhile, and VFIO does not wait for the lock: half of the resets gave EAGAIN."""
    address = cards(E1000E)[0]
    reader = os.fork()
    if reader == 0:
        file = os.open(f"/sys/bus/pci/devices/{address}/uevent", os.O_RDONLY)
        while True:
            os.pread(file, 4096, 0)
    try:
        for _ in range(20):
            with pyuio.open(address, bind="vfio-pci") as device:
                device.reset()
    finally:
        os.kill(reader, signal.SIGKILL)
        os.waitpid(reader, 0)


# ---- Messages ----


class Messages:
    """The five MSI-X vectors of an Intel 82574, each with a cause of its own (data sheet, section 10.2.4).

    QEMU sends at most one message in 128 us on a vector. After it has held one back, it sends each a second time, when
    that time is over: it never forgets that it held one back (hw/net/e1000e_core.c, e1000e_postpone_interrupt; 7.2).
    It aborts if MSI-X is disabled before, so `reset` comes before the end.
    """

    _CTRL, _CTRL_RESET = 0x00, 1 << 26
    _ICR, _ICS, _IMS, _EIAC, _IVAR = 0xC0, 0xC8, 0xD0, 0xDC, 0xE4
    _CAUSES = range(20, 25)  # receive queues 0 and 1, transmit queues 0 and 1, other

    def __init__(self, device: pyuio.Device, count: int = 5) -> None:
        self.bar = device.bar(0)
        self.vectors = device.vectors(count)
        all_causes = sum(1 << bit for bit in self._CAUSES)
        self.bar.write32(self._EIAC, all_causes)  # each message clears its cause
        self.bar.write32(self._IVAR, sum((8 | vector) << 4 * vector for vector in range(5)))
        self._all = all_causes

    def raise_message(self, vector: int) -> None:
        self.bar.write32(self._IMS, self._all)
        self.bar.write32(self._ICS, 1 << self._CAUSES[vector])

    def drain(self) -> None:
        """Wait until no vector holds a message back, and forget what came."""
        time.sleep(0.0005)
        for interrupt in self.vectors:
            with contextlib.suppress(BlockingIOError):
                interrupt.read(0)

    def reset(self) -> None:
        self.bar.write32(self._CTRL, self._CTRL_RESET)


@pytest.fixture
def messages(cards: Cards) -> Iterator[Messages]:
    with pyuio.open(cards(E1000E)[0], bind=VFIO_PCI) as device:
        messages = Messages(device)
        try:
            yield messages
        finally:
            messages.reset()


def test_each_vector_counts_its_own(messages: Messages) -> None:
    assert [interrupt.kind for interrupt in messages.vectors] == ["MSI-X"] * 5
    for vector, interrupt in enumerate(messages.vectors):
        for _ in range(vector + 1):
            messages.raise_message(vector)
            # On a busy machine a second message of an earlier vector comes after `drain`.
            assert set(pyuio.wait(messages.vectors, 5)) <= set(messages.vectors[: vector + 1])
            assert interrupt.read(5) >= 1
        assert not any(one.pending for one in messages.vectors[vector + 1 :])
        messages.drain()
    assert all(interrupt.total >= vector for vector, interrupt in enumerate(messages.vectors, 1))


def count_messages(messages: Messages, number: int) -> None:
    """Raise one on each of four vectors, which have nothing pending, and read all."""
    for _ in range(number // 4):
        for vector in range(4):
            messages.raise_message(vector)
        assert all(interrupt.read(5) for interrupt in messages.vectors[:4])
        messages.drain()
    assert messages.vectors[4].total == 0


def test_no_message_is_lost(messages: Messages) -> None:
    count_messages(messages, 300)


@pytest.mark.long
def test_no_message_of_100_000_is_lost(messages: Messages) -> None:
    count_messages(messages, 100_000)


def test_a_service_for_a_vector(messages: Messages) -> None:
    with pyuio.Service(messages.vectors[1]) as service:
        messages.raise_message(1)
        messages.raise_message(0)
        assert messages.vectors[0].read(5) >= 1
        assert service.read(5)[0].count >= 1
        with pytest.raises(pyuio.DeviceBusyError):
            messages.vectors[1].read(0)


def test_each_nvme_queue_has_its_vector(cards: Cards) -> None:
    with pyuio.open(cards(NVME)[0], bind=VFIO_PCI) as device, Nvme(device, by_interrupt=True) as disk:
        queues = [disk.queue(4) for _ in range(8)]
        vectors = [queue.interrupt for queue in queues if queue.interrupt is not None]
        assert len(set(vectors)) == 8
        for number, (queue, vector) in enumerate(zip(queues, vectors, strict=True), 1):
            assert [bytes(data) for data in queue.read_many(range(0, 80, 8), 8)] == [bytes(4096)] * 10
            wait_until(lambda vector=vector: vector.total > 0 or vector.pending)  # type: ignore[misc]  # read if needed
            # A message comes after the entry in memory that it is for. So one of an earlier queue may come now.
            assert not any(one.pending or one.total for one in vectors[number:])


class NetworkCard(pyuio.Driver):
    """What a driver of the network card says to get its vectors."""

    ids = (E1000E,)
    vectors = 3


def test_a_driver_asks_for_vectors(cards: Cards) -> None:
    with pyuio.open(cards(E1000E)[0], bind=VFIO_PCI) as device:
        assert device.most_vectors == 5
        driver = NetworkCard(device)
        assert [interrupt.kind for interrupt in driver.interrupts] == ["MSI-X"] * 3
        assert driver.interrupts[0] is device.interrupt


def test_messages_need_bus_mastering_and_get_it(edu: str) -> None:
    keep_bound(edu)
    with pyuio.open(edu) as device:
        assert not command_register(edu) & BUS_MASTER
        (interrupt,) = device.vectors(1)
        assert interrupt is device.interrupt
        assert interrupt.kind == "MSI"
        assert command_register(edu) & BUS_MASTER
        card = Edu(device)
        before = kernel_count(device)
        for number in range(1, 6):  # one by one, because a processor keeps one message of a vector at a time
            card.raise_interrupt()
            wait_until(lambda number=number: kernel_count(device) == before + number)  # type: ignore[misc]
            card.acknowledge()
        assert interrupt.read(5) == 5
    assert not command_register(edu) & BUS_MASTER


def test_vectors_that_there_are_not(edu: str) -> None:
    keep_bound(edu)
    with pyuio.open(edu) as device:
        with pytest.raises(pyuio.InterruptUnavailableError, match="has no 2 message interrupts; it has 1 MSI"):
            device.vectors(2)
        with pytest.raises(ValueError, match="at least one vector"):
            device.vectors(0)
        assert device.interrupt.kind == "INTx"
        with pytest.raises(pyuio.InterruptUnavailableError, match=r"enabled already \(1 INTx\)"):
            device.vectors(1)
    with pytest.raises(pyuio.ClosedError):
        device.vectors(1)


@contextlib.contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Let this process open at most so many more, but for numbers that are free below the highest that is open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())  # that of this listing, or higher
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_vectors_without_descriptors(cards: Cards) -> None:
    with pyuio.open(cards(E1000E)[0], bind=VFIO_PCI) as device:
        before = descriptors()
        for number in range(10):
            with (
                descriptors_left(number),
                pytest.raises(pyuio.InterruptUnavailableError, match=r"they take 20 descriptors, .* \(ulimit -n\)"),
            ):
                device.vectors(5)
            assert descriptors() == before
        assert len(device.vectors(5)) == 5


def test_ctrl_c_amid_vectors(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = vfio.deliver_interrupts

    def deliver_and_interrupt(*arguments: Any) -> None:
        deliver(*arguments)
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)

    with pyuio.open(cards(E1000E)[0], bind=VFIO_PCI) as device:
        monkeypatch.setattr(vfio, "deliver_interrupts", deliver_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            device.vectors(5)
        assert device.interrupt.kind == "MSI-X"


def test_uio_has_no_vectors(edu: str) -> None:
    with (
        pyuio.open(edu, bind=UIO_PCI_GENERIC) as device,
        pytest.raises(pyuio.InterruptUnavailableError, match="bind='vfio-pci'"),
    ):
        device.vectors(1)


# ---- Registers ----


def test_bars_of_every_kind(cards: Cards) -> None:
    with pyuio.open(cards(E1000E)[0], bind=VFIO_PCI) as device:
        kinds = [type(device.bar(bar.index)) for bar in device.config.bars() if bar.kind != "rom" and bar.index < 6]
        assert kinds == [Region, Region, PortRegion, Region]  # the last has the MSI-X table
        assert device.bar(2).read32(0) == device.bar(2).read32(0)
        assert device.bar(3).read32(0) == 0
    with pyuio.open(cards(PCI_SERIAL)[0], bind=VFIO_PCI) as device:
        scratch = device.bar(0)
        scratch.write8(7, 0x5A)
        assert scratch.read8(7) == 0x5A


def test_a_bar_that_vfio_does_not_map(edu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel maps no BAR that shares its page with another card's; here all have pages of their own."""
    file_region = vfio.file_region
    monkeypatch.setattr(vfio, "file_region", lambda *place: file_region(*place)._replace(mappable=False))
    keep_bound(edu)
    with pyuio.open(edu) as device:
        bar = device.bar(0)
        assert isinstance(bar, PortRegion)
        assert bar.read32(0) == 0x010000ED
        bar.write32(4, 0x1234)
        assert bar.read32(4) == 0xFFFF_EDCB
        with pytest.raises(ValueError, match="nor have BARs that VFIO does not map"):
            bar.read64(0)
        with pytest.raises(pyuio.MappingError):
            _ = bar.mmio


def test_configuration_space(edu: str) -> None:
    keep_bound(edu)
    with pyuio.open(edu) as device:
        assert device.config.size == 256
        assert (device.config.vendor_id, device.config.device_id) == (0x1234, 0x11E8)
        device.config.change_command(set=Command.BUS_MASTER)
        assert command_register(edu) & BUS_MASTER
        device.config.change_command(clear=Command.BUS_MASTER)
        assert not command_register(edu) & BUS_MASTER
        with pytest.raises(pyuio.ConfigLockedError):
            device.config.write32(0x10, 0)


def test_reset(edu: str, cards: Cards) -> None:
    keep_bound(edu)
    with pyuio.open(edu) as device, pytest.raises(pyuio.ResetUnavailableError) as caught:
        device.reset()
    assert caught.value.errno == errno.EOPNOTSUPP
    let_go()
    with pyuio.open(cards(NVME)[0], bind=VFIO_PCI) as device:
        bar = device.bar(0)
        # NVM Express 1.4, sections 3.1 and 7.3.2: admin queues, of which none is used, enable, ready.
        for offset, value in ((0x24, 0x001F_001F), (0x28, 0x1000), (0x30, 0x2000), (0x14, 0x0046_0001)):
            bar.write32(offset, value)
        bar.poll32(0x1C, 1, 1, PATIENCE)
        device.reset("flr")
        assert bar.read32(0x1C) & 1 == 0
        with pytest.raises(pyuio.ResetUnavailableError, match="no reset by 'bus': it has flr"):
            device.reset("bus")


# ---- The end ----


def open_files() -> list[str]:
    """Return the names of the files that this process has open."""
    return [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]  # noqa: PTH115


def view_of(device: pyuio.Device) -> memoryview:
    """Return BAR 0 as words of 32 bits: an access of another width that edu refuses is a SIGBUS on arm64."""
    mapping: Any = device.bar(0).mmio
    return memoryview(mapping.mapping).cast("I")


def test_it_is_let_go_while_the_program_computes(edu: str, cards: Cards) -> None:
    """The one who unbinds waits for a program that neither waits nor accesses, and whose views are still there."""
    done = binding.bind(edu, VFIO_PCI)
    device = pyuio.open(edu)
    card = Edu(device)
    view = view_of(device)
    assert view[0] == 0x010000ED
    service = pyuio.Service(device.interrupt, card.acknowledge_program())
    began = time.monotonic()
    write_in_a_fork(PCI_DRIVERS / VFIO_PCI / "unbind", edu)
    assert time.monotonic() - began < PATIENCE / 2
    assert device.removed
    assert view[0] == 0
    uses: list[Callable[[], object]] = [
        lambda: card.bar.read32(0),
        lambda: card.bar.write32(4, 1),
        lambda: device.config.read32(0),
        lambda: device.bar(0),
        lambda: device.interrupt.read(0),
        lambda: device.vectors(1),
        device.reset,
        lambda: service.read(5),
    ]
    for use in uses:
        with pytest.raises(pyuio.DeviceRemovedError):
            use()
    service.close()
    device.close()
    done.undo()


def unbind_meanwhile(address: str, after: int | None = None) -> int:
    """Unbind the card in another process, and return the number of that; it waits first to read a byte from `after`."""
    child = os.fork()
    if child == 0:
        try:
            if after is not None:
                os.read(after, 1)
            (PCI_DRIVERS / VFIO_PCI / "unbind").write_text(address)
        finally:
            os._exit(0)
    return child


def wait_for(child: int) -> None:
    wait_until(lambda: os.waitpid(child, os.WNOHANG)[0] == child)


def test_it_is_let_go_when_no_descriptor_is_left(edu: str) -> None:
    done = binding.bind(edu, VFIO_PCI)
    with pyuio.open(edu) as device:
        device.bar(0).read32(0)
        reading, writing = os.pipe()
        child = unbind_meanwhile(edu, reading)
        taken = [reading, writing]
        with descriptors_left(0):
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            os.write(writing, b"1")
            wait_for(child)
        for descriptor in taken:
            os.close(descriptor)
        assert device.removed
    done.undo()


@pytest.mark.parametrize("lock", ["memory", "configuration space"])
def test_a_signal_handler_closes_it_while_it_is_let_go(edu: str, lock: str) -> None:
    """The handler runs in a thread that has a lock, for which the thread that lets the device go waits."""
    done = binding.bind(edu, VFIO_PCI)
    device = pyuio.open(edu)
    view, config = view_of(device), device.config
    with dma_lock if lock == "memory" else config._lock:
        child = unbind_meanwhile(edu)
        wait_until(lambda: view[0] == 0)
        device.close()
    wait_for(child)
    done.undo()


def test_it_is_not_let_go_while_a_thread_maps_memory(edu: str) -> None:
    """The kernel frees what that call uses as soon as the last function of a group is closed."""
    if iommufd.is_usable(PCI_DEVICES / edu):
        pytest.skip("iommufd keeps what its calls use until they end")
    done = binding.bind(edu, VFIO_PCI)
    with pyuio.open(edu) as device:
        view = view_of(device)
        with dma_lock:
            child = unbind_meanwhile(edu)
            wait_until(lambda: view[0] == 0)
            time.sleep(0.1)
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "it waits"
        wait_for(child)
    done.undo()


def test_it_is_not_closed_while_a_thread_maps_memory(edu: str, later: Later) -> None:
    if iommufd.is_usable(PCI_DEVICES / edu):
        pytest.skip("iommufd keeps what its calls use until they end")
    keep_bound(edu)
    device = pyuio.open(edu)
    with dma_lock:
        closing = later(device.close)
        wait_until(lambda: device.closed)
        time.sleep(0.1)
        assert "anon_inode:[vfio-device]" in open_files(), "it waits"
    closing.join(PATIENCE)
    assert "anon_inode:[vfio-device]" not in open_files()


def test_an_event_of_an_earlier_device_is_not_believed(edu: str) -> None:
    """The kernel gives the numbers of descriptors to new ones, while the event of the old one is on its way."""
    keep_bound(edu)
    with pyuio.open(edu) as device:
        backend: Any = device._backend
        backend._let_go()
        assert not device.removed
        assert device.bar(0).read32(0) == 0x010000ED


def test_it_is_let_go_in_the_middle_of_opening(edu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = binding.bind(edu, VFIO_PCI)
    file_region = vfio.file_region
    reading, writing = os.pipe()
    child = unbind_meanwhile(edu, reading)

    def when_wanted_back(*place: Any) -> vfio.FileRegion:
        monkeypatch.undo()
        (eventfd,) = removal_watch._watch._watched
        os.write(writing, b"1")
        assert select.select([eventfd], [], [], PATIENCE)[0]
        time.sleep(0.1)  # so that the thread that lets it go has begun
        return file_region(*place)

    monkeypatch.setattr(vfio, "file_region", when_wanted_back)
    with pyuio.open(edu) as device:
        wait_for(child)
        with pytest.raises(pyuio.DeviceRemovedError):
            device.bar(0)
    os.close(reading)
    os.close(writing)
    done.undo()


@pytest.mark.parametrize("use", ["interrupt", "vectors", "most_vectors"])
def test_it_is_let_go_after_the_last_look(edu: str, use: str) -> None:
    """The device goes when `Device` has just asked whether it is there."""
    done = binding.bind(edu, VFIO_PCI)
    with pyuio.open(edu) as device:
        write_in_a_fork(PCI_DRIVERS / VFIO_PCI / "unbind", edu)
        backend: Any = device._backend
        uses: dict[str, Callable[[], object]] = {
            "interrupt": lambda: backend.interrupt,
            "vectors": lambda: backend.vectors(1),
            "most_vectors": lambda: backend.most_vectors,
        }
        with pytest.raises(pyuio.DeviceRemovedError):
            uses[use]()
    done.undo()


def test_no_thread_is_left_that_would_let_it_go(edu: str) -> None:
    keep_bound(edu)
    number = vfio.group_of(PCI_DEVICES / edu)
    assert number is not None
    node = vfio.group_path(number)
    mode = node.stat().st_mode
    node.chmod(0o666)
    child = os.fork()  # where no thread watches yet
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_NPROC, (1, 1000))
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with pytest.raises(OSError, match=r"can't start new thread.*ulimit -u"):
                pyuio.open(edu)
            resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))
            pyuio.open(edu).close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    node.chmod(mode)


@pytest.mark.parametrize("by", ["unbind", "remove"])
def test_unbinding_a_device_that_this_process_has_open(edu: str, by: str) -> None:
    """The thread that unbinds waits in the kernel, and another one lets the device go."""
    done = binding.bind(edu, VFIO_PCI)
    with pyuio.open(edu) as device:
        assert device.bar(0).read32(0) == 0x010000ED
        if by == "unbind":
            (PCI_DRIVERS / VFIO_PCI / "unbind").write_text(edu)
        else:
            Path("/sys/bus/pci/devices", edu, "remove").write_text("1")
        with pytest.raises(pyuio.DeviceRemovedError):
            device.bar(0)
    if by == "unbind":
        done.undo()
    else:
        Path("/sys/bus/pci/rescan").write_text("1")


def test_a_port_region_that_a_service_uses_is_let_go(cards: Cards, later: Later) -> None:
    address = cards(PCI_SERIAL)[0]
    done = binding.bind(address, VFIO_PCI)
    device = pyuio.open(address)
    with pyuio.Service(device.interrupt, [Read("status", device.bar(0), 5, 8)]):
        write_in_a_fork(PCI_DRIVERS / VFIO_PCI / "unbind", address)
        with pytest.raises(pyuio.DeviceRemovedError):
            device.bar(0)
    device.close()
    done.undo()


def test_ctrl_c_amid_mapping_a_bar(edu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception's traceback refers to the mapping, and the device is given back nevertheless."""
    revocable = mapping.RevocableMapping

    def map_and_interrupt(*arguments: Any) -> mapping.Mapping:
        made = revocable(*arguments)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(mapping, "RevocableMapping", map_and_interrupt)
    with pytest.raises(KeyboardInterrupt), pyuio.open(edu, bind=VFIO_PCI) as device:
        device.bar(0)
    assert bound_driver(edu) is None


def test_closing_gives_it_back_though_views_remain(edu: str) -> None:
    device = pyuio.open(edu, bind=VFIO_PCI)
    view = view_of(device)
    assert view[0] == 0x010000ED
    device.close()
    assert view[0] == 0
    assert bound_driver(edu) is None


def test_a_forked_child_keeps_nothing(edu: str) -> None:
    device = pyuio.open(edu, bind=VFIO_PCI)
    region = device.bar(0)
    view = view_of(device)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = "nothing"
        try:
            assert view[0] == 0
            with pytest.raises(pyuio.ClosedError):
                region.read32(0)
            with pytest.raises(pyuio.ClosedError):
                device.interrupt.read(0)
            told = "closed"
        finally:
            os.write(writing, told.encode())
            signal.pause()
    assert os.read(reading, 16) == b"closed"
    assert region.read32(0) == 0x010000ED
    device.close()
    assert bound_driver(edu) is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)


def test_a_fork_while_another_thread_closes_a_bar(edu: str) -> None:
    """The child closes the files all the same. It could not be killed if it unbound the device and had them."""
    keep_bound(edu)
    device = pyuio.open(edu)
    region: Any = device.bar(0)
    mapped = region.mmio
    Window.close(region)
    mapped.mapping.close()  # the thread is about to note that
    child = os.fork()
    if child == 0:
        os._exit(int(any("vfio" in name for name in open_files())))
    assert os.waitpid(child, 0)[1] == 0
    device.close()


def test_a_fork_while_another_thread_opens_it(edu: str, later: Later, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_bound(edu)
    amid, forking = threading.Event(), threading.Event()
    file_region = vfio.file_region

    def slowly(*place: Any) -> vfio.FileRegion:
        amid.set()
        assert forking.wait(PATIENCE)
        time.sleep(0.2)  # the fork is not over before this, or the child has the files
        return file_region(*place)

    monkeypatch.setattr(vfio, "file_region", slowly)
    opened: list[pyuio.Device] = []
    thread = later(lambda: opened.append(pyuio.open(edu)))
    assert amid.wait(PATIENCE)
    forking.set()
    child = os.fork()
    if child == 0:
        os._exit(int(any("vfio" in name for name in open_files())))
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    opened[0].close()


def test_a_child_that_may_access(edu: str) -> None:
    device = pyuio.open(edu, bind=VFIO_PCI)
    region = device.bar(0)
    device.let_children_access()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            region.write32(4, 0x1234)
            status = int(region.read32(4) != 0xFFFF_EDCB)
            with pytest.raises(pyuio.ClosedError):
                device.interrupt.read(0)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert region.read32(4) == 0xFFFF_EDCB
    device.close()
    assert bound_driver(edu) is None


def test_a_descriptor_elsewhere_is_named_and_nothing_hangs(edu: str) -> None:
    """Somebody has a descriptor of the function: giving it back would wait for ever, so it is refused."""
    device = pyuio.open(edu, bind=VFIO_PCI)
    other = next(
        os.dup(int(entry.name))
        for entry in Path("/proc/self/fd").iterdir()
        if entry.is_symlink() and re.match(r"anon_inode:\[vfio-device\]|/dev/vfio/devices/", os.readlink(entry))  # noqa: PTH115
    )
    with pytest.raises(pyuio.DeviceBusyError, match=f"process {os.getpid()}"):
        device.close()
    assert bound_driver(edu) == VFIO_PCI
    os.close(other)
    assert binding.unbind(edu).released == VFIO_PCI
    assert bound_driver(edu) is None


@pytest.mark.parametrize(
    "use",
    [
        pyuio.open,
        *(
            pytest.param(use, marks=pytest.mark.long)
            for use in (
                lambda address: pyuio.open(address, bind=True),
                lambda address: pyuio.open(address, bind=UIO_PCI_GENERIC),
                lambda address: binding.bind(address, UIO_PCI_GENERIC),
                binding.unbind,
            )
        ),
    ],
    ids=["open", "bind to any", "bind to UIO", "bind", "unbind"],
)
def test_another_process_has_it(edu: str, use: Callable[[str], object]) -> None:
    keep_bound(edu)
    reading, writing = os.pipe()

    def program() -> None:
        with pyuio.open(edu):
            print("open", flush=True)
            os.read(reading, 1)

    with Beside(program, "holder") as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(pyuio.DeviceBusyError, match=f"process {holder.pid}"):
            use(edu)
        assert bound_driver(edu) == VFIO_PCI
        os.write(writing, b"1")
        assert holder.wait(PATIENCE) == 0
    os.close(reading)
    os.close(writing)


def test_twice_in_this_process(edu: str) -> None:
    keep_bound(edu)
    with pyuio.open(edu), pytest.raises(pyuio.DeviceBusyError, match="open already, in this process"):
        pyuio.open(edu)
    pyuio.open(edu).close()


def test_a_driver_that_hands_nothing_on(edu: str) -> None:
    """An ordinary driver would write to the registers of a card that it does not know."""
    let_go()
    loaded = sorted(os.listdir(PCI_DRIVERS))  # noqa: PTH208
    with pytest.raises(pyuio.BindingError, match="e1000e does not hand devices on"):
        pyuio.open(edu, bind="e1000e")
    assert sorted(os.listdir(PCI_DRIVERS)) == loaded  # noqa: PTH208
    assert bound_driver(edu) is None


def test_true_chooses_vfio_and_a_name_decides(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        assert device.driver == VFIO_PCI
        with pytest.raises(AttributeError, match="no UIO node"):
            _ = device.uio
        assert isinstance(device.interrupt, Interrupt)
    with pyuio.open(edu, bind=UIO_PCI_GENERIC) as device:
        assert device.driver == UIO_PCI_GENERIC
        assert device.uio.driver_name == UIO_PCI_GENERIC
        with pytest.raises(pyuio.DmaUnavailableError, match=r"its IOMMU translates .* boot with iommu=pt .*VFIO"):
            device.dma.alloc(64)  # the card would not reach it
        assert not command_register(edu) & BUS_MASTER
    assert bound_driver(edu) is None
