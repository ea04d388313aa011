# SPDX-License-Identifier: MIT
"""The NVMe driver on the controller in Python: commands, errors, interrupts, resets, time-outs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import ClassVar

import pytest
from pyuio_drivers import nvme_queue
from pyuio_drivers.models.nvme import NvmeCard
from pyuio_drivers.nvme import Nvme
from pyuio_drivers.nvme_errors import (
    CommandError,
    CommandTimeoutError,
    ControllerFatalError,
    ControllerResetError,
    NamespaceNotFoundError,
    NvmeError,
)
from pyuio_drivers.nvme_queue import NvmeQueue
from pyuio_drivers.nvme_structures import (
    CREATE_IO_COMPLETION_QUEUE,
    CREATE_IO_SUBMISSION_QUEUE,
    DELETE_IO_COMPLETION_QUEUE,
    DELETE_IO_SUBMISSION_QUEUE,
    GET_LOG_PAGE,
    IDENTIFY,
    READ,
    SET_FEATURES,
    WRITE,
)

import pyuio
import pyuio.model
from pyuio.model import Complaint, clock

BLOCK = 512


class LineCard(NvmeCard):
    """Has the interrupt line only."""

    msix_vectors = 0


class LargeBlocksCard(NvmeCard):
    blocks, block_size, emulated = 256, 4096, True


@pytest.fixture(autouse=True)
def few_spins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at memory take no virtual time, so they are in vain."""
    monkeypatch.setattr(nvme_queue, "SPINS", 20)


@pytest.fixture
def model() -> NvmeCard:
    card = NvmeCard()
    card.medium[:] = random.Random(1).randbytes(len(card.medium))
    return card


@pytest.fixture
def disk(model: NvmeCard) -> Iterator[Nvme]:
    with Nvme(pyuio.model.open(model), writable=True, timeout=0.5) as opened:
        yield opened


def test_identity(disk: Nvme) -> None:
    assert disk.controller.model == "pyuio model of NVMe"
    assert disk.controller.largest_transfer == 64 << 10
    assert disk.capabilities.version == (1, 4, 0)
    assert disk.namespaces() == [1]
    assert (disk.namespace.number, disk.namespace.block_size, disk.namespace.blocks) == (1, BLOCK, 4096)


@pytest.mark.parametrize(("card", "by_interrupt"), [(NvmeCard, False), (NvmeCard, True), (LineCard, True)])
@pytest.mark.parametrize("count", [1, 8, 9, 16, 17, 24, 127, 128, 129, 1031])
def test_every_number_of_pages(card: type[NvmeCard], by_interrupt: bool, count: int) -> None:
    model = card()
    with Nvme(pyuio.model.open(model), writable=True, by_interrupt=by_interrupt) as disk:
        data = random.Random(count).randbytes(count * BLOCK)
        assert disk.write(40, data) == len(data)
        assert model.medium[40 * BLOCK : 40 * BLOCK + len(data)] == data
        assert disk.read(40, count) == data
        disk.flush()
    assert (model.faults.interrupts > 0) == by_interrupt


@pytest.mark.parametrize("by_interrupt", [False, True])
@pytest.mark.parametrize(("depth", "batch"), [(1, 1), (4, 2), (32, 32)])
def test_many(by_interrupt: bool, depth: int, batch: int) -> None:
    model = LargeBlocksCard()
    model.medium[:] = random.Random(2).randbytes(len(model.medium))
    with Nvme(pyuio.model.open(model), writable=True, by_interrupt=by_interrupt) as disk:
        assert disk.controller.emulated
        blocks = [random.Random(3).randrange(250) for _ in range(2000)]
        with disk.queue(depth, batch=batch) as queue:  # around the completion queue
            for block, data in zip(blocks, queue.read_many(blocks), strict=True):
                assert data == model.medium[4096 * block : 4096 * (block + 1)]
            assert queue.write_many((block, bytes([block]) * 4096) for block in range(100)) == 100
        assert all(model.medium[4096 * block] == block for block in range(100))


def test_lists_of_pages_that_do_not_fit_a_page(model: NvmeCard, disk: Nvme) -> None:
    """The driver never needs that, but others do: the last entry of a page leads to the next list, section 4.3."""
    with disk.device.dma.alloc(128 << 10) as data, disk.device.dma.alloc(4096) as lists:
        pages = [data.address + 4096 * number for number in range(16)]
        near_the_end = 4096 - 3 * 8
        lists[near_the_end:4096] = b"".join(one.to_bytes(8, "little") for one in (*pages[1:3], lists.address))
        lists[: 13 * 8] = b"".join(one.to_bytes(8, "little") for one in pages[3:])
        queue = disk._read_write_queue
        command = {"opc": READ, "nsid": 1, "prp1": pages[0], "prp2": lists.address + near_the_end, "cdw12": 127}
        queue.submission.publish(0, **command)
        disk.bar.write32(0x1008, 1)
        clock.sleep(1e-3)
        assert queue.completion.read(0, "dw3") == 1 << 16  # the phase, and no error
        assert bytes(data)[: 64 << 10] == model.medium[: 64 << 10]
        lists[near_the_end : near_the_end + 8] = (pages[1] + 4).to_bytes(8, "little")
        queue.submission.publish(1, **command)
        disk.bar.write32(0x1008, 2)
        clock.sleep(1e-3)
        assert queue.completion.read(1, "dw3") >> 17 & 0x7FF == 0x13  # PRP Offset Invalid


def test_smart_counts(disk: Nvme) -> None:
    before = disk.smart()
    assert (before.warnings, before.temperature) == ((), 35)
    disk.write(0, bytes(BLOCK))
    disk.read(0, 2)
    after = disk.smart()
    assert (after.write_commands, after.read_commands) == (1, 1)
    assert after.bytes_read == 512_000


def test_errors_of_commands(model: NvmeCard, disk: Nvme) -> None:
    model.bad.update({100, 101})
    for use, status in (
        (lambda: disk.read(4096), (0, 0x80)),
        (lambda: disk.read(4090, 7), (0, 0x80)),
        (lambda: disk.read(99, 2), (2, 0x81)),
        (lambda: disk.write(101, bytes(BLOCK)), (2, 0x80)),
        (lambda: disk.identify_namespace(2), (0, 0x0B)),
    ):
        with pytest.raises(CommandError) as caught:
            use()
        assert (caught.value.status_code_type, caught.value.status_code) == status
        assert caught.value.do_not_retry
    assert disk.read(98, 2) == model.medium[98 * BLOCK : 100 * BLOCK]
    with disk.queue(8, 1, batch=4) as queue:
        seen: list[bytes] = []
        with pytest.raises(CommandError) as caught:
            seen.extend(map(bytes, queue.read_many([1, 2, 100, 3, 4])))
        assert caught.value.block == 100
        assert seen == [bytes(model.medium[BLOCK : 2 * BLOCK]), bytes(model.medium[2 * BLOCK : 3 * BLOCK])]


def test_admin_commands_that_are_refused(disk: Nvme) -> None:
    page = disk._page.address
    for opcode, fields, name in (
        (0xC5, {}, "Invalid Command Opcode"),
        (IDENTIFY, {"cdw10": 0xFE}, "Invalid Field in Command"),
        (SET_FEATURES, {"cdw10": 0xFE}, "Invalid Field in Command"),
        (GET_LOG_PAGE, {"cdw10": 0xFE}, "Invalid Log Page"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 1 << 16 | 1, "cdw11": 1}, "Invalid Queue Identifier"),  # exists
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 1 << 16 | 17, "cdw11": 1}, "Invalid Queue Identifier"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 2, "cdw11": 1}, "Invalid Queue Size"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 2048 << 16 | 2, "cdw11": 1}, "Invalid Queue Size"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 1 << 16 | 2, "cdw11": 0}, "Invalid Field in Command"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 1 << 16 | 2, "cdw11": 1, "prp1": page + 8}, "PRP Offset Invalid"),
        (CREATE_IO_COMPLETION_QUEUE, {"cdw10": 1 << 16 | 2, "cdw11": 9 << 16 | 1}, "Invalid Interrupt Vector"),
        (CREATE_IO_SUBMISSION_QUEUE, {"cdw10": 1 << 16 | 2, "cdw11": 5 << 16 | 1}, "Completion Queue Invalid"),
        (DELETE_IO_COMPLETION_QUEUE, {"cdw10": 1}, "Invalid Queue Deletion"),
        (DELETE_IO_COMPLETION_QUEUE, {"cdw10": 9}, "Invalid Queue Identifier"),
        (DELETE_IO_SUBMISSION_QUEUE, {"cdw10": 0}, "Invalid Queue Identifier"),
    ):
        with pytest.raises(CommandError, match=name):
            disk._admin.execute(opcode, **{"prp1": page, **fields})
    queues = [disk.queue(1) for _ in range(15)]
    with pytest.raises(NvmeError, match="all 16 queues"):
        disk.queue(1)
    for queue in queues:
        queue.close()
    disk.queue(1).close()


def test_events(model: NvmeCard, disk: Nvme) -> None:
    """The driver asks for none, so a test does: section 5.2."""
    assert not model.raise_event(0)
    admin = disk._admin
    for cid in range(100, 105):  # one too many
        admin.submission.publish(admin._sq_tail, opc=0x0C, cid=cid)
        admin._sq_tail += 1
    disk.bar.write32(0x1000, admin._sq_tail)
    clock.sleep(1e-3)
    assert admin.completion.read(admin._cq_head, "dw3") & 0xFFFF == 104
    assert model.raise_event(0x010203)
    assert admin.completion.read(admin._cq_head + 1, "dw0") == 0x010203
    assert admin.completion.read(admin._cq_head + 1, "dw3") & 0xFFFF == 100
    assert disk.namespaces() == [1]


def test_timeouts(model: NvmeCard, disk: Nvme) -> None:
    expected = disk.read(0)
    model.held.add(READ)
    start = clock.monotonic()
    for _ in range(2):
        with pytest.raises(CommandTimeoutError, match=r"not completed within 0.5 s; an abort was sent, and it ended"):
            disk.read(0)
    assert 1 <= clock.monotonic() - start < 1.1
    model.held.clear()
    assert disk.read(0) == expected


def test_a_controller_that_does_not_abort_is_reset(
    model: NvmeCard, disk: Nvme, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = disk.read(0)
    model.held.add(READ)
    monkeypatch.setattr(model, "_abort", lambda command: 1)
    with pytest.raises(CommandTimeoutError, match="nor aborted; the controller was reset, and the disk remains usable"):
        disk.read(0)
    model.held.clear()
    assert disk.read(0) == expected


def blocks_of(model: NvmeCard, blocks: Iterable[int]) -> list[bytes]:
    return [bytes(model.medium[BLOCK * block : BLOCK * (block + 1)]) for block in blocks]


@pytest.mark.parametrize("by_interrupt", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 8])
def test_data_after_a_timeout(model: NvmeCard, depth: int, by_interrupt: bool) -> None:
    """The completion of the aborted read is not taken for that of a later one."""
    with (
        Nvme(pyuio.model.open(model), timeout=0.5, by_interrupt=by_interrupt) as disk,
        disk.queue(depth, 1) as queue,
    ):
        for _ in range(3):
            assert [*map(bytes, queue.read_many([1, 2, 3]))] == blocks_of(model, [1, 2, 3])
            model.held.add(READ)
            with pytest.raises(CommandTimeoutError):
                list(queue.read_many([4, 5, 6]))
            model.held.clear()
            for block in range(20, 24):
                assert [*map(bytes, queue.read_many([block]))] == blocks_of(model, [block])


def close_early(queue: NvmeQueue, hang: Callable[[], None]) -> None:
    reading = queue.read_many(range(100))
    for _ in range(3):
        next(reading)
    hang()
    next(reading)
    reading.close()  # type: ignore[attr-defined]


def give_a_bad_item(queue: NvmeQueue, hang: Callable[[], None]) -> None:
    def items() -> Iterator[tuple[int, bytes]]:
        yield 1, bytes(BLOCK)
        hang()
        for block in range(2, 6):
            yield block, bytes(BLOCK)
        yield 6, b"too short"

    queue.write_many(items())


def read_what_is_bad(queue: NvmeQueue, hang: Callable[[], None]) -> None:
    def blocks() -> Iterator[int]:
        yield from (4096, 1, 2, 3)  # the first is past the end
        clock.sleep(1e-3)  # these are completed
        hang()
        yield from range(4, 20)

    list(queue.read_many(blocks()))


@pytest.mark.parametrize("aborts", [True, False])
@pytest.mark.parametrize("by_interrupt", [False, True])
@pytest.mark.parametrize("use", [close_early, give_a_bad_item, read_what_is_bad])
def test_a_timeout_while_a_queue_is_left(
    model: NvmeCard,
    use: Callable[[NvmeQueue, Callable[[], None]], None],
    by_interrupt: bool,
    aborts: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is outstanding then is aborted, and the queue can be used again."""
    if not aborts:
        monkeypatch.setattr(model, "_abort", lambda command: 1)
    with (
        Nvme(pyuio.model.open(model), writable=True, timeout=0.5, by_interrupt=by_interrupt) as disk,
        disk.queue(8, 1, batch=2) as queue,
    ):
        for _ in range(2):
            with pytest.raises(CommandTimeoutError):
                use(queue, lambda: model.held.update((READ, WRITE)))
            model.held.clear()
            if queue.interrupt:
                assert queue.interrupt.masked
            assert [*map(bytes, queue.read_many(range(50)))] == blocks_of(model, range(50))
            queue.flush()


@pytest.mark.parametrize("depth", [1, 4])
def test_a_reset_by_who_says_what_comes_next(model: NvmeCard, disk: Nvme, depth: int) -> None:
    """As by a time-out of another queue. The zeroed completion queue is not taken for completions."""
    model.medium[:BLOCK] = bytes(BLOCK)

    def counted(number: int) -> Iterator[int]:
        yield from [0] * number
        disk.reset()

    def resetting(number: int) -> Iterator[int]:
        yield from counted(number)
        yield from range(1, 100)

    with disk.queue(depth, 1) as queue:
        # At the last number the controller is in its second pass through the completion queue, where the phase is 0.
        for number in (0, 1, 3, 20, 1500):
            for blocks in (resetting(number), counted(number)):
                seen: list[bytes] = []
                with pytest.raises(ControllerResetError):
                    seen.extend(map(bytes, queue.read_many(blocks)))
                assert seen == [bytes(BLOCK)] * len(seen)
                with pytest.raises(ControllerResetError):
                    queue.write_many((4095, bytes(BLOCK)) for _ in resetting(number))
                assert [*map(bytes, queue.read_many([7]))] == blocks_of(model, [7])
        with pytest.raises(pyuio.ClosedError, match="closed"):
            list(queue.read_many(queue.close() or block for block in range(9)))  # type: ignore[func-returns-value]


@pytest.mark.parametrize("slow", [0, 3, 7])
def test_the_completion_queue_head_doorbell(slow: int) -> None:
    """It is written at each quarter of the queue, and never twice with one value (section 3.1.25)."""
    heads: list[int] = []

    class Card(NvmeCard):
        def on_write_doorbells_cqhdbl(self, number: int, head: int) -> None:
            if number == 2:
                heads.append(head)
            super().on_write_doorbells_cqhdbl(number, head)

    with Nvme(pyuio.model.open(Card())) as disk, disk.queue(1, 1) as queue:
        for _ in range(2):
            for index, _ in enumerate(queue.read_many(range(2100))):
                if index % 7 >= slow:  # the next read is completed when the driver looks
                    clock.sleep(1e-3)
        assert heads[:9] == [256, 512, 768, 0, 256, 512, 768, 0, 256]
        assert all(one != other for one, other in pairwise(heads))
        assert len(heads) == 2 * 2100 // 256


@pytest.mark.parametrize("entries", [2, 3, 4, 16, 31, 100, 128])
@pytest.mark.parametrize("by_interrupt", [False, True])
def test_controllers_with_small_queues(entries: int, by_interrupt: bool) -> None:
    class Card(NvmeCard):
        reset_values: ClassVar = {**NvmeCard.reset_values, "cap": NvmeCard.reset_values["cap"] & ~0xFFFF | entries - 1}

    model = Card()
    model.medium[:] = random.Random(entries).randbytes(len(model.medium))
    with Nvme(pyuio.model.open(model), writable=True, by_interrupt=by_interrupt) as disk:
        assert disk.capabilities.queue_entries == entries
        assert disk.read(1, 999) == model.medium[BLOCK : 1000 * BLOCK]
        disk.write(1000, bytes(999 * BLOCK))
        assert model.medium[1000 * BLOCK : 1999 * BLOCK] == bytes(999 * BLOCK)
        assert [*map(bytes, disk.read_many(range(500)))] == blocks_of(model, range(500))
        with disk.queue() as queue:
            assert queue.depth == max(1, min(32, entries // 4))
            assert len(queue.completion) <= entries
        with pytest.raises(ValueError, match=f"is 1 to {queue.depth}, not 33"):
            disk.queue(33)


@pytest.mark.parametrize("name", ["_create_completion", "_create_submission"])
def test_a_queue_that_is_not_created_in_time(
    model: NvmeCard, disk: Nvme, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left, neither in the controller nor of its memory."""
    before, create = len(disk.device.dma.buffers), getattr(model, name)

    def hang_once(command: object) -> None:
        monkeypatch.setattr(model, name, create)

    monkeypatch.setattr(model, name, hang_once)
    with pytest.raises(CommandTimeoutError, match="Create I/O"):
        disk.queue(4)
    assert len(disk.device.dma.buffers) == before
    with disk.queue(4, 1) as queue:
        assert [*map(bytes, queue.read_many(range(9)))] == blocks_of(model, range(9))


def test_a_queue_that_a_reset_does_not_create_again(
    model: NvmeCard, disk: Nvme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver does not ring its doorbells, about which the model would complain."""
    expected = disk.read(5)
    queue = disk.queue(4, 1)
    with monkeypatch.context() as patched:
        patched.setattr(model, "_create_submission", lambda command: None)
        with pytest.raises(CommandTimeoutError, match="Create I/O Submission Queue"):
            disk.reset()
        for use in (lambda: disk.read(5), lambda: list(queue.read_many([5]))):
            with pytest.raises(ControllerFatalError, match="was lost when the controller failed"):
                use()
    disk.reset()
    assert disk.read(5) == expected
    assert [*map(bytes, queue.read_many([5]))] == [expected]


@pytest.mark.parametrize("smallest_page", [0, 2])
def test_the_largest_transfer_is_what_the_card_takes(smallest_page: int) -> None:
    class Card(NvmeCard):
        pages_per_command = 4
        reset_values: ClassVar = {**NvmeCard.reset_values, "cap": NvmeCard.reset_values["cap"] | smallest_page << 48}

    model = Card()
    model.medium[:] = random.Random(1).randbytes(len(model.medium))
    with Nvme(pyuio.model.open(model)) as disk:
        largest = disk.controller.largest_transfer
        assert largest == 4 * (4096 << smallest_page)
        with disk.queue(1, largest // BLOCK) as queue:
            assert [*map(bytes, queue.read_many([1], largest // BLOCK))] == [model.medium[BLOCK : BLOCK + largest]]
            command = {"opc": READ, "cid": 7, "nsid": 1, "cdw12": largest // BLOCK}  # one block more
            queue.submission.publish(1, **command)
            disk.bar.write32(0x1000 + 8 * queue.number, 0)
            clock.sleep(1e-3)
            assert queue.completion.read(1, "dw3") >> 17 & 0x7FF == 0x02  # Invalid Field in Command


@pytest.mark.parametrize("pages", [0, 1, 3, -2])
def test_a_largest_transfer_that_mdts_cannot_say(pages: int) -> None:
    with pytest.raises(ValueError, match=f"a power of two from 2 on, not {pages}"):
        type("Card", (NvmeCard,), {"pages_per_command": pages})


def test_a_fatal_error_and_a_reset(model: NvmeCard, disk: Nvme) -> None:
    expected = disk.read(5)
    queue = disk.queue(4)
    model.faults.clear()
    model.faults.fail_transfer(1)  # the command cannot be fetched
    for use in (lambda: disk.read(5), disk.smart, lambda: list(queue.read_many([5])), disk.flush):
        with pytest.raises(ControllerFatalError, match=r"CSTS\.CFS"):
            use()
    disk.reset()
    assert disk.read(5) == expected
    assert [bytes(data) for data in queue.read_many([5])] == [expected]


def test_data_that_cannot_be_transferred(model: NvmeCard, disk: Nvme) -> None:
    model.faults.clear()
    model.faults.cut_transfer(2)  # after the command
    with pytest.raises(CommandError, match="Data Transfer Error") as caught:
        disk.read(5)
    assert not caught.value.do_not_retry
    assert disk.read(5) == model.medium[5 * BLOCK : 6 * BLOCK]


@pytest.mark.parametrize("wrong", ["asq", "aqa", "cc"])
def test_a_controller_that_is_set_up_wrongly(model: NvmeCard, disk: Nvme, wrong: str) -> None:
    disk._disable()
    value = {"asq": disk.registers.asq.read() + 64, "aqa": 0, "cc": 0}[wrong]
    if wrong != "cc":
        getattr(disk.registers, wrong).write(value)
    disk.registers.cc.write(1 if wrong == "cc" else 0x46_0001)
    with pytest.raises(ControllerFatalError, match="controller failed"):
        disk._wait_ready("enabling")
    disk.reset()
    assert disk.read(0) == model.medium[:BLOCK]


def test_doorbells_are_checked(model: NvmeCard) -> None:
    with pyuio.model.open(model) as device, pytest.raises(Complaint, match="submission queue 0, which does not exist"):
        device.bar(0).write32(0x1000, 1)
    with Nvme(pyuio.model.open(model)) as disk:
        for offset, value, text in (
            (0x1000 + 8 * 5, 1, "tail doorbell of submission queue 5, which does not exist"),
            (0x1004 + 8 * 5, 1, "head doorbell of completion queue 5, which does not exist"),
            (0x1000, 32, "tail 32 of submission queue 0, which has 32 entries"),
            (0x1004, 31, "head 31 of completion queue 0: it holds entries"),
        ):
            with pytest.raises(Complaint, match=text):
                disk.bar.write32(offset, value)


def test_masks_are_not_for_messages(model: NvmeCard) -> None:
    with Nvme(pyuio.model.open(model), by_interrupt=True) as disk:
        assert disk.device.interrupt.kind == "MSI-X"
        with pytest.raises(Complaint, match="MSI-X is enabled"):
            disk.registers.intms.write(1)


def test_the_line_is_masked_by_registers() -> None:
    card = LineCard()
    with Nvme(pyuio.model.open(card), by_interrupt=True) as disk:
        assert disk.device.interrupt.kind == "INTx"
        queue = disk.queue(1)
        disk.registers.intms.write(1)
        assert disk.registers.intmc.read() & 1
        queue.submission.publish(0, opc=0, cid=7, nsid=1)
        disk.bar.write32(0x1000 + 8 * queue.number, 1)
        clock.sleep(1e-3)
        assert not card.raised
        disk.registers.intmc.write(1)
        assert card.raised
        disk.bar.write32(0x1004 + 8 * queue.number, 1)
        assert not card.raised


def test_what_the_capabilities_rule_out(model: NvmeCard) -> None:
    opening: Callable[[], Nvme] = lambda: Nvme(pyuio.model.open(model))  # noqa: E731
    with pytest.raises(NamespaceNotFoundError, match="it has: 1"):
        Nvme(pyuio.model.open(model), namespace=2)
    for bits, error, text in (
        ({37: 0}, NvmeError, "no commands to read and write"),
        (dict.fromkeys(range(32, 36), 1), NvmeError, "no room for doorbells 131072 bytes apart"),
    ):
        other = NvmeCard()
        cap = other.regs.cap.read()
        for bit, value in bits.items():
            cap = cap & ~(1 << bit) | value << bit
        other.regs.cap.write(cap)
        model = other
        with pytest.raises(error, match=text):
            opening()


def test_a_removed_disk(model: NvmeCard, disk: Nvme) -> None:
    model.remove()
    for use in (lambda: disk.read(0), disk.smart, disk.reset, lambda: disk.queue(1)):
        with pytest.raises(pyuio.DeviceRemovedError):
            use()


def test_the_medium_outlives_a_loss_of_power(model: NvmeCard) -> None:
    with Nvme(pyuio.model.open(model), writable=True) as disk:
        disk.write(3, b"x" * BLOCK)
        disk.device.reset()
        with pytest.raises(ControllerFatalError, match=r"CSTS\.RDY is 0"):
            disk.require_working("reading")
    with Nvme(pyuio.model.open(model)) as disk:
        assert disk.read(3) == b"x" * BLOCK
