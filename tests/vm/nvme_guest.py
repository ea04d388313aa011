# SPDX-License-Identifier: MIT
"""Tests of the driver on QEMU's NVMe controllers. test_nvme.py makes the disks, and runs pytest on this in a guest."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.nvme import Nvme
from pyuio_drivers.nvme_errors import (
    CommandError,
    CommandTimeoutError,
    ControllerFatalError,
    ControllerResetError,
    NamespaceNotFoundError,
    NotWritableError,
    NvmeError,
)
from pyuio_drivers.nvme_registers import NvmeRegisters, ShutdownNotification
from pyuio_drivers.nvme_structures import IDENTIFY

import pyuio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.hugepages import hugepages
from pyuio.pci import Command

MAIN, FAULTY, SLOW, MANY, EMPTY = (f"0000:00:0{number}.0" for number in range(1, 6))
IN = Path(os.environ["NVME_IN"])
BLOCK = 512
HUGEPAGES = 16  # more than any test here has in use
SHORT = (((1, None), False), ((5, 2), True), ((32, None), False))  # depth and batch, and whether by interrupt


kept: dict[bool, Nvme] = {}
"""Open disks that the tests share, by whether they interrupt: to open one takes a second under emulation."""


def let_go() -> None:
    while kept:
        kept.popitem()[1].close()


def keep(by_interrupt: bool) -> Nvme:
    if by_interrupt not in kept:
        let_go()
        kept[by_interrupt] = Nvme.open(MAIN, writable=True, by_interrupt=by_interrupt)
    return kept[by_interrupt]


@pytest.fixture(autouse=True)
def nobody_has_the_disk(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close the disk before a test that opens it itself, and after a test that failed."""
    if not {"disk", "either_disk"} & set(request.fixturenames):
        let_go()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed != failed:
        let_go()


@pytest.fixture
def alone() -> Iterator[None]:
    """Open `disk` for one test only, because the test leaves it in a state of its own."""
    let_go()
    yield
    let_go()


@pytest.fixture
def disk() -> Nvme:
    """Return the disk as the previous test left it."""
    return keep(by_interrupt=False)


@pytest.fixture
def either_disk(by_interrupt: bool) -> Nvme:
    """Return the disk with or without interrupts."""
    return keep(by_interrupt)


@pytest.fixture(scope="module", autouse=True)
def enough_hugepages() -> None:
    """Set hugepages aside once: if each driver does so, that takes half a second each time under emulation."""
    size = hugepages()[0]
    size.change(HUGEPAGES)


def pattern(block: int, count: int = 1, seed: int = 0) -> bytes:
    """Return data that is different in each block."""
    return b"".join(b"%5d %9d\n" % (seed, number) * (BLOCK // 16) for number in range(block, block + count))


def number(block_device: Path) -> int | None:
    with contextlib.suppress(OSError):
        return int((block_device / "nsid").read_text())
    return None


@contextlib.contextmanager
def kernel_driver(address: str, namespace: int = 1) -> Iterator[str]:
    """Give the disk to the kernel's driver, and yield its block device."""
    driver = Path("/sys/bus/pci/drivers/nvme")
    # When it is loaded, it takes no disk by itself. (Of all five, the slow one would take seconds.)
    autoprobe = Path("/sys/bus/pci/drivers_autoprobe")
    autoprobe.write_text("0")
    subprocess.run(["modprobe", "nvme"], check=True)
    autoprobe.write_text("1")
    others = Path("/sys/bus/pci/drivers/igb_uio")
    if is_others := (others / address).exists():
        (others / "unbind").write_text(address)
    (driver / "bind").write_text(address)
    try:
        deadline = time.monotonic() + 20
        # The kernel numbers the disks itself; the controller's number of the namespace is in nsid.
        while not (found := [path for path in Path("/sys/block").glob("nvme*") if number(path) == namespace]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        device = Path("/dev", found[0].name)
        while not device.exists():
            time.sleep(0.05)
        yield str(device)
    finally:
        (driver / "unbind").write_text(address)
        if is_others:
            (others / "bind").write_text(address)


def test_identity(disk: Nvme) -> None:
    assert disk.controller.serial == "main"
    assert disk.controller.model == "QEMU NVMe Ctrl"
    assert disk.controller.largest_transfer == 64 << 10
    assert disk.capabilities.version >= (1, 4, 0)
    assert disk.namespaces() == [1]
    assert (disk.namespace.number, disk.namespace.block_size, disk.namespace.size) == (1, BLOCK, 64 << 20)


def test_reads_what_another_tool_put_into_the_file(disk: Nvme) -> None:
    expected = (IN / "random").read_bytes()
    assert disk.read(2048, len(expected) // BLOCK) == expected
    assert disk.read(2049) == expected[BLOCK : 2 * BLOCK]


@pytest.mark.parametrize(
    "count",
    [1, 8, 9, 16, 17, 129, *(pytest.param(count, marks=pytest.mark.long) for count in (7, 24, 127, 128, 1024, 1031))],
)
def test_every_number_of_pages(disk: Nvme, count: int) -> None:
    """Commands of one page, of two pages, with PRP lists up to the largest command, and several commands."""
    data = pattern(count, count, seed=1)
    assert disk.write(40000 + count, data) == len(data)
    assert disk.read(40000 + count, count) == data
    buffer = bytearray(len(data))
    assert disk.readinto(40000 + count, memoryview(buffer)) == len(data)
    assert buffer == data
    assert disk.read(40000 + count + count - 1) == data[-BLOCK:]


@pytest.mark.parametrize(
    ("depth", "batch", "by_interrupt"),
    [
        pytest.param(*sizes, way, marks=[] if (sizes, way) in SHORT else [pytest.mark.long])
        for way in (False, True)
        for sizes in ((1, None), (2, 1), (5, 2), (5, None), (32, 16), (32, None))
    ],
)
def test_many(either_disk: Nvme, depth: int, batch: int | None, by_interrupt: bool) -> None:
    """In batches of half the depth, the default for a real disk, and of the whole depth, for an emulated one."""
    disk = either_disk
    with disk.queue(depth, 16, batch=batch) as queue:
        assert disk.controller.emulated
        interrupt = queue.interrupt or disk.device.interrupt  # over VFIO each queue has a vector of its own
        before = interrupt.total
        blocks = random.Random(depth).sample(range(60000, 100000, 8), 200)
        assert queue.write_many(((block, pattern(block, 8, depth)) for block in blocks), 8) == 200
        disk.flush()
        for number in (0, 1, 2, depth - 1, depth + 1, 200):  # up to and around whole batches
            some = blocks[:number]
            found = {block: bytes(data) for block, data in zip(some, queue.read_many(some, 8), strict=True)}
            assert all(found[block] == pattern(block, 8, depth) for block in some)
        assert next(iter(queue.read_many([blocks[0]], 16)))[: 8 * BLOCK] == pattern(blocks[0], 8, depth)
        if not by_interrupt:
            assert interrupt.total == before
        elif depth == 1:  # many at once may all be done before the driver has to wait
            assert interrupt.total > before


def test_more_completions_than_the_ring_has(disk: Nvme) -> None:
    for depth, batch, number in ((1, 1, 60), (32, 16, 200), (32, 32, 200)):
        blocks = [2048 + index % 1000 for index in range(number)]
        expected = (IN / "random").read_bytes()
        with disk.queue(depth, 1, batch=batch) as queue:
            for block, data in zip(blocks, queue.read_many(blocks), strict=True):
                assert data == expected[(block - 2048) * BLOCK : (block - 2047) * BLOCK]


def test_a_read_that_is_not_taken_to_its_end(disk: Nvme) -> None:
    expected = (IN / "random").read_bytes()
    for depth, batch in ((1, 1), (8, 4), (8, 8)):
        with disk.queue(depth, batch=batch) as queue:
            for _ in range(3):
                reading = queue.read_many(range(2048, 2148))
                assert next(reading) == expected[:BLOCK]
                with pytest.raises(pyuio.DeviceBusyError, match="close"):
                    next(queue.read_many([0]))
                reading.close()  # type: ignore[attr-defined]
            assert [bytes(data) for data in queue.read_many([2049])] == [expected[BLOCK : 2 * BLOCK]]
    assert [bytes(data) for data in disk.read_many([2049, 2048])] == [expected[BLOCK : 2 * BLOCK], expected[:BLOCK]]
    with pytest.raises(pyuio.ClosedError):
        queue.write_many([(0, bytes(BLOCK))])


def test_the_next_block_may_depend_on_the_data_before_the_last(disk: Nvme) -> None:
    taken = []

    def blocks() -> Iterator[int]:
        for block in range(50):
            taken.append(block)
            yield block

    with disk.queue(1) as queue:
        for number, _ in enumerate(queue.read_many(blocks())):
            assert len(taken) - number <= 3


def test_smart_counts(disk: Nvme) -> None:
    before = disk.smart()
    assert (before.warnings, before.media_errors) == ((), 0)
    assert 0 < before.temperature < 100
    for _ in range(10):
        disk.read(0)
        disk.write(50000, bytes(BLOCK))
    after = disk.smart()
    assert after.read_commands >= before.read_commands + 10
    assert after.write_commands >= before.write_commands + 10


def test_bad_arguments(disk: Nvme) -> None:
    last = disk.namespace.blocks - 1
    for data in (b"", bytes(BLOCK - 1), bytes(BLOCK + 1), bytes(3)):
        with pytest.raises(ValueError, match="whole number of blocks of 512 bytes"):
            disk.write(0, data)
        with pytest.raises(ValueError, match="whole number of blocks of 512 bytes"):
            disk.readinto(0, bytearray(data))
    with pytest.raises(TypeError, match="written"):
        disk.readinto(0, bytes(BLOCK))
    for count in (0, -1):
        with pytest.raises(ValueError, match="at least 1 block"):
            disk.read(0, count)
    for block in (-1, 1 << 64):
        with pytest.raises(ValueError, match="2\\^64"):
            disk.read(block)
        with disk.queue(1) as queue, pytest.raises(ValueError, match="2\\^64"):
            list(queue.read_many([0, 1, block]))
    with pytest.raises(TypeError):
        disk.read("0")  # type: ignore[arg-type]
    with disk.queue(4, 8) as queue:
        with pytest.raises(ValueError, match="1 to 8 blocks"):
            queue.read_many([0], 9)
        with pytest.raises(ValueError, match="not 2 blocks, 1024 bytes"):
            queue.write_many([(0, bytes(1024)), (2, bytes(512))], 2)
    for depth in (0, 1 << 20):
        with pytest.raises(ValueError, match="depth"):
            disk.queue(depth)
    with pytest.raises(ValueError, match="1 to 128 blocks"):  # 64 KiB: MDTS
        disk.queue(1, 129)
    for batch in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 commands"):
            disk.queue(4, batch=batch)
    # Beyond the end, the controller itself refuses, and goes on.
    for block, count in ((last + 1, 1), (last, 2), ((1 << 64) - 1, 1), (last - 2000, 3000)):
        with pytest.raises(CommandError, match="LBA Out of Range") as caught:
            disk.read(block, count)
        assert (caught.value.status_code_type, caught.value.status_code) == (0, 0x80)
        assert caught.value.do_not_retry
    with pytest.raises(CommandError, match="LBA Out of Range"):
        disk.write(last, bytes(2 * BLOCK))
    assert len(disk.read(last)) == BLOCK


@pytest.mark.parametrize(("depth", "batch"), [(1, 1), (8, 4), (8, 8)])
def test_what_came_before_an_error_is_given(disk: Nvme, depth: int, batch: int) -> None:
    expected = (IN / "random").read_bytes()
    blocks = [2048, 2049, 2050, disk.namespace.blocks, 2051, 2052]
    with disk.queue(depth, batch=batch) as queue:
        for _ in range(3):
            seen: list[bytes] = []
            with pytest.raises(CommandError) as caught:
                seen.extend(map(bytes, queue.read_many(blocks)))
            assert caught.value.block == disk.namespace.blocks
            assert b"".join(seen) == expected[: 3 * BLOCK]
        assert len(list(queue.read_many([0, 1]))) == 2


def test_commands_that_the_controller_refuses(disk: Nvme) -> None:
    with pytest.raises(CommandError, match="Identify: Invalid Namespace or Format"):
        disk.identify_namespace(0)
    with pytest.raises(CommandError, match="Identify: Invalid Field in Command"):
        disk._admin.execute(IDENTIFY, cdw10=0xFE, prp1=disk._page.address)
    with pytest.raises(CommandError, match="0xc5: Invalid Command Opcode"):
        disk._admin.execute(0xC5)
    queues = [disk.queue(1) for _ in range(15)]
    with pytest.raises(NvmeError, match="all 16 queues"):  # with the disk's own
        disk.queue(1)
    for queue in queues:
        queue.close()
    disk.queue(1).close()


def test_reading_only() -> None:
    with Nvme.open(MAIN) as disk:
        with pytest.raises(NotWritableError, match="writable=True"):
            disk.write(0, bytes(BLOCK))
        with disk.queue() as queue, pytest.raises(NotWritableError, match="writable=True"):
            queue.write_many([(0, bytes(BLOCK))])
        disk.flush()
        assert len(disk.read(0)) == BLOCK


@pytest.mark.long
def test_what_the_kernel_holds_is_not_taken() -> None:
    with kernel_driver(MAIN), pytest.raises(pyuio.DeviceBusyError, match="nvme"):
        Nvme.open(MAIN)


def test_which_card() -> None:
    with pytest.raises(pyuio.AmbiguousDeviceError, match="class 010802"):
        Nvme.open()
    other = next(found for found in pyuio.devices() if found.class_code != 0x010802 and found.driver is None)
    with pytest.raises(ValueError, match="class 010802"):
        Nvme.open(other)
    for timeout in (0, -1):
        with pytest.raises(ValueError, match="timeout"):
            Nvme.open(MAIN, timeout=timeout)


def test_namespaces() -> None:
    with Nvme.open(MANY) as disk:
        found = disk.namespaces()
        # To a driver that asks for no other command set, QEMU 10 does not show the zoned namespace.
        assert found == [2, 5, 7] or (found == [2, 5] and os.environ["QEMU_MAY_HIDE_ZONED"] == "1")
        assert disk.namespace.number == 2
        assert disk.read(0)[:4] == b"two\n"
        assert disk.identify_namespace(3).blocks == 0
    with Nvme.open(MANY, namespace=5, writable=True) as disk:
        assert disk.namespace.block_size == 4096
        assert disk.read(0)[:5] == b"five\n"
        with disk.queue(4, 3) as queue:
            assert queue.write_many([(3, bytes(3 * 4096)), (6, b"x" * 3 * 4096)], 3) == 2
        assert disk.read(3, 6) == bytes(3 * 4096) + b"x" * 3 * 4096
    for address, number, has in ((MANY, 3, ", ".join(map(str, found))), (MAIN, 2, "1"), (EMPTY, None, "none")):
        with pytest.raises(NamespaceNotFoundError, match=f"it has: {has}") as caught:
            Nvme.open(address, namespace=number)
        assert isinstance(caught.value, LookupError)
    zoned = r"namespace 7 has the command set Zoned Namespace.* NVM command set only" if 7 in found else "it has: 2, 5"
    with pytest.raises((NvmeError, NamespaceNotFoundError), match=zoned):
        Nvme.open(MANY, namespace=7, writable=True)


def test_injected_errors() -> None:
    with Nvme.open(FAULTY, writable=True) as disk:
        good = disk.read(0, 64)
        with pytest.raises(CommandError, match=r"reading 8 blocks at block 800 .*Unrecovered Read Error") as caught:
            disk.read(800, 8)
        assert (caught.value.status_code_type, caught.value.status_code) == (2, 0x81)
        with pytest.raises(CommandError, match="Write Fault"):
            disk.write(1600, bytes(8 * BLOCK))
        with pytest.raises(CommandError):
            disk.read(0, 2000)
        assert disk.read(0, 64) == good
        assert disk.write(0, good) == len(good)
        with disk.queue(32, 8) as queue:
            for _ in range(3):
                with pytest.raises(CommandError) as caught:
                    list(queue.read_many(range(0, 1600, 8), 8))
                assert caught.value.block == 800


@pytest.mark.long
def test_timeouts() -> None:
    with Nvme.open(SLOW, timeout=20) as disk, disk.queue(4) as queue:
        expected = [bytes(data) for data in disk.read_many(range(4))]
        # The disk does 16 a second, after a few that it had saved up.
        disk.timeout = 0.03
        for _ in range(2):
            with pytest.raises(CommandTimeoutError, match="reading 1 blocks at block") as caught:
                list(queue.read_many(range(1000)))
            assert "an abort was sent" in str(caught.value) or "was reset" in str(caught.value)
        disk.timeout = 20
        assert [bytes(data) for data in queue.read_many(range(4))] == expected
        assert disk.read(0) == expected[0]


@pytest.mark.usefixtures("alone")
def test_fatal_status_and_reset(disk: Nvme) -> None:
    expected = disk.read(2048)
    queue = disk.queue(4)
    # An admin queue of one entry, which the specification does not allow.
    disk.registers.cc.en = False
    disk.registers.aqa.write(0)
    disk.registers.cc.en = True
    disk.timeout = 0.5
    for use in (lambda: disk.read(2048), disk.smart, lambda: list(queue.read_many([2048])), disk.flush):
        with pytest.raises(ControllerFatalError, match=r"CSTS\.CFS"):
            use()
    disk.reset()
    assert disk.read(2048) == expected
    assert [bytes(data) for data in queue.read_many([2048])] == [expected]


@pytest.mark.usefixtures("alone")
def test_controller_that_is_not_ready(disk: Nvme) -> None:
    expected = disk.read(2048)
    disk.registers.cc.en = False
    with pytest.raises(pyuio.DeviceTimeoutError, match=r"enabling: CSTS is 0x0 after 0\.1 s"):
        disk._wait_csts(lambda csts: csts.rdy, 0.1, "enabling", fatal=True)
    with pytest.raises(ControllerFatalError, match=r"CSTS\.RDY"):
        disk.read(2048)
    disk.reset()
    assert disk.read(2048) == expected


@pytest.mark.usefixtures("alone")
def test_controller_that_does_not_answer(disk: Nvme) -> None:
    expected = disk.read(2048)
    if disk.device.driver == VFIO_PCI:
        with pytest.raises(pyuio.ConfigLockedError, match="SIGBUS"):
            disk.device.config.change_command(clear=Command.MEMORY_SPACE)
        assert disk.read(2048) == expected
        return
    disk.device.config.change_command(clear=Command.MEMORY_SPACE)
    # QEMU reads 0 where nothing answers, hardware all ones.
    with pytest.raises((pyuio.DeviceRemovedError, ControllerFatalError), match="2048"):
        disk.read(2048)
    with pytest.raises(pyuio.DeviceRemovedError, match="memory decoding is off"):
        Nvme(disk.device)
    disk.device.config.change_command(set=Command.MEMORY_SPACE)
    with pytest.raises(ControllerFatalError, match="reset"):
        disk.read(2048)
    disk.reset()
    assert disk.read(2048) == expected


@pytest.mark.parametrize("by_interrupt", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_disk_that_is_unbound(by_interrupt: bool) -> None:
    with Nvme.open(MAIN, by_interrupt=by_interrupt) as disk:
        disk.read(2048)
        # In another process, as VFIO lets it wait for this one.
        subprocess.run(["sh", "-c", f"echo {MAIN} > /sys/bus/pci/drivers/{disk.device.driver}/unbind"], check=True)
        with pytest.raises(pyuio.DeviceRemovedError):
            disk.read(2048)
    with Nvme.open(MAIN) as disk:
        disk.read(2048)


@pytest.mark.usefixtures("alone")
def test_reset_in_the_middle(disk: Nvme) -> None:
    for depth, batch in ((1, 1), (8, 4), (8, 8)):
        with disk.queue(depth, batch=batch) as queue:
            reading = queue.read_many(range(100))
            next(reading)
            disk.reset()
            with pytest.raises(ControllerResetError):
                list(reading)
            assert len(list(queue.read_many(range(100)))) == 100


@pytest.mark.usefixtures("alone")
def test_close_shuts_down_and_ends_everything(disk: Nvme) -> None:
    queue = disk.queue(8)
    reading = queue.read_many(range(100))
    next(reading)
    disk.close()
    disk.close()
    for use in (lambda: disk.read(0), lambda: list(reading), lambda: list(queue.read_many([0])), disk.smart):
        with pytest.raises(pyuio.ClosedError):
            use()
    queue.close()
    with pyuio.open(MAIN, bind=True) as device:
        registers = NvmeRegisters(device.bar(0))
        assert not registers.cc.en
        assert not registers.csts.rdy
        assert not device.config.command & Command.BUS_MASTER


@pytest.mark.usefixtures("alone")
def test_shutdown_is_completed(disk: Nvme) -> None:
    """CSTS.SHST says that the shutdown is complete, before the controller is disabled (section 3.1.6)."""
    disk.write(0, disk.read(0))
    disk.registers.cc.shn = ShutdownNotification.NORMAL
    disk._wait_shutdown(5)


def test_interrupts_are_masked_unless_wanted() -> None:
    for by_interrupt in (False, True):
        with Nvme.open(MAIN, by_interrupt=by_interrupt) as disk:
            disk.read(0)
            assert disk.registers.intms.read() == disk.registers.intmc.read()
            assert disk.registers.intms.read() & 1 != by_interrupt


@pytest.mark.long
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_a_driver_that_is_killed_while_it_writes(delay: float) -> None:
    """The next driver takes over: every block holds one of the two values that were written, and all works."""
    blocks = range(100000, 100000 + 8 * 200, 8)
    with Nvme.open(MAIN, writable=True) as disk, disk.queue(32) as queue:
        queue.write_many(((block, b"a" * 8 * BLOCK) for block in blocks), 8)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            disk = Nvme.open(MAIN, writable=True)
            queue = disk.queue(32)
            os.write(writing, b"!")
            while True:
                for letter in b"ba":
                    queue.write_many(((block, bytes((letter,)) * 8 * BLOCK) for block in blocks), 8)
        os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with Nvme.open(MAIN, writable=True) as disk, disk.queue(32) as queue:
        for data in queue.read_many(blocks, 8):
            assert data in (b"a" * 8 * BLOCK, b"b" * 8 * BLOCK)
        queue.write_many(((block, pattern(block, 8, 9)) for block in blocks), 8)
        for block, data in zip(blocks, queue.read_many(blocks, 8), strict=True):
            assert data == pattern(block, 8, 9)
    sysfs = Path("/sys/bus/pci/devices", MAIN)  # a driver that is killed leaves it bound
    (sysfs / "driver/unbind").write_text(MAIN)
    (sysfs / "driver_override").write_text("\n")


@pytest.mark.usefixtures("alone")
def test_a_forked_child_has_no_disk(disk: Nvme) -> None:
    """If the child rang a doorbell, the controller would execute the commands that the parent put into the queues."""
    with disk.queue(8) as queue:
        before = disk.read(5)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with disk, queue:
                    for use in (lambda: disk.read(5), lambda: list(queue.read_many([5])), disk.smart, disk.reset):
                        with pytest.raises(pyuio.ClosedError):
                            use()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert disk.read(5) == before
        assert [bytes(data) for data in queue.read_many([5])] == [before]


@pytest.mark.long
def test_file_system_for_linux() -> None:
    """The driver writes an ext4, the kernel's driver mounts it and adds a file, and this driver reads that."""
    mounted = Path("/run/mounted")
    mounted.mkdir()
    with Nvme.open(MANY, namespace=2, writable=True) as disk:
        disk.write(0, (IN / "ext4").read_bytes())
    with kernel_driver(MANY, 2) as device:
        subprocess.run(["modprobe", "ext4"], check=True)
        done = subprocess.run(["mount", "-t", "ext4", device, str(mounted)], check=False)
        assert done.returncode == 0, subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout[-800:]
        try:
            assert (mounted / "hello").read_text() == "from the host\n"
            assert (mounted / "random").read_bytes() == (IN / "random").read_bytes()
            (mounted / "answer").write_text("from the guest\n")
        finally:
            subprocess.run(["umount", str(mounted)], check=True)
    with Nvme.open(MANY, namespace=2) as disk:
        assert b"from the guest\n" in disk.read(0, disk.namespace.blocks)


def test_what_the_host_looks_for() -> None:
    with Nvme.open(MAIN, writable=True) as disk:
        disk.write(777, (IN / "random").read_bytes())
        with disk.queue(32, 8) as queue:
            queue.write_many(((block, pattern(block, 8)) for block in range(110000, 111600, 8)), 8)
            queue.flush()
