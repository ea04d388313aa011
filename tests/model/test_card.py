# SPDX-License-Identifier: MIT
"""A card in this process: interrupts, memory, configuration space, faults, time, and its end."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import threading
import time
from typing import Any, ClassVar

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.edu import EduCard

import pyuio
import pyuio.model
from pyuio.model import BarSpace, Capability, Card, Complaint, NothingPlannedError, TransferError, clock
from pyuio.model.host import MasterAbortError
from pyuio.pci.config_image import Command
from pyuio.program import Append, Count, Poll, Read, Stamp, While, Write, WriteBack
from pyuio.registers import Field, Register, RegisterMap


class Go(Register):
    go = Field(0)
    to_memory = Field(1)
    vector = Field(7, 4)


class Status(Register):
    ready = Field(0, access="ro")
    left = Field(15, 8, access="ro")


class Registers(RegisterMap):
    control = Go(0x00)
    status = Status(0x04)
    address = Register(0x08, width=64)
    length = Register(0x10)
    data = Register(0x14, access="rc")
    level = Register(0x18)


class Engine(Card):
    """Moves memory, and raises interrupts."""

    vendor, device, class_code = 0x1234, 0x0001, 0x0880FE
    bars: ClassVar = {0: 4096, 1: BarSpace(8, ports=True), 2: BarSpace(1 << 16, width=64, prefetchable=True)}
    registers: ClassVar = {0: Registers}
    msix_vectors = 4
    msi_vectors = 2
    dma_mask = (1 << 32) - 1
    capabilities = (Capability(0x09, bytes([8, 1, 2, 3, 4, 5]), bytes([0, 0, 0xFF])),)
    got = b""

    def on_write_control(self, value: int) -> None:
        if self.regs.control.go:
            self.after(1e-3, self.move)

    def move(self) -> None:
        address, length = self.regs.address.read(), self.regs.length.read()
        if self.regs.control.to_memory:
            self.memory.write(address, b"\x5a" * length)
        else:
            self.got = self.memory.read(address, length)
        self.regs.status.ready = True
        self.raise_interrupt(self.regs.control.vector)

    def on_write_level(self, value: int) -> None:
        (self.raise_interrupt if value else self.lower_interrupt)(1)


@pytest.fixture
def card() -> Engine:
    return Engine()


def start(device: pyuio.Device, address: int, length: int, *, write: bool = False, vector: int = 0) -> Registers:
    registers = Registers(device.bar(0))
    registers.address.write(address)
    registers.length.write(length)
    registers.control.write(1 | write << 1 | vector << 4)
    return registers


# ---- Interrupts ----


def test_vectors_are_told_apart_and_count(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(4096) as buffer:
        assert device.most_vectors == 4
        vectors = device.vectors(3)
        assert [one.kind for one in vectors] == ["MSI-X"] * 3
        start(device, buffer.address, 16, vector=2)
        assert pyuio.wait(vectors, 1) == [vectors[2]]
        assert vectors[2].read(0) == 1
        card.raise_interrupt(3)  # enabled in the table, and nobody asked for it
        with pytest.raises(pyuio.InterruptUnavailableError, match="enabled already"):
            device.vectors(1)
        with pytest.raises(ValueError, match="interrupt vectors 0 to 3, not 4"):
            card.raise_interrupt(4)
    with pyuio.model.open(card) as device:
        with pytest.raises(pyuio.InterruptUnavailableError, match="no 5 message interrupts; it has 4 MSI-X and 2 MSI"):
            device.vectors(5)
        assert device.interrupt.kind == "INTx"


def test_a_card_with_msi_only_sends_messages() -> None:
    class Msi(Engine):
        msix_vectors = 0
        msi_vectors = 4

    card = Msi()
    with pyuio.model.open(card) as device:
        vectors = device.vectors(3)
        assert vectors[0].kind == "MSI"
        for vector in (0, 1, 2, 2):
            card.raise_interrupt(vector)
        assert [one.read(0) for one in vectors] == [1, 1, 2]
        device.config.change_command(clear=Command.BUS_MASTER)
        card.raise_interrupt(0)
        assert not vectors[0].pending  # a message is a write to memory
    with pyuio.model.open(card) as device:
        assert not device.interrupt.pending


def test_a_line_is_held_by_several_causes(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        interrupt = device.interrupt
        card.raise_interrupt(0)
        card.raise_interrupt(1)
        assert interrupt.read(0.1) == 1
        card.lower_interrupt(0)
        assert interrupt.read(0.1) == 1
        card.lower_interrupt(1)
        with pytest.raises(TimeoutError):
            interrupt.read(0.1)
        device.config.change_command(set=Command.INTERRUPT_DISABLE)
        card.raise_interrupt(0)
        assert int(device.config.status) & 8  # Interrupt Status says so all the same
        with pytest.raises(TimeoutError):
            interrupt.read(0.1)
        device.config.change_command(clear=Command.INTERRUPT_DISABLE)
        assert interrupt.read(0) == 1


def test_msix_vectors_that_are_masked_stay_pending(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        vectors = device.vectors(2)
        table = device.bar(4)
        table.write32(16 + 12, 1)
        card.raise_interrupt(1)
        card.raise_interrupt(0)
        assert (vectors[0].pending, vectors[1].pending) == (True, False)
        assert table.read32(0x800) == 2
        table.write32(16 + 12, 0)
        assert vectors[1].read(0) == 1
        assert table.read64(0x800) == 0


# ---- The configuration space ----


def test_the_configuration_space_is_that_of_a_card(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        config = device.config
        assert (config.vendor_id, config.device_id, config.class_code) == (0x1234, 1, 0x0880FE)
        assert [(bar.index, bar.kind, bar.size, bar.width) for bar in config.bars()] == [
            (0, "memory", 4096, 32),
            (1, "io", 8, 32),
            (2, "memory", 1 << 16, 64),
            (4, "memory", 4096, 32),
        ]
        assert [one.id for one in config.capabilities()] == [0x05, 0x11, 0x09]
        place = config.capabilities()[2].offset
        config.write8(place + 4, 0xFE)
        config.write8(place + 5, 0xFE)
        assert config.read(place + 2, 6) == bytes([8, 1, 0xFE, 3, 4, 5])
        with config.unlocked():
            config.write32(0x10, 0xFFFF_FFFF)
            assert config.read32(0x10) == 0xFFFF_F000
            config.write32(0x14, 0xFFFF_FFFF)
            assert config.read32(0x14) == 0xFFFF_FFF9
            config.write32(0x18, 0xFFFF_FFFF)
            config.write32(0x1C, 0xFFFF_FFFF)
            assert config.read32(0x18) == 0xFFFF_000C
            assert config.read32(0x1C) == 0xFFFF_FFFF
        assert device.bar(1).read8(7) == 0
        device.bar(2).write64(0xFFF8, 1 << 60)
        assert device.bar(2).read64(0xFFF8) == 1 << 60
        with pytest.raises(ValueError, match="64-bit"):
            device.bar(1).read64(0)


# ---- Memory ----


def test_transfers_both_ways(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(4096) as buffer:
        buffer[:4] = b"abcd"
        start(device, buffer.address, 4)
        assert device.interrupt.read(1) == 1
        assert card.got == b"abcd"
        card.regs.status.ready = False
        start(device, buffer.address + 8, 4, write=True).status.poll(lambda status: status.ready, 1)
        assert bytes(buffer[:16]) == b"abcd" + bytes(4) + b"\x5a" * 4 + bytes(4)
        given = bytearray(b"mine" * 2000)
        with device.dma.map(given) as mapped:
            start(device, mapped.address + 4, 4)
            clock.sleep(1)
        assert card.got == b"mine"


def test_an_address_outside_of_the_buffers_is_a_complaint(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(100) as buffer:
        for address, length in ((buffer.address + 99, 2), (buffer.address - 1, 1), (0, 1), (0xFEE0_0000, 4)):
            start(device, address, length)
            with pytest.raises(Complaint, match=f"the card reads {length} bytes at {address:#x}: "):
                clock.sleep(1)
        buffer.close()
        start(device, 0x1000, 4)
        with pytest.raises(Complaint, match="while bus mastering is off"):
            device.interrupt.read(1)
        again = device.dma.alloc(64)
        start(device, 1 << 32, 4)
        with pytest.raises(Complaint, match="its addresses end at 0xffffffff"):
            device.interrupt.read(1)
        with pytest.raises(ValueError, match="beyond bus addresses of 64 bits"):
            card.memory.read(1 << 64, 1)
        again.close()
    assert len(card.complaints) == 6


# ---- Faults ----


def test_the_card_is_pulled_out_at_an_access(card: Engine) -> None:
    device = pyuio.model.open(card)
    registers, interrupt = Registers(device.bar(0)), device.interrupt
    card.faults.remove(at_access=2)
    registers.status.read()
    for use in (
        registers.status.read,
        lambda: registers.level.write(1),
        lambda: interrupt.read(1),
        lambda: device.config.vendor_id,
        lambda: device.bar(2),
        lambda: device.vectors(1),
    ):
        with pytest.raises(pyuio.DeviceRemovedError):
            use()
    assert device.removed
    assert card.faults.happened == ["at access 2: the card is pulled out"]
    device.close()
    with pytest.raises(pyuio.DeviceRemovedError, match="was pulled out"):
        pyuio.model.open(card)


def test_registers_that_are_stuck(card: Engine) -> None:
    card.faults.stick("status", 3, 1)
    card.faults.read_ones("length", at_access=3)
    with pyuio.model.open(card) as device:
        registers = Registers(device.bar(0))
        assert (registers.status.read(), registers.length.read(), registers.length.read()) == (8, 0, 0xFFFF_FFFF)
        card.faults.stick("status", 0, 1)
        card.faults.stick("length", 4, 0)
        assert (registers.status.read(), registers.length.read()) == (9, 0xFFFF_FFEF), "several together"
        card.faults.clear()
        assert (registers.status.read(), registers.length.read()) == (0, 0)
    for bit, value in ((32, 1), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="cannot be stuck"):
            card.faults.stick("status", bit, value)
    with pytest.raises(pyuio.RegisterNotFoundError, match="no register statsu; did you mean status"):
        card.faults.read_ones("statsu")
    with pytest.raises(ValueError, match="the first access is number 1, not 0"):
        card.faults.remove(at_access=0)


def test_interrupts_that_are_lost_doubled_late_and_spurious(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        (vector,) = device.vectors(1)
        registers = Registers(device.bar(0))
        card.faults.lose_interrupt(1)
        card.faults.double_interrupt(2)
        card.faults.delay_interrupt(3, 0.5)
        card.raise_interrupt()
        assert not vector.pending
        card.raise_interrupt()
        assert vector.read(0) == 2
        before = clock.monotonic()
        card.raise_interrupt()
        assert vector.read(1) == 1
        assert clock.monotonic() == pytest.approx(before + 0.5)
        card.faults.spurious_interrupt(at_access=2)
        registers.status.read()
        assert not vector.pending
        registers.status.read()
        assert vector.read(0) == 1
        assert len(card.faults.happened) == 4


def test_a_spurious_line_does_not_stay(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        card.faults.spurious_interrupt(at_access=1)
        device.interrupt.unmask()
        device.bar(0).read32(0)
        assert device.interrupt.read(1) == 1
        with pytest.raises(TimeoutError):
            device.interrupt.read(1)


def test_a_spurious_line_that_stays(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        card.faults.spurious_interrupt(at_access=1, seconds=5e-6)
        device.bar(0).read32(0)
        assert device.interrupt.read(0) == 1
        clock.sleep(1e-5)
        with pytest.raises(TimeoutError):
            device.interrupt.read(1)
        card.faults.clear()
        card.faults.spurious_interrupt(at_access=1, seconds=5e-6, vector=1)
        Registers(device.bar(0)).level.write(1)
        clock.sleep(1e-5)
        assert device.interrupt.read(0) == 1  # by then there is a cause


def test_an_interrupt_that_is_late_does_not_come_without_its_cause(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        for number in (1, 2):
            card.faults.delay_interrupt(number, 0.5)
        level = Registers(device.bar(0)).level
        level.write(1)
        level.write(0)
        with pytest.raises(TimeoutError):
            device.interrupt.read(1)
    with pyuio.model.open(card) as device:
        device.vectors(2)
        card.raise_interrupt(1)
    clock.sleep(1)  # the messages are disabled by then
    assert not card.function.asserted
    assert card.faults.vectors == {1}


def test_a_card_that_misleads_does_not_complain(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(64) as buffer:
        bar = device.bar(0)
        with pytest.raises(Complaint, match="takes accesses of 32 bits"):
            bar.read8(0)
        assert not card.faults.misleading
        card.faults.clear()
        card.faults.reset(at_access=4)
        start(device, buffer.address, 8)
        bar.read32(0)
        assert card.faults.misleading
        start(device, buffer.address, 8)  # without bus mastering, which the reset has switched off
        clock.sleep(1)
        assert not card.regs.status.ready
        assert bar.read8(0) == 0
        bar.write8(0, 1)
        assert (bar.read32(0x800), card.regs.control.read()) == (0, 1)
        assert len(card.complaints) == 1
        card.faults.clear()
        with pytest.raises(Complaint, match="takes accesses of 32 bits"):
            bar.write8(0, 1)


def test_transfers_that_fail_stop_and_are_corrupted(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(4096) as buffer:
        card.faults.fail_transfer(1)
        card.faults.cut_transfer(2)
        card.faults.corrupt_transfer(3)
        for _ in range(2):
            start(device, buffer.address, 8, write=True)
            with pytest.raises(TimeoutError):
                device.interrupt.read(1)
        assert bytes(buffer[:8]) == b"\x5a" * 4 + bytes(4)
        start(device, buffer.address, 8, write=True)
        assert device.interrupt.read(1) == 1
        assert sum(one != 0x5A for one in bytes(buffer[:8])) == 1
        card.faults.fail_transfer(4)
        with pytest.raises(TransferError):
            card.memory.read(buffer.address, 1)


def test_a_reset_in_the_middle(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(64) as buffer:
        card.faults.reset(at_access=5)
        registers = start(device, buffer.address, 8)
        registers.level.read()
        assert registers.control.read() == 0
        with pytest.raises(TimeoutError):
            device.interrupt.read(1)


def test_the_device_resets_and_keeps_its_configuration(card: Engine) -> None:
    with pyuio.model.open(card) as device, device.dma.alloc(64) as buffer:
        (vector,) = device.vectors(1)
        start(device, buffer.address, 8)
        device.reset()
        with pytest.raises(TimeoutError):
            vector.read(1)  # what was planned before the reset does not happen
        with pytest.raises(pyuio.ResetUnavailableError, match="no reset by 'pm': it has flr"):
            device.reset("pm")
        device.reset("flr")
        start(device, buffer.address, 8)
        assert vector.read(1) == 1


# ---- Time ----


def test_waits_take_no_time(card: Engine) -> None:
    begin, virtual = time.monotonic(), clock.monotonic()
    with pyuio.model.open(card) as device:
        assert pyuio.wait([device.interrupt], 1000) == []
        device.clock.sleep(1000)
        with pytest.raises(TimeoutError):
            device.interrupt.read(1000)
        with pytest.raises(TimeoutError):
            Registers(device.bar(0)).status.poll(lambda status: status.ready, 1000)
        with pytest.raises(TimeoutError):
            device.bar(0).poll32(4, 1, 1, 1000)
        for timeout in (None, math.inf):
            with pytest.raises(NothingPlannedError):
                device.bar(0).poll32(4, 1, 1, timeout)
    assert clock.monotonic() > virtual + 4999
    assert time.monotonic() < begin + 30  # polls look again every virtual millisecond


def test_a_wait_without_an_end_says_so(card: Engine) -> None:
    async def wait(interrupt: Any) -> None:
        await interrupt.read_async()

    with pyuio.model.open(card) as device:
        for use in (device.interrupt.read, lambda: pyuio.wait([device.interrupt]), lambda: device.interrupt.poll(None)):
            with pytest.raises(NothingPlannedError, match="would wait for ever"):
                use()
        with pytest.raises(NothingPlannedError):
            asyncio.run(wait(device.interrupt))
        card.raise_interrupt()
        assert device.interrupt.read() == 1


def test_tasks_share_the_time(card: Engine) -> None:
    other = Engine()

    async def main(first: pyuio.Device, second: pyuio.Device) -> list[float]:
        async def at(device: pyuio.Device, timeout: float) -> float:
            try:
                await device.interrupt.read_async(timeout)
            except TimeoutError:
                return -clock.monotonic()
            return clock.monotonic()

        begin = clock.monotonic()
        card.after(20, card.raise_interrupt)
        return [abs(one) - begin for one in await asyncio.gather(at(first, 100), at(second, 10), at(second, 30))]

    with pyuio.model.open(card) as first, pyuio.model.open(other) as second:
        assert asyncio.run(main(first, second)) == pytest.approx([20, 10, 30])


def test_time_stands_still_until_another_thread_has_looked(card: Engine) -> None:
    other = Engine()
    with pyuio.model.open(card) as first, pyuio.model.open(other) as second:
        begin, ended = clock.monotonic(), []

        def wait_for_it() -> None:
            first.interrupt.read(100)
            ended.append(clock.monotonic() - begin)

        card.after(20, card.raise_interrupt)
        thread = threading.Thread(target=wait_for_it)
        thread.start()
        with pytest.raises(TimeoutError):
            second.interrupt.read(30)
        thread.join(60)
    assert 19.99 < ended[0] < 25  # while the thread was on its way, time was real


def test_time_stands_still_until_a_task_has_looked(card: Engine) -> None:
    """The task sleeps for a moment of real time, as a thread ran that might have raised an interrupt."""
    other = Engine()
    go_on = threading.Event()

    async def main(first: pyuio.Device, second: pyuio.Device) -> float:
        async def wait_for_it() -> float:
            await first.interrupt.read_async(100)
            return clock.monotonic()

        thread = threading.Thread(target=go_on.wait)
        thread.start()
        begin = clock.monotonic()
        card.after(20, card.raise_interrupt)
        task = asyncio.create_task(wait_for_it())
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # now the task sleeps
        go_on.set()
        thread.join()
        with pytest.raises(TimeoutError):
            await second.interrupt.read_async(30)
        return await task - begin

    with pyuio.model.open(card) as first, pyuio.model.open(other) as second:
        assert 19.99 < asyncio.run(main(first, second)) < 25


def test_threads_share_the_time(card: Engine) -> None:
    other = Engine()
    ends: dict[str, float] = {}
    with pyuio.model.open(card) as first, pyuio.model.open(other) as second:
        begin = clock.monotonic()

        def go() -> None:
            card.raise_interrupt()
            other.after(3, other.raise_interrupt)

        card.after(2, go)

        def run(name: str, device: pyuio.Device) -> None:
            device.interrupt.read(1000)
            ends[name] = clock.monotonic() - begin

        threads = [threading.Thread(target=run, args=one) for one in (("first", first), ("second", second))]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        for thread in threads:
            thread.join(30)
    # This thread waits for them, but not for a card: so time was real.
    assert time.monotonic() - started >= 4
    assert ends == pytest.approx({"first": 2, "second": 5}, abs=2)


def test_wait_until_ends_in_time_while_the_line_stays_asserted(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        card.raise_interrupt()
        served: list[int] = []
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError, match="condition"):
                device.interrupt.wait_until(
                    lambda: False, lambda count: served.append(device.bar(0).read32(4)), timeout
                )
            assert served
            served.clear()
            with pytest.raises(TimeoutError, match="condition"):
                asyncio.run(
                    device.interrupt.wait_until_async(
                        lambda: False, lambda count: served.append(device.bar(0).read32(4)), timeout
                    )
                )
            assert served
            served.clear()


# ---- Life ----


def test_a_card_keeps_its_state_and_is_open_once(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        Registers(device.bar(0)).length.write(77)
        with pytest.raises(pyuio.DeviceBusyError, match="open already"):
            pyuio.model.open(card)
        bar = device.bar(0)
    for use in (lambda: bar.read32(0), lambda: bar.write32(0, 0), lambda: bar.read(0, 8), lambda: device.config):
        with pytest.raises(pyuio.ClosedError):
            use()
    with pyuio.model.open(card) as device:
        assert Registers(device.bar(0)).length.read() == 77
        assert not device.config.command & Command.BUS_MASTER
    for wrong in (3, Card(), "edu", Engine.__init__):
        if isinstance(wrong, Card):
            pyuio.model.open(wrong).close()  # a card without ids is one, too
            continue
        with pytest.raises(TypeError, match="takes a Card"):
            pyuio.model.open(wrong)  # type: ignore[arg-type]


def test_nothing_is_left_behind(card: Engine) -> None:
    def open_close() -> None:
        with Edu(pyuio.model.open(EduCard)) as edu:
            edu.factorial_by_interrupt(3)
            edu.to_device(b"x")

    open_close()
    gc.collect()  # what earlier tests left is closed now, and not between the two looks
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        open_close()
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_forked_child_has_a_closed_copy(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        bar, interrupt = device.bar(0), device.interrupt
        child = os.fork()
        if child == 0:
            try:
                refused = 0
                for use in (lambda: bar.read32(0), lambda: interrupt.read(0), lambda: device.config):
                    try:
                        use()
                    except pyuio.ClosedError:
                        refused += 1
                os._exit(0 if refused == 3 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        card.raise_interrupt()
        assert interrupt.read(1) == 1


def test_a_card_that_is_not_plugged_in_says_so(card: Engine) -> None:
    with pytest.raises(RuntimeError, match=r"not plugged in; pyuio.model.open\(\)"):
        card.after(1, card.move)
    pyuio.model.open(card).close()
    with pytest.raises(ValueError, match="from 0 to"):
        card.after(-1, card.move)


def test_a_large_bar_costs_nothing() -> None:
    class Large(Card):
        vendor, device = 1, 2
        bars: ClassVar = {0: BarSpace(1 << 36, width=64)}

    class TooLarge(Card):
        vendor, device = 1, 2
        bars: ClassVar = {0: BarSpace(1 << 62, width=64)}

    with pyuio.model.open(Large) as device:
        device.bar(0).write32((1 << 36) - 4, 7)
        assert device.bar(0).read32((1 << 36) - 4) == 7
        device.reset()
        assert device.bar(0).read32((1 << 36) - 4) == 0
    with pytest.raises(ValueError, match="more than this process can have"):
        TooLarge()


def test_bars_that_no_machine_has_room_for_are_refused() -> None:
    class Many(Card):
        vendor, device = 1, 2
        bars: ClassVar = {0: 1 << 30, 1: 1 << 30}

    with pytest.raises(ValueError, match="below 4 GiB"):
        pyuio.model.open(Many)


def test_a_hook_that_removes_the_card_answers_with_ones(card: Engine) -> None:
    card._slots["status"][0].on_read = card.remove
    with pyuio.model.open(card) as device, pytest.raises(pyuio.DeviceRemovedError):
        device.bar(0).read32(4)


def test_the_errors_of_a_card_reach_the_driver(card: Engine) -> None:
    def fail() -> None:
        raise KeyError("a fault of the model")

    with pyuio.model.open(card) as device:
        card.after(1, fail)
        with pytest.raises(KeyError, match="a fault of the model"):
            device.interrupt.read(2)
        card.complaints.clear()
        with pytest.raises(Complaint, match="Engine: too early"):
            card.complain("too early")
    assert isinstance(MasterAbortError("x"), OSError)


# ---- Services ----


def test_a_service_runs_its_program(card: Engine) -> None:
    with pyuio.model.open(card) as device:
        registers = Registers(device.bar(0))
        card._slots["status"][0].on_read = lambda: card.regs.status.read()
        program = [
            Read("status", registers.status),
            While(
                "status",
                Status.ready,
                1,
                [Append("data", registers.data), Read("status", registers.status)],
                most=8,
            ),
            Write(registers.level, 0),
            WriteBack("status", registers.length),
            Poll("level", registers.level, mask=1, value=1, timeout=0.5),
            Stamp("end"),
            Count("served"),
        ]
        left = [3]

        def data() -> int:
            left[0] -= 1
            card.regs.status.ready = left[0] > 0
            return 100 + left[0]

        card._slots["data"][0].on_read = data
        with pyuio.Service(device.interrupt, program) as service:
            card.regs.status.ready = True
            registers.level.write(1)
            (event,) = service.read(2)
            assert event.lists == {"data": (102, 101, 100)}
            assert (event.count, event.late, event.values["status"]) == (1, True, 0)
            assert event.values["end"] - event.time >= 500_000_000
            assert service.counters == {"served": 1}
            with pytest.raises(pyuio.DeviceBusyError):
                device.interrupt.read(0)
            with pytest.raises(TimeoutError):
                service.read(5)
        with pytest.raises(pyuio.ClosedError):
            service.read(0)
        with pytest.raises(TypeError, match="a handler in C cannot reach"):
            pyuio.Service(device.interrupt, handler=1)
        service = pyuio.Service(device.interrupt, [Read("status", registers.status)], capacity=1)
        assert pyuio.wait([service], 2) == []
        card.after(1, card.raise_interrupt)
        card.after(1, card.lower_interrupt)
        assert pyuio.wait([service], 2) == [service]
        assert next(iter(service)).count == 1
        assert pyuio.wait([service], 0) == []
        for _ in range(3):
            card.raise_interrupt()
            clock.sleep(1e-3)
            card.lower_interrupt()
        assert len(service.read(0)) == 1
        assert pyuio.wait([service], 0) == [service], "for the error"
        with pytest.raises(pyuio.OverrunError, match="its program writes to no register: acknowledge the interrupt"):
            service.read(1)
        assert service.lost >= 2
        card.remove()
        assert pyuio.wait([service]) == [service]
        with pytest.raises(pyuio.DeviceRemovedError):
            service.read()
