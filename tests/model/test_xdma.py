# SPDX-License-Identifier: MIT
"""The XDMA driver on the card in Python: registers, descriptors, errors, interrupts, streams. No board was tried."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from pyuio_drivers import xdma_channel, xdma_engine
from pyuio_drivers.models.xdma import XdmaCard
from pyuio_drivers.xdma import Xdma
from pyuio_drivers.xdma_channel import Received
from pyuio_drivers.xdma_engine import DESCRIPTORS, Completion, Piece
from pyuio_drivers.xdma_errors import (
    AlignmentError,
    ChannelError,
    ChannelNotFoundError,
    ChannelTimeoutError,
    XdmaError,
    error_words,
)
from pyuio_drivers.xdma_registers import ChannelStatus, Target, XdmaRegisters

import pyuio
import pyuio.model
from pyuio.dma.scatter import Segment
from pyuio.model import BarSpace, Card, Complaint, clock

DATA = random.Random(1).randbytes(10_000)
MIB = 1 << 20
BY = [*Completion]


class UserRegisters(pyuio.RegisterMap, width=32):
    request = pyuio.Register(0x00)


class UserCard(XdmaCard):
    """The user's logic raises the interrupts that are written to it."""

    registers: ClassVar = {0: UserRegisters, 1: XdmaRegisters}

    def on_write_request(self, bits: int) -> None:
        self.request_user_interrupts(bits)


class FourChannels(UserCard):
    channels = 4


class StreamCard(XdmaCard):
    streams, channels = True, 2


class AlignedCard(XdmaCard):
    alignment = 8


class AlignedStreamCard(AlignedCard):
    streams = True


class EngineFirst(XdmaCard):
    """A bitstream without AXI4-Lite, with bypass."""

    bars: ClassVar = {0: 1 << 16, 2: BarSpace(1 << 16, width=64)}
    registers: ClassVar = {0: XdmaRegisters}


class WideUserBar(XdmaCard):
    """The user's BAR has 64 bits and is large; there is a bypass BAR, too, and one for ports."""

    bars: ClassVar = {0: BarSpace(1 << 20, width=64), 2: 1 << 16, 3: 1 << 16, 4: BarSpace(16, ports=True)}
    registers: ClassVar = {2: XdmaRegisters}


@pytest.fixture(autouse=True)
def few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at memory take no virtual time, so they are in vain."""
    monkeypatch.setattr(xdma_engine, "_LOOKS", 5)


@pytest.fixture
def model() -> XdmaCard:
    return UserCard()


@pytest.fixture
def card(model: XdmaCard) -> Iterator[Xdma]:
    with Xdma(pyuio.model.open(model), user_interrupts=2, timeout=1.0) as opened:
        yield opened


@pytest.fixture
def stream() -> Iterator[Xdma]:
    with Xdma(pyuio.model.open(StreamCard()), completion="interrupt", timeout=1.0) as opened:
        yield opened


def open_by(model: Card, completion: Completion | str = Completion.WRITE_BACK, *, user_interrupts: int = 0) -> Xdma:
    return Xdma(pyuio.model.open(model), completion=completion, user_interrupts=user_interrupts, timeout=1.0)


# -- finding the engine --


@pytest.mark.parametrize(
    ("kind", "config_bar", "user_bar", "channels"),
    [(XdmaCard, 1, 0, 1), (EngineFirst, 0, None, 1), (WideUserBar, 2, 0, 1), (FourChannels, 1, 0, 4)],
)
def test_the_engine_is_found(kind: type[XdmaCard], config_bar: int, user_bar: int | None, channels: int) -> None:
    with open_by(kind()) as card:
        assert (card.config_bar, card.user_bar) == (config_bar, user_bar)
        assert (len(card.h2c), len(card.c2h)) == (channels, channels)
        assert [one.name[-5:] for one in card.h2c] == [f"H2C {number}" for number in range(channels)]
        assert not any(one.is_stream for one in (*card.h2c, *card.c2h))
        card.write(0, DATA, channel=channels - 1)
        assert card.read(0, len(DATA), channel=channels - 1) == DATA
        with pytest.raises(ChannelNotFoundError, match=f"C2H channels: there are {channels}, and none has number 7"):
            card.read(0, 1, channel=7)
        with pytest.raises(IndexError):
            card.h2c[-5]
        assert card.h2c[:1] == (card.h2c[0],)


def test_registers_of_the_user_are_left_alone() -> None:
    """They are in the BAR before, and reading them may have an effect."""
    seen = set()

    class Watched(XdmaCard):
        def read_bar(self, index: int, offset: int, width: int) -> int:
            seen.add(index)
            return super().read_bar(index, offset, width)

    with open_by(Watched()):
        assert seen == {1}


def test_a_driver_may_name_the_bar() -> None:
    class Board(Xdma):
        register_maps: ClassVar = {0: UserRegisters, 1: XdmaRegisters}

    class Wrong(Xdma):
        register_maps: ClassVar = {0: XdmaRegisters}

    with Board(pyuio.model.open(XdmaCard())) as card:
        assert card.config_bar == 1
    with pyuio.model.open(WideUserBar()) as device, pytest.raises(pyuio.UnsupportedDeviceError, match="BAR 0 has 0x0"):
        Wrong(device)


def test_there_is_no_engine(model: XdmaCard) -> None:
    model.regs.irq.identifier.write(0x12345678)
    with pyuio.model.open(model) as device:
        with pytest.raises(
            pyuio.UnsupportedDeviceError, match=r"BAR 1 has 0x12345678 and 0x1fc30006; BAR 0 has 0x1000"
        ):
            Xdma(device)
        assert not device.dma.buffers
    other = XdmaCard()
    other.regs.h2c[0].identifier.write(0x1FC00106)  # channel 1 at the place of channel 0
    other.regs.c2h[0].identifier.write(0)
    with pyuio.model.open(other) as device, pytest.raises(pyuio.UnsupportedDeviceError, match="without channels"):
        Xdma(device)


def test_ids_are_those_of_the_ip() -> None:
    assert {"10ee:7024", "10ee:8038", "10ee:9048", "10ee:903f"} <= set(Xdma.ids)


def test_bad_options(model: XdmaCard) -> None:
    for options in ({"completion": "magic"}, {"user_interrupts": 17}, {"user_interrupts": -1}, {"timeout": 0}):
        with pyuio.model.open(model) as device, pytest.raises(ValueError, match=r"magic|0 to 16|above 0"):
            Xdma(device, **options)


# -- transfers --


@pytest.mark.parametrize("completion", BY)
@pytest.mark.parametrize("size", [0, 1, 4097, MIB, 3 * MIB + 5])
def test_any_size(model: XdmaCard, completion: Completion, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with open_by(model, completion) as card:
        assert card.write(77, data) == size
        assert model.axi[77 : 77 + size] == data
        assert card.read(77, size) == data
        again = bytearray(size)
        assert card.readinto(77, again) == size
        assert again == data
    assert model.complaints == []
    assert (model.faults.interrupts > 0) == (completion is Completion.INTERRUPT and size > 0)


def test_a_buffer_is_not_copied(model: XdmaCard, card: Xdma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdma_channel.Channel, "_stage", lambda self, size: pytest.fail("copied"))
    with card.device.dma.alloc(len(DATA)) as buffer:
        buffer[:] = DATA
        card.write(0, buffer)
        assert model.axi[: len(DATA)] == DATA
        card.write(20_000, buffer[100:300])
        assert model.axi[20_000:20_200] == DATA[100:300]
        buffer.zero()
        card.readinto(0, buffer)
        assert bytes(buffer) == DATA
    with pytest.raises(pyuio.ClosedError):
        card.write(0, buffer)
    array = bytearray(DATA)
    with card.device.dma.map(array) as mapped:
        card.write(50_000, mapped)
        card.readinto(50_001, mapped)
    assert array == DATA[1:] + b"\0"
    with pyuio.model.open(XdmaCard()) as other, other.dma.alloc(64) as foreign:
        for use in (card.write, card.readinto):
            with pytest.raises(ValueError, match="another device's"):
                use(0, foreign)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, DESCRIPTORS, DESCRIPTORS + 1, 400])
def test_scattered_memory(model: XdmaCard, card: Xdma, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments in an order of their own; the model complains about descriptors that are fetched across a page."""
    part = 4096
    with card.device.dma.scatter(part * count) as buffer:
        whole = buffer.address
        order = random.Random(count).sample(range(count), count)
        segments = tuple(Segment(whole + part * index, part) for index in order)
        monkeypatch.setattr(type(buffer), "segments", segments)
        data = random.Random(2).randbytes(part * count)
        buffer[:] = data
        card.write(0, buffer)
        assert bytes(model.axi[: part * count]) == b"".join(data[part * index :][:part] for index in order)
        buffer.zero()
        card.readinto(0, buffer)
        assert bytes(buffer) == data
        runs = -(-count // DESCRIPTORS)
        assert card.registers.c2h[0].completed_descriptor_count.read() == count - (runs - 1) * DESCRIPTORS


def test_what_is_longer_than_a_descriptor(card: Xdma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xdma_channel, "_LARGEST_PIECE", 4096)
    card.write(3, DATA)
    assert card.registers.h2c[0].completed_descriptor_count.read() == 3
    assert card.read(3, len(DATA)) == DATA


def test_adjacent_descriptors_are_as_the_guide_has_them(card: Xdma) -> None:
    engine = card.h2c[0]._engine
    with card.device.dma.alloc(DESCRIPTORS) as buffer:
        engine.start([Piece(buffer.address + index, index, 1) for index in range(DESCRIPTORS)])
        controls = [engine._ring.read(index, "control") for index in range(DESCRIPTORS)]
        assert all(control >> 16 == 0xAD4B for control in controls)
        assert [control & 0xFF for control in controls] == [0] * (DESCRIPTORS - 1) + [3]
        assert card.registers.h2c_sgdma[0].descriptor_adjacent.read() == 63
        # How many follow the next one: it begins a block at 64, and the last block is not whole.
        assert [control >> 8 & 0x3F for control in controls[:3]] == [62, 61, 60]
        assert [control >> 8 & 0x3F for control in controls[62:66]] == [0, DESCRIPTORS - 65, DESCRIPTORS - 66, 59]
        assert [control >> 8 & 0x3F for control in controls[-2:]] == [0, 0]
        assert engine._ring.read(DESCRIPTORS - 1, "nxt_adr") == 0
        assert card.registers.h2c[0].control.ie_write_error == 0x1F
        clock.sleep(1e-2)
        assert card.registers.h2c[0].completed_descriptor_count.read() == DESCRIPTORS


def test_the_count_is_written_back(model: XdmaCard, card: Xdma) -> None:
    engine = card.c2h[0]._engine
    model.axi[:4] = b"data"
    with card.device.dma.alloc(8) as buffer:
        engine.start([Piece(buffer.address, 0, 2), Piece(buffer.address + 2, 2, 2)])
        assert card.registers.c2h[0].control.ie_write_error == 0  # reserved bits of a C2H channel
        clock.sleep(1e-3)
        assert engine._results.registers.read32(0) == 2
        engine.check(2)
        assert bytes(buffer)[:4] == b"data"


def test_both_directions_at_a_time(card: Xdma) -> None:
    """A channel is used by one at a time, and the others work meanwhile."""
    steps = card.h2c[0]._write(0, DATA, None, stream=False)
    next(steps)
    with pytest.raises(pyuio.DeviceBusyError, match="H2C 0 has a transfer under way"):
        card.write(0, b"x")
    assert card.read(MIB, 10) == bytes(10)
    card.h2c[0]._engine.run(steps)
    assert card.read(0, len(DATA)) == DATA


def test_alignment() -> None:
    model = AlignedCard()
    with open_by(model) as card:
        assert (card.h2c[0].alignment, card.h2c[0].granularity) == (8, 8)
        card.write(8, DATA[:800])
        assert card.read(8, 800) == DATA[:800]
        for use in (
            lambda: card.write(4, DATA[:8]),
            lambda: card.write(8, DATA[:4]),
            lambda: card.read(8, 12),
            lambda: card.read(12, 8),
        ):
            with pytest.raises(AlignmentError, match="addresses at multiples of 8 and sizes of 8 bytes") as caught:
                use()
            assert isinstance(caught.value, ValueError)
        with card.device.dma.alloc(64) as buffer, pytest.raises(AlignmentError):
            card.write(8, buffer[4:12])
    assert model.faults.interrupts == 0


@pytest.mark.parametrize("size", [MIB + 1, MIB + 4, 2 * MIB - 1, 3 * MIB + 7])
def test_alignment_of_all_of_it_is_checked_first(size: int) -> None:
    """And not that of each part of 1 MiB, when those before have gone."""
    model = AlignedCard()
    with open_by(model) as card:
        before = bytes(model.axi[: 4 * MIB])
        with pytest.raises(AlignmentError, match=f"not {size} bytes at 0x8 on the card"):
            card.write(8, b"x" * size)
        assert model.axi[: 4 * MIB] == before
        into = bytearray(b"y" * size)
        with pytest.raises(AlignmentError, match=f"not {size} bytes at 0x8 on the card"):
            card.readinto(8, into)
        assert into == b"y" * size
        assert card.write(4, b"") == 0
    with open_by(AlignedStreamCard()) as card:
        with pytest.raises(AlignmentError):
            card.h2c[0].send(b"x" * size)
        card.h2c[0].send(b"packet 2")
        assert card.c2h[0].receive(MIB) == Received(b"packet 2", True)
        with pytest.raises(AlignmentError):
            card.c2h[0].receive(12)
        card.h2c[0].send(b"packet 3")
        assert card.c2h[0].receive(MIB) == Received(b"packet 3", True)


def test_arguments_are_checked_before_the_card_is_touched(model: XdmaCard, card: Xdma) -> None:
    before = model.faults.accesses
    uses: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: card.write(-1, b"x"), ValueError),
        (lambda: card.write((1 << 64) - 1, b"xy"), ValueError),
        (lambda: card.write(0, b"x", timeout=0), ValueError),
        (lambda: card.write(0, "text"), TypeError),  # type: ignore[arg-type]
        (lambda: card.read(0, -1), ValueError),
        (lambda: card.readinto(0, b"x"), TypeError),
        (lambda: card.h2c[0].send(b"x"), XdmaError),
        (lambda: card.c2h[0].receive(1), XdmaError),
    ]
    for use, error in uses:
        with pytest.raises(error):
            use()
    assert model.faults.accesses == before
    card.write(0, b"x")


# -- what goes wrong --


@pytest.mark.parametrize("completion", BY)
def test_errors_of_the_card_bus(model: XdmaCard, completion: Completion) -> None:
    model.slave_errors.add(5000)
    with open_by(model, completion) as card:
        for use, words, field in (
            (lambda: card.write(model.axi_size, b"x"), "H2C 0: write_error: decode error", "write_error"),
            (lambda: card.read(model.axi_size - 5, 10), "C2H 0: read_error: decode error", "read_error"),
            (lambda: card.write(4990, DATA), "write_error: slave error", "write_error"),
            (lambda: card.read(5000, 1), "read_error: slave error", "read_error"),
        ):
            with pytest.raises(ChannelError, match=words) as caught:
                use()
            assert getattr(caught.value.status, field)
            assert not caught.value.status.busy
            assert caught.value.completed == 0
            card.write(8000, b"still works")
            assert card.read(8000, 11) == b"still works"


def test_errors_of_the_host(model: XdmaCard, card: Xdma) -> None:
    for nth, words in ((1, "descr_error: unsupported request"), (2, "read_error: unsupported request")):
        model.faults.clear()
        model.faults.fail_transfer(nth)
        with pytest.raises(ChannelError, match=words):
            card.write(0, b"data")
        card.write(0, b"fine")
    assert model.axi[:4] == b"fine"


def test_magic(model: XdmaCard, card: Xdma) -> None:
    engine = card.h2c[0]._engine
    with card.device.dma.alloc(64) as buffer:
        engine.start([Piece(buffer.address, 0, 4), Piece(buffer.address, 4, 4)])
        engine._ring.write(1, control=0)  # before it is fetched
        clock.sleep(1e-3)
        with pytest.raises(ChannelError, match="magic_stopped") as caught:
            engine.check(2)
        assert caught.value.completed == 1


def test_error_words() -> None:
    every = ChannelStatus.of(0xFFFFFFFF)
    assert error_words(Target.H2C, ChannelStatus.of(0x7)) == ""
    assert error_words(Target.H2C, every).count("unexpected completion") == 2
    assert "read_error: slave error, read_error: bit 2" in error_words(Target.C2H, every)
    assert "write_error: bit 0" in error_words(Target.C2H, ChannelStatus.of(1 << 14))


@pytest.mark.parametrize("completion", BY)
def test_a_transfer_that_never_ends(model: XdmaCard, completion: Completion) -> None:
    """A write to memory that gets nowhere leaves the engine busy, and the memory with it."""
    with open_by(model, completion) as card:
        start = clock.monotonic()
        model.faults.fail_transfer(2)  # after the descriptor
        with pytest.raises(ChannelTimeoutError, match=r"0 of 1 descriptors completed .* reset the card") as caught:
            card.read(0, 100, timeout=0.5)
        assert isinstance(caught.value, TimeoutError)
        assert 0.5 <= clock.monotonic() - start < 0.7
        with pytest.raises(pyuio.DeviceBusyError, match="C2H 0 is still busy with an earlier transfer"):
            card.read(0, 100)
        card.write(0, DATA)  # by the other channel
    with pyuio.model.open(model) as device, pytest.raises(XdmaError, match="C2H 0 is busy with a transfer"):
        Xdma(device)
    with pyuio.model.open(model) as device:
        device.reset()
        assert Xdma(device).read(0, len(DATA)) == DATA


def test_a_slow_transfer_is_stopped(model: XdmaCard, card: Xdma) -> None:
    """The engine completes its descriptor, and the channel can be used again."""
    with card.device.dma.alloc(MIB) as buffer:
        with pytest.raises(ChannelTimeoutError, match="0 of 1 descriptors completed") as caught:
            card.write(0, buffer, timeout=1e-5)
        assert "reset" not in str(caught.value)
        assert not card.registers.h2c[0].control.run
        card.write(0, b"again")
    assert card.read(0, 5) == b"again"


@pytest.mark.parametrize("completion", BY)
def test_a_transfer_that_is_broken_off(
    model: XdmaCard, completion: Completion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: the engine does not go on."""

    class Stop(BaseException):
        pass

    with open_by(model, completion) as card:
        with monkeypatch.context() as patched:

            def stop(*_: object) -> None:
                patched.undo()
                raise Stop

            patched.setattr(clock, "sleep", stop)
            if card.interrupts:
                patched.setattr(card.interrupts[0], "read", stop)
            with pytest.raises(Stop), card.device.dma.alloc(MIB) as buffer:
                card.write(0, buffer)
        assert not card.registers.h2c[0].status.busy
        card.write(0, DATA)
        assert card.read(0, len(DATA)) == DATA


def test_a_removed_card(model: XdmaCard, card: Xdma) -> None:
    model.remove()
    for use in (lambda: card.write(0, b"x"), lambda: card.read(0, 1), card.user_pending):
        with pytest.raises(pyuio.DeviceRemovedError):
            use()
    card.close()
    with pytest.raises(pyuio.ClosedError):
        card.write(0, b"x")


# -- interrupts --


def test_each_source_has_a_vector(model: XdmaCard) -> None:
    with open_by(FourChannels(), "interrupt", user_interrupts=16) as card:
        assert len(card.interrupts) == 24
        assert card.user_interrupts == card.interrupts[8:]
        irq = card.registers.irq
        assert [n for one in irq.channel_vector for n in one.vector] == [*range(8)]
        assert [n for one in irq.user_vector for n in one.vector] == [*range(8, 24)]
        user = UserRegisters(card.device.bar(0))
        for number, interrupt in enumerate(card.user_interrupts):
            user.request.write(1 << number)
            assert interrupt.read(1) == 1
            assert card.user_pending() == 1 << number
            user.request.write(0)
        for channel in range(4):
            card.write(0, DATA, channel=channel)
            assert card.read(0, len(DATA), channel=channel) == DATA


def test_user_interrupts(model: XdmaCard, card: Xdma) -> None:
    first, second = card.user_interrupts
    user = UserRegisters(card.device.bar(card.user_bar or 0))
    user.request.write(0b110)  # the third is not enabled
    assert second.read(1) == 1
    assert card.user_pending() == 0b110
    assert not first.poll(0)
    user.request.write(0)
    assert card.user_pending() == 0
    card.close()
    assert model.regs.irq.user_enable.read() == 0


def test_enable_registers_by_bits(model: XdmaCard, card: Xdma) -> None:
    irq, channel = card.registers.irq, card.registers.c2h[0]
    irq.user_enable_w1s.write(0b100)
    assert irq.user_enable.read() == 0b111
    irq.user_enable_w1c.write(0b001)
    assert irq.user_enable.read() == 0b110
    channel.interrupt_enable_w1s.write(0b110)
    channel.interrupt_enable_w1c.write(0b010)
    assert channel.interrupt_enable.read() == 0b100
    irq.channel_enable_w1s.write(0b11)
    irq.channel_enable_w1c.write(0b01)
    assert irq.channel_enable.read() == 0b10
    channel.control_w1s.write(1 << 26)
    channel.control_w1c.write(1 << 26)
    assert channel.control.read() == 0


def test_a_lost_interrupt_costs_a_second(model: XdmaCard) -> None:
    with open_by(model, "interrupt") as card:
        model.faults.lose_interrupt(1)
        card.write(0, DATA, timeout=5)
        assert model.axi[: len(DATA)] == DATA


def test_no_messages() -> None:
    class LineCard(XdmaCard):
        msix_vectors = 0

    with open_by(LineCard()) as card:
        card.write(0, DATA)
        assert card.read(0, len(DATA)) == DATA
    for options in ({"completion": "interrupt"}, {"user_interrupts": 1}):
        with pyuio.model.open(LineCard()) as device, pytest.raises(pyuio.InterruptUnavailableError):
            Xdma(device, **options)


def test_asyncio(model: XdmaCard) -> None:
    with open_by(FourChannels(), "interrupt") as card:

        async def there_and_back(number: int) -> bool:
            data, place = DATA[number:], number * 100_000
            assert await card.h2c[number].write_async(place, data) == len(data)
            again = bytearray(len(data))
            await card.c2h[number].readinto_async(place, again)
            return again == data == await card.c2h[number].read_async(place, len(data))

        async def all_at_a_time() -> list[bool]:
            return await asyncio.gather(*map(there_and_back, range(4)))

        assert asyncio.run(all_at_a_time()) == [True] * 4

        async def two_on_one() -> None:
            await asyncio.gather(card.h2c[0].write_async(0, DATA), card.h2c[0].write_async(0, DATA))

        with pytest.raises(pyuio.DeviceBusyError):
            asyncio.run(two_on_one())


def test_a_task_that_is_cancelled_stops_the_engine(model: XdmaCard) -> None:
    with open_by(model, "interrupt") as card, card.device.dma.alloc(8 * MIB) as buffer:

        async def cancel() -> None:
            task = asyncio.create_task(card.h2c[0].write_async(0, buffer))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancel())
        assert not card.registers.h2c[0].status.busy
        card.write(0, DATA)


def test_asyncio_needs_interrupts(card: Xdma) -> None:
    with pytest.raises(pyuio.InterruptUnavailableError, match="completion='interrupt'"):
        asyncio.run(card.h2c[0].write_async(0, b"x"))
    card.write(0, b"x")


# -- streams --


@pytest.mark.parametrize("completion", BY)
def test_streams(completion: Completion) -> None:
    with open_by(StreamCard(), completion) as card:
        for number, size in ((0, 1), (1, 4096), (0, 10_000), (1, MIB)):
            packet = random.Random(size).randbytes(size)
            assert card.h2c[number].send(packet) == size
            assert card.c2h[number].receive(MIB) == Received(packet, True)
        with card.device.dma.alloc(100) as buffer:
            buffer[:] = DATA[:100]
            card.h2c[0].send(buffer)
        assert card.c2h[0].receive(30) == Received(DATA[:30], False)
        assert card.c2h[0].receive(30) == Received(DATA[30:60], False)
        assert card.c2h[0].receive(100) == Received(DATA[60:100], True)


def test_a_packet_of_many_pieces(stream: Xdma, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more memory than is copied at once, and of more descriptors than one run has."""
    packet = random.Random(3).randbytes(3 * MIB + 1)
    stream.h2c[0].send(packet)
    parts = [stream.c2h[0].receive(MIB) for _ in range(4)]
    assert b"".join(part.data for part in parts) == packet
    assert [part.end_of_packet for part in parts] == [False, False, False, True]
    monkeypatch.setattr(xdma_channel, "_LARGEST_PIECE", 16)
    stream.h2c[0].send(DATA)
    monkeypatch.undo()
    assert stream.c2h[0].receive(MIB) == Received(DATA, True)


def test_a_receive_that_times_out_goes_on(stream: Xdma) -> None:
    with pytest.raises(ChannelTimeoutError, match="no end of a packet, nor 50 bytes, in time"):
        stream.c2h[0].receive(50, timeout=0.1)
    stream.h2c[0].send(DATA[:60])
    assert stream.c2h[0].receive(MIB) == Received(DATA[:50], False)
    assert stream.c2h[0].receive(MIB) == Received(DATA[50:60], True)


def test_packets_that_come_at_once() -> None:
    """While one receive waits, and before it is told."""
    model = StreamCard()
    with open_by(model) as card:
        with pytest.raises(ChannelTimeoutError):
            card.c2h[0].receive(50, timeout=0.1)
        for size in (10, 20, 0, 70):
            model.feed(0, DATA[:size])
        received = [card.c2h[0].receive(50) for _ in range(5)]
    assert [(len(part.data), part.end_of_packet) for part in received] == [
        (10, True),
        (20, True),
        (0, True),
        (50, False),
        (20, True),
    ]


def test_a_stream_that_waits_keeps_the_next_driver_out() -> None:
    model = StreamCard()
    with open_by(model) as card, pytest.raises(ChannelTimeoutError):
        card.c2h[1].receive(50)
    with pyuio.model.open(model) as device, pytest.raises(XdmaError, match=r"C2H 1 is busy .* reset the card"):
        Xdma(device)
    with pyuio.model.open(model) as device:
        device.reset()
        card = Xdma(device)
        card.h2c[1].send(b"x")
        assert card.c2h[1].receive(1) == Received(b"x", True)


def test_a_receive_after_a_reset_begins_anew(stream: Xdma) -> None:
    with pytest.raises(ChannelTimeoutError):
        stream.c2h[0].receive(50, timeout=0.1)
    stream.device.reset()
    with pytest.raises(ChannelTimeoutError):
        stream.c2h[0].receive(50, timeout=0.1)
    assert not stream.c2h[0]._receiving


def test_streams_have_no_addresses(stream: Xdma) -> None:
    for use in (lambda: stream.write(0, b"x"), lambda: stream.read(0, 1)):
        with pytest.raises(XdmaError, match=r"is a stream, without addresses: use send\(\) and receive\(\)"):
            use()
    for size in (0, MIB + 1):
        with pytest.raises(ValueError, match="takes 1 to 1048576 bytes"):
            stream.c2h[0].receive(size)
    with pytest.raises(ValueError, match="at least one byte"):
        stream.h2c[0].send(b"")


def test_streams_by_asyncio(stream: Xdma) -> None:
    async def echo() -> Received:
        receiving = asyncio.create_task(stream.c2h[0].receive_async(MIB))
        await asyncio.sleep(0)
        await stream.h2c[0].send_async(DATA)
        return await receiving

    assert asyncio.run(echo()) == Received(DATA, True)


def test_a_wrong_write_back(stream: Xdma, monkeypatch: pytest.MonkeyPatch) -> None:
    stream.h2c[0].send(b"x")
    monkeypatch.setattr(stream.c2h[0]._engine, "stream_result", lambda: struct.unpack("<II", b"\1\0\0\0\1\0\0\0"))
    with pytest.raises(ChannelError, match="which is no length"):
        stream.c2h[0].receive(10)


# -- the model --


def test_the_model_complains(model: XdmaCard, card: Xdma) -> None:
    registers = card.registers
    with card.device.dma.alloc(8192, align=4096) as buffer:
        for address, adjacent, text in (
            (buffer.address + 8, 0, "which is no multiple of 32"),
            (buffer.address + 4096 - 32, 1, "2 adjacent descriptors at .* cross a multiple of 4096"),
        ):
            registers.h2c_sgdma[0].descriptor_address.write(address)
            registers.h2c_sgdma[0].descriptor_adjacent.write(adjacent)
            registers.h2c[0].control_w1s.write(1)
            with pytest.raises(Complaint, match=text):
                clock.sleep(1e-3)
            model.reset()
            model.function.config_write(4, 2, 6)  # bus mastering
    with pytest.raises(Complaint, match="a channel 3 is used, and there are 1"):
        registers.h2c[3].control.write(1)
    with pytest.raises(Complaint, match="do not increment"):
        registers.h2c[0].control.non_inc_mode = True
    with pytest.raises(Complaint, match="credits"):
        registers.sgdma_common.credit_mode_enable.write(1)


def test_the_model_is_started_while_it_is_busy(card: Xdma) -> None:
    control = card.registers.h2c[0].control
    with card.device.dma.alloc(MIB) as buffer:
        card.h2c[0]._engine.start([Piece(buffer.address, 0, MIB)])
        control.write(0)
        with pytest.raises(Complaint, match="H2C 0 is started while it is busy"):
            control.write(1)
        clock.sleep(1e-2)
