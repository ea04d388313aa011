# SPDX-License-Identifier: MIT
"""What serves cards in a guest, as far as it needs no guest; tests/vm/test_card.py has the rest."""

from __future__ import annotations

import gc
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pyuio.model import Card, MasterAbortError, loop
from pyuio.model.failure import describe
from pyuio.model.guest_memory import GuestMemory
from pyuio.model.loop import CardHangError, Loop
from pyuio.model.proxy import BAR_READ, BAR_WRITE, CONFIG_READ, CONFIG_WRITE, DEVICE_RESET, SYNC_SYSMEM, Proxy
from pyuio.model.qtest import Qtest
from pyuio.model.vfio_user import DMA_MAP, READ, VERSION, VfioUser
from pyuio.registers import Register, RegisterMap


def file(content: bytes) -> int:
    """Return the descriptor of a file in memory."""
    descriptor = os.memfd_create("guest")
    os.write(descriptor, content)
    return descriptor


def open_files() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Board(RegisterMap):
    """What raises an interrupt, and does nothing."""

    line = Register(0x00)
    plain = Register(0x04)


class BoardCard(Card):
    """Its line is what the driver writes."""

    vendor, device = 0x1234, 0xB0A4
    bars: ClassVar = {0: 4096}
    registers: ClassVar = {0: Board}

    def on_write_line(self, value: int) -> None:
        """Set the line, or fail."""
        if value > 1:
            raise ZeroDivisionError("too much")
        if value:
            self.raise_interrupt()
        else:
            self.lower_interrupt()


# ---- Memory ----


def test_memory_is_shared_and_may_span_pieces() -> None:
    memory = GuestMemory()
    one = file(bytes(range(256)) * 32)
    kept = os.dup(one)
    memory.set([(0x1000, 0x1000, one, 0), (0x2000, 0x800, file(b"\xee" * 0x800), 0)])
    memory.write(0x1FFC, b"12345678")
    assert os.pread(kept, 4, 0xFFC) == b"1234"
    assert memory.read(0x1FF8, 12) == bytes([0xF8, 0xF9, 0xFA, 0xFB]) + b"12345678"
    assert memory.read(0x27FF, 1) == b"\xee"
    os.close(kept)


@pytest.mark.parametrize(("address", "length"), [(0xFFF, 1), (0xFFF, 2), (0x1FFF, 2), (0x2000, 1), (1 << 63, 8)])
def test_no_memory(address: int, length: int) -> None:
    memory = GuestMemory()
    memory.set([(0x1000, 0x1000, file(bytes(4096)), 0)])
    with pytest.raises(MasterAbortError, match="the guest has no memory at"):
        memory.read(address, length)
    with pytest.raises(MasterAbortError, match="the guest has no memory at"):
        memory.write(address, bytes(length))


def test_a_new_map_replaces_the_old_one() -> None:
    memory = GuestMemory()
    memory.set([(0x1000, 0x1000, file(bytes(4096)), 0)])
    memory.set([(0x8000, 0x1000, file(b"x" * 8192), 4096)])
    assert memory.read(0x8000, 2) == b"xx"
    with pytest.raises(MasterAbortError):
        memory.read(0x1000, 1)
    memory.remove(0x8000, 0x1000)
    with pytest.raises(MasterAbortError):
        memory.read(0x8000, 1)


# ---- Time ----


def test_what_is_planned_comes_in_order() -> None:
    one, other = socket.socketpair()
    planned = Loop()
    planned.watch(one, lambda: None)
    came: list[str] = []

    def end() -> None:
        came.append("last")
        planned.leave(one)

    planned.after(0.02, end)
    planned.after(0.001, lambda: came.append("first"))
    planned.after(0.001, lambda: came.append("second"))
    planned.run()
    assert came == ["first", "second", "last"]
    one.close()
    other.close()


def test_a_call_that_does_not_return_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CALL_LIMIT", 1)
    one, other = socket.socketpair()
    hanging = Loop()
    hanging.watch(one, lambda: None)

    def hang() -> None:
        while True:
            try:
                time.sleep(10)
            except Exception:
                continue

    hanging.after(0, hang)
    with pytest.raises(CardHangError, match="did not return within 1 s"):
        hanging.run()
    one.close()
    other.close()


# ---- Messages ----


class Qemu:
    """QEMU's ends of the sockets, the loop between, and what became of the card."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.loop = Loop()
        self.qtest, qtest = socket.socketpair()
        self.channel, self.channel_there = socket.socketpair()
        self.lines = Qtest(qtest, self.loop)
        for end in (self.qtest, self.channel):
            end.settimeout(5)

    def removed(self) -> None:
        """Hear nothing."""

    def failed(self, error: BaseException) -> None:
        """Hear of a failure."""
        self.failures.append(error)

    def turn(self) -> None:
        """Let the card's process do what there is to do."""
        self.loop.after(0, lambda: None)
        self.loop._turn()

    def commands(self) -> list[str]:
        """Return what came on the qtest socket."""
        self.qtest.setblocking(False)
        try:
            return self.qtest.recv(4096).decode().splitlines()
        except BlockingIOError:
            return []

    def has_reply(self) -> bool:
        """Return whether there is something to read on the channel, and read it."""
        self.channel.setblocking(False)
        try:
            return bool(self.channel.recv(4096))
        except BlockingIOError:
            return False


@pytest.fixture
def qemu() -> Iterator[Qemu]:
    made = Qemu()
    yield made
    made.qtest.close()
    made.channel.close()


@pytest.fixture
def proxy(qemu: Qemu) -> Proxy:
    return Proxy(BoardCard(), qemu.channel_there, qemu.loop, qemu, qemu.lines, 21)


def config(command: int, offset: int, value: int, width: int) -> bytes:
    return struct.pack("<i4xQIIi", command, 12, offset, value, width)


def bar(command: int, address: int, value: int = 0, width: int = 4) -> bytes:
    return struct.pack("<i4xQQQI?3x", command, 24, address, value, width, True)


def ask(qemu: Qemu, message: bytes) -> int:
    """Send a message and return the value of the reply."""
    qemu.channel.setblocking(True)
    qemu.channel.sendall(message)
    qemu.turn()
    value: int = struct.unpack("<i4xQQ", qemu.channel.recv(4096))[2]
    return value


def test_configuration_space_and_bars(qemu: Qemu, proxy: Proxy) -> None:
    assert ask(qemu, config(CONFIG_READ, 0, 0, 4)) == 0xB0A4_1234
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFFFF_FFFF, 4))
    assert ask(qemu, config(CONFIG_READ, 0x10, 0, 4)) == 0xFFFF_F000
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFEB0_0000, 4))
    ask(qemu, bar(BAR_WRITE, 0xFEB0_0004, 77))
    assert ask(qemu, bar(BAR_READ, 0xFEB0_0004)) == 77
    ask(qemu, struct.pack("<i4xQ", DEVICE_RESET, 0))
    assert ask(qemu, config(CONFIG_READ, 0x10, 0, 4)) == 0


def test_messages_may_come_in_pieces_and_together(qemu: Qemu, proxy: Proxy) -> None:
    message = config(CONFIG_READ, 0, 0, 2)
    qemu.channel.sendall(message[:5])
    qemu.turn()
    qemu.channel.sendall(message[5:] + message)
    qemu.turn()
    assert qemu.channel.recv(4096) == struct.pack("<i4xQQ", 1, 8, 0x1234) * 2


def test_the_reply_waits_until_the_line_has_changed(qemu: Qemu, proxy: Proxy) -> None:
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFEB0_0000, 4))
    qemu.channel.sendall(bar(BAR_WRITE, 0xFEB0_0000, 1))
    qemu.turn()
    assert qemu.commands() == ["set_irq_in ioapic unnamed-gpio-in 21 1"]
    assert not qemu.has_reply()
    qemu.qtest.sendall(b"OK\n")
    qemu.turn()
    assert qemu.has_reply()
    ask(qemu, struct.pack("<i4xQ", DEVICE_RESET, 0))  # QEMU could not answer
    assert qemu.commands() == ["set_irq_in ioapic unnamed-gpio-in 21 0"]


def test_cards_that_share_a_pin(qemu: Qemu) -> None:
    lines = qemu.lines
    steps: list[tuple[int, str, bool, list[str]]] = [
        (20, "a", True, ["set_irq_in ioapic unnamed-gpio-in 20 1"]),
        (20, "b", True, []),
        (20, "a", False, []),
        (21, "c", True, ["set_irq_in ioapic unnamed-gpio-in 21 1"]),
        (20, "b", False, ["set_irq_in ioapic unnamed-gpio-in 20 0"]),
        (20, "b", False, []),
    ]
    for pin, who, asserted, sent in steps:
        lines.set_line(pin, who, asserted)
        assert qemu.commands() == sent


def test_memory_comes_with_descriptors(qemu: Qemu, proxy: Proxy) -> None:
    gc.collect()  # what other tests left open would be closed meanwhile
    before = open_files()
    body = struct.pack("<8Q8Q8q", 0x1000, 0x9000, *[0] * 6, 4096, 4096, *[0] * 6, 0, 4096, *[0] * 6)
    for content in (b"a", b"b"):
        files = [file(content * 4096), file(b"c" * 8192)]
        qemu.channel.sendall(config(CONFIG_READ, 0, 0, 2))  # the kernel returns it with the next one
        socket.send_fds(qemu.channel, [struct.pack("<i4xQ", SYNC_SYSMEM, len(body)) + body], files)
        for descriptor in files:
            os.close(descriptor)
        qemu.turn()
        assert proxy.read_memory(0x1FFF, 1) == content
        assert proxy.read_memory(0x9000, 2) == b"cc"
    assert open_files() - before == 4  # the mappings' own


def test_a_card_that_fails_is_pulled_out_for_qemu(qemu: Qemu, proxy: Proxy) -> None:
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFEB0_0000, 4))
    ask(qemu, bar(BAR_WRITE, 0xFEB0_0000, 2))
    (error,) = qemu.failures
    text, trace = describe(error)
    assert text == "ZeroDivisionError: too much, at a 32-bit write of 0x2 at offset 0x0 of BAR 0"
    assert trace.splitlines()[1].endswith("in on_write_line")
    assert ask(qemu, bar(BAR_READ, 0xFEB0_0004)) == 0xFFFF_FFFF
    assert ask(qemu, config(CONFIG_READ, 0, 0, 4)) == 0xFFFF_FFFF


def test_a_card_that_fails_later(qemu: Qemu, proxy: Proxy) -> None:
    proxy.card.after(0, lambda: 1 // 0)
    qemu.turn()
    (error,) = qemu.failures
    assert re.fullmatch("ZeroDivisionError: .*by zero", describe(error)[0])  # Python 3.14 words it otherwise
    assert proxy.card.removed


def test_a_complaint_has_no_line_of_the_card_for_the_drivers(qemu: Qemu, proxy: Proxy) -> None:
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFEB0_0000, 4))
    assert ask(qemu, bar(BAR_READ, 0xFEB0_0800)) == 0xFFFF_FFFF
    (error,) = qemu.failures
    assert "no register there" in describe(error)[0]
    assert "\n" not in describe(error)[0]


def test_the_end_of_qemu_unplugs_the_card(qemu: Qemu, proxy: Proxy) -> None:
    ask(qemu, config(CONFIG_WRITE, 0x10, 0xFEB0_0000, 4))
    proxy.card.raise_interrupt()
    qemu.channel.close()
    qemu.turn()
    assert proxy.card.removed
    assert qemu.commands()[-1] == "set_irq_in ioapic unnamed-gpio-in 21 0"


# ---- vfio-user ----


def user(command: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("<HHIII", 7, command, 16 + len(body), flags, 0) + body


def test_vfio_user_talks_as_agreed(qemu: Qemu) -> None:
    host = VfioUser(BoardCard(), qemu.channel_there, qemu.loop, qemu)

    def talk(message: bytes, files: Callable[[], list[int]] = list) -> bytes:
        socket.send_fds(qemu.channel, [message], files())
        qemu.turn()
        return qemu.channel.recv(4096)

    said = talk(user(VERSION, b"\0\0\0\0{}\0"))
    assert said[:20] == struct.pack("<HHIIIHH", 7, VERSION, len(said), 1, 0, 0, 0)
    assert talk(user(READ, struct.pack("<QII", 0, 7, 4)))[-4:] == bytes.fromhex("3412a4b0")
    mapped = user(DMA_MAP, struct.pack("<IIQQQ", 32, 3, 0, 0x4000, 4096))
    assert talk(mapped, lambda: [file(b"m" * 4096)]) == struct.pack("<HHIII", 7, DMA_MAP, 16, 1, 0)
    assert host.read_memory(0x4FFF, 1) == b"m"
    assert struct.unpack("<HHIII", talk(user(11, b"")))[3:] == (0x21, 95)  # ENOTSUP
