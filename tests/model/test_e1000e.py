# SPDX-License-Identifier: MIT
"""The driver of the Intel 82574L on the card in Python: what QEMU's card does not do, and what goes wrong."""

from __future__ import annotations

import asyncio
import collections
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyuio_drivers.e1000e import E1000e, EepromError, InsertChecksums, PhyError, internet_checksum
from pyuio_drivers.e1000e.basic import ENTRIES, BasicE1000e
from pyuio_drivers.models.e1000e import E1000eCard, connect

import pyuio
import pyuio.model
from pyuio.model import Complaint, clock

MAC, OTHER_MAC, TYPE = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\x88\xb5"
BROADCAST = b"\xff" * 6
OVERRUN = ENTRIES + 500  # frames: more than the ring and the card's memory hold


class LineCard(E1000eCard):
    """Has the interrupt line only."""

    msix_vectors = 0


WAYS = [(E1000eCard, False), (E1000eCard, True), (LineCard, True)]


class SlowCard(E1000eCard):
    """Fetches a descriptor each 0.9 s."""

    _left, _is_busy = 0, False

    def _begin_to_send(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self.after(0.9, self._fetch_one)

    def _fetch_one(self) -> None:
        self._left, self._is_busy = 1, False
        self._send()
        if not self._left:  # it has fetched one, and there may be more
            self._begin_to_send()

    def _may_send(self) -> bool:
        return super()._may_send() and self._left > 0

    def _fetch(self, address: int, command: int) -> None:
        self._left -= 1
        super()._fetch(address, command)


class FloodedCard(E1000eCard):
    """Gets frames with wrong checksums as fast as the driver takes them; at last the flood ends."""

    flood = 8 * ENTRIES

    def on_write_rdt(self, value: int) -> None:
        super().on_write_rdt(value)
        for _ in range(min(self.flood, ENTRIES // 8)):
            self.flood -= 1
            self.arrive(udp_frame(wrong=True))


@pytest.fixture
def model() -> E1000eCard:
    return E1000eCard(MAC)


@pytest.fixture
def nic(model: E1000eCard) -> Iterator[E1000e]:
    with E1000e(pyuio.model.open(model), vlan=True) as opened:
        yield opened


def frame(size: int = 60, content: int = 0, destination: bytes = MAC) -> bytes:
    return (destination + OTHER_MAC + TYPE + random.Random(content).randbytes(size))[:size]


def udp_frame(*, wrong: bool = False, checksum: int | None = None, fragment: int = 0) -> bytes:
    """Return a frame of IPv4 and UDP; with its checksums unless one is given."""
    pseudo = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack(">BBH", 0, 17, 28)
    udp = struct.pack(">HHHH", 1, 2, 28, 0) + bytes(range(20))
    if checksum is None:
        checksum = internet_checksum(pseudo + udp) ^ wrong
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 48, 7, fragment, 64, 17, 0) + pseudo[:8]
    ip = ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:]
    return MAC + OTHER_MAC + b"\x08\0" + ip + udp[:6] + checksum.to_bytes(2, "big") + udp[8:]


def taken(nic: E1000e, timeout: float = 0.01) -> list[bytes]:
    found: list[bytes] = []
    while frames := nic.receive(64, timeout):
        found += map(bytes, frames)
    return found


def test_the_first_file(model: E1000eCard) -> None:
    with BasicE1000e(pyuio.model.open(model)) as nic:
        assert nic.mac == MAC
        for index in range(ENTRIES + 3):
            nic.send_frame(frame(60 + index, index))
            assert model.sent[-1] == frame(60 + index, index)
            model.arrive(frame(60 + index, index))
            assert nic.receive_frame() == frame(60 + index, index)
        with pytest.raises(TimeoutError, match=r"receiving a frame: 0\.01 s"):
            nic.receive_frame(0.01)
        model.paused = True
        with pytest.raises(TimeoutError, match=r"sending a frame: 0\.01 s"):
            nic.send_frame(frame(), 0.01)
        for wrong in (bytes(13), bytes(1519)):
            with pytest.raises(ValueError, match="14 to 1518"):
                nic.send_frame(wrong)


def test_no_frame_is_lost_when_the_first_file_finds_the_ring_full(model: E1000eCard) -> None:
    with BasicE1000e(pyuio.model.open(model)) as nic:

        def fill() -> None:
            model.paused = True
            for index in range(ENTRIES + 3):
                with pytest.raises(TimeoutError, match="sending a frame"):
                    nic.send_frame(frame(60, index), 0)

        fill()
        model.paused = False
        model.set_link(True)
        clock.sleep(0.01)
        assert model.sent == [frame(60, index) for index in range(ENTRIES - 1)]
        nic.send_frame(frame(61))
        assert model.sent[-1] == frame(61)
        fill()
        nic.reset()
        nic.start()
        model.paused = False
        nic.send_frame(frame(62))
        assert model.sent[ENTRIES:] == [frame(62)]


def test_the_shortest_frames(model: E1000eCard) -> None:
    """The card pads none below 17 bytes, so the driver does, in each way to the ring."""
    for size in (14, 15, 16, 17):
        padded = frame(size).ljust(60, b"\0")
        with BasicE1000e(pyuio.model.open(model)) as basic:
            basic.send_frame(frame(size))
        with E1000e(pyuio.model.open(model), longest=9018) as nic:
            for others in ([], [frame()], [frame(3000)]):
                nic.send([*others, frame(size)])
                nic.flush()
                assert model.sent[-1] == padded
        assert model.sent.count(padded) == 4


@pytest.mark.parametrize(("kind", "by_interrupt"), WAYS)
def test_two_cards_by_a_cable(kind: type[E1000eCard], by_interrupt: bool) -> None:
    models = kind(MAC), kind(OTHER_MAC)
    connect(*models)
    one, other = (E1000e(pyuio.model.open(model), by_interrupt=by_interrupt) for model in models)
    with one, other:
        for number in (1, 2, 127, 128, 129, 200):
            sent = [frame(60 + index % 1459, index, OTHER_MAC) for index in range(number)]
            one.send(sent)
            assert taken(other) == sent
            other.send([each[6:12] + each[:6] + each[12:] for each in sent])
            assert len(taken(one)) == 0, "they are for the second card itself"
        one.send([BROADCAST + frame()[6:]])
        assert len(other.receive(1)) == 1
    assert (models[1].faults.interrupts > 0) == by_interrupt


@pytest.mark.parametrize(("kind", "by_interrupt"), WAYS)
def test_frames_that_come_while_the_driver_sleeps(kind: type[E1000eCard], by_interrupt: bool) -> None:
    model = kind(MAC)
    with E1000e(pyuio.model.open(model), by_interrupt=by_interrupt) as nic:
        for index in range(5):
            model.after(0.1, lambda index=index: model.arrive(frame(60, index)))  # type: ignore[misc]
            start = clock.monotonic()
            assert nic.receive_frame(5) == frame(60, index)
            assert 0.1 <= clock.monotonic() - start < 0.11
        before = model.faults.interrupts
        for index in range(20):
            model.arrive(frame(60, index))
        assert len(taken(nic)) == 20
        assert model.faults.interrupts - before <= 2 * by_interrupt + 2, "one interrupt is enough for many frames"
        assert nic.receive(1, 0.5) == []


def test_one_thread_sends_while_another_receives() -> None:
    """Behind one line, neither takes the other's interrupt from it."""
    model = LineCard(MAC)
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        model.paused = True

        def resume() -> None:
            model.paused = False
            model.set_link(True)

        model.after(0.2, lambda: model.arrive(frame()))
        model.after(0.4, resume)
        model.after(0.6, lambda: model.arrive(frame(61)))
        with ThreadPoolExecutor(1) as executor:
            sending = executor.submit(nic.send, [frame()] * 600, timeout=5.0)
            assert [nic.receive_frame(5), nic.receive_frame(5)] == [frame(), frame(61)]
            sending.result(60)
        nic.flush()
        assert len(model.sent) == 600


WAITS: dict[str, Callable[[E1000e], object]] = {
    "receive": lambda nic: nic.receive(1, None),
    "send": lambda nic: nic.send([frame()] * 1000, timeout=3600),
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize(("kind", "by_interrupt"), WAYS)
def test_close_ends_what_another_thread_waits_for(kind: type[E1000eCard], by_interrupt: bool, wait: str) -> None:
    model = kind(MAC)
    nic = E1000e(pyuio.model.open(model), by_interrupt=by_interrupt)
    model.paused = True
    errors: list[Exception] = []

    def run() -> None:
        try:
            WAITS[wait](nic)
        except pyuio.PyuioError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.05)
    nic.close()
    thread.join(10)
    assert [type(error) for error in errors] == [pyuio.ClosedError]


def test_throttling() -> None:
    model = E1000eCard(MAC)
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        assert nic.irqs
        nic.irqs.throttle(0.01)
        model.arrive(frame())
        assert nic.receive(1)
        start = clock.monotonic()
        model.after(1e-4, lambda: model.arrive(frame()))
        assert nic.receive(1)
        assert clock.monotonic() - start > 0.009


def test_asyncio() -> None:
    model = E1000eCard(MAC)
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        model.after(0.5, lambda: model.arrive(frame()))

        async def receive() -> list[bytes]:
            return [bytes(each) for each in await nic.receive_async(timeout=1)]

        assert asyncio.run(receive()) == [frame()]
        assert asyncio.run(receive()) == []


def test_time_limits_of_sending() -> None:
    """A limit is for the whole call, however often the card fetches something meanwhile."""
    waits: tuple[Callable[[E1000e], object], ...] = (
        lambda nic: nic.flush(1.0),
        lambda nic: nic.send([frame()] * 10, timeout=1.0),
        lambda nic: nic.send([frame()], checksums=InsertChecksums(ip=14, transport=None), timeout=1.0),
        lambda nic: nic.send([frame(2049)] * 2, timeout=1.0),
        lambda nic: nic.send_frame(frame(), 1.0),
    )
    for wait in waits:
        with E1000e(pyuio.model.open(SlowCard(MAC)), longest=9018) as nic:
            for _ in range(ENTRIES - 1):
                nic.send([frame()])
            start = clock.monotonic()
            with pytest.raises(TimeoutError, match="sending"):
                wait(nic)
            assert 0.99 < clock.monotonic() - start < 1.01


@pytest.mark.parametrize("asynchronous", [False, True])
def test_time_limits_of_receiving(asynchronous: bool) -> None:
    def receive(nic: E1000e, timeout: float) -> list[memoryview]:
        return asyncio.run(nic.receive_async(1, timeout)) if asynchronous else nic.receive(1, timeout)

    model = E1000eCard(MAC)
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        for index in range(1, 6):
            model.after(0.8 * index, lambda: model.arrive(udp_frame(wrong=True)))
        start = clock.monotonic()
        assert receive(nic, 1.0) == []
        assert 0.99 < clock.monotonic() - start < 1.01
    for timeout in (0, 5e-6):
        flooded = FloodedCard(MAC)
        with E1000e(pyuio.model.open(flooded), by_interrupt=True) as nic:
            for _ in range(100):
                flooded.arrive(udp_frame(wrong=True))
            assert receive(nic, timeout) == []
            assert 0 < flooded.flood < 7 * ENTRIES


def test_at_least_one_frame(model: E1000eCard) -> None:
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        model.arrive(frame())
        for most in (0, -1):
            for receive in (nic.receive, nic.receive_described, lambda most: asyncio.run(nic.receive_async(most))):
                with pytest.raises(ValueError, match=f"at least 1 frame, not {most}"):
                    receive(most)
        assert taken(nic) == [frame()]


def test_overrun_is_counted(model: E1000eCard, nic: E1000e) -> None:
    for index in range(OVERRUN):
        model.arrive(frame(100, index))
        clock.sleep(1e-5)
    found, counts = taken(nic), nic.statistics.read()
    assert ENTRIES - 1 < len(found) < OVERRUN
    assert found == [frame(100, index) for index in range(len(found))]
    assert counts.missed == OVERRUN - len(found)
    assert counts.no_buffers > 0
    model.arrive(frame())
    assert taken(nic) == [frame()]


def test_a_full_transmit_ring(model: E1000eCard, nic: E1000e) -> None:
    model.paused = True
    with pytest.raises(TimeoutError, match=r"sending: 0\.5 s are over"):
        nic.send([frame(60, index) for index in range(ENTRIES + 10)], timeout=0.5)
    model.paused = False
    model.set_link(False)
    with pytest.raises(TimeoutError, match="the link is down"):
        nic.send([frame()] * ENTRIES, timeout=0.5)
    model.set_link(True)
    nic.flush()
    assert model.sent[: ENTRIES // 2] == [frame(60, index) for index in range(ENTRIES // 2)]
    nic.send([frame(61)])
    nic.flush()
    assert model.sent[-1] == frame(61)


def test_a_half_of_the_ring_is_sent_or_not(model: E1000eCard) -> None:
    """Also one that goes round the end of the ring, and one of long frames."""
    for size, number in ((61, 256), (3000, 128)):
        with E1000e(pyuio.model.open(model), longest=9018) as nic:
            nic.send([frame()] * 100)
            nic.flush()
            model.paused = True
            nic.send([frame()] * 256)
            nic.send([frame()] * 44)
            with pytest.raises(TimeoutError):
                nic.send([frame(size)] * number, timeout=0.1)
            model.paused = False
            model.set_link(True)
            nic.send([frame(size)] * 2 * number)
            nic.flush()
            assert model.sent.count(frame(size)) == 2 * number


def test_reset_loses_what_is_in_the_rings(model: E1000eCard, nic: E1000e) -> None:
    model.paused = True
    nic.send([frame()] * 50)
    model.arrive(frame())
    clock.sleep(0.001)
    nic.reset()
    nic.start()
    model.paused = False
    nic.send([frame(61)])
    nic.flush()
    model.arrive(frame(62))
    assert (model.sent, taken(nic)) == ([frame(61)], [frame(62)])


def test_link(model: E1000eCard) -> None:
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        assert nic.irqs
        changes = nic.irqs.link_changes
        model.after(1, lambda: model.set_link(False))
        assert nic.wait_for_link(up=False)
        assert not nic.link().up
        assert not nic.wait_for_link(0.5)
        model.after(1, lambda: model.set_link(True))
        assert nic.wait_for_link()
        assert nic.irqs.link_changes >= changes + 2
        assert nic.phy.identifier == 0x01410CB1
        nic.phy.restart_autonegotiation()
        assert not nic.link().up
        assert nic.wait_for_link()
        with pytest.raises(PhyError, match="register 9: there is none"):
            nic.phy.read(9)


def test_a_damaged_eeprom(model: E1000eCard) -> None:
    model.eeprom[20] ^= 0x8000
    device = pyuio.model.open(model)
    with pytest.raises(EepromError, match=r"sum of its words is 0x3aba, not 0xbaba; .*mac="):
        E1000e(device)
    with E1000e(device, mac=OTHER_MAC) as nic:
        model.arrive(frame(60, 0, OTHER_MAC))
        model.arrive(frame(60, 0, MAC))
        assert taken(nic) == [frame(60, 0, OTHER_MAC)]


def test_bad_arguments(model: E1000eCard) -> None:
    with pyuio.model.open(model) as device:
        with pytest.raises(ValueError, match="no multicast address"):
            E1000e(device, mac=BROADCAST)
        with pytest.raises(ValueError, match="1518 to 9018"):
            E1000e(device, longest=9019)
        nic = E1000e(device)
        with pytest.raises(ValueError, match="vlan=True"):
            nic.send([frame()], vlan=1)
        with pytest.raises(ValueError, match="6 bytes, not 5"):
            nic.filters.unicast([bytes(5)])
        with pytest.raises(ValueError, match="15 more addresses, not with 16"):
            nic.filters.unicast([MAC] * 16)


def test_an_eeprom_that_does_not_answer(model: E1000eCard) -> None:
    model.eeprom.clear()
    model.eeprom += [0] * 3
    device = pyuio.model.open(model)
    with device, pytest.raises(EepromError, match="its EEPROM: word 0x3 was not read"):
        E1000e(device)


@pytest.mark.parametrize("tcp", [False, True])
def test_inserted_checksums(model: E1000eCard, nic: E1000e, tcp: bool) -> None:
    """The card does what the context descriptor says; QEMU's finds the headers by itself."""
    payload, place = bytes(range(33)), 16 if tcp else 6
    head = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 5 << 4, 2, 5, 0, 0) if tcp else struct.pack(">HHHH", 1, 2, 41, 0)
    size = len(head) + len(payload)
    pseudo = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack(">BBH", 0, 6 if tcp else 17, size)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 7, 0, 64, 6 if tcp else 17, 0) + pseudo[:8]
    seed = (~internet_checksum(pseudo) & 0xFFFF).to_bytes(2, "big")
    sent = MAC + OTHER_MAC + b"\x08\0" + ip + head[:place] + seed + head[place + 2 :] + payload
    nic.send([sent] * 3, checksums=InsertChecksums(ip=14, transport=34, tcp=tcp), vlan=7)
    nic.flush()
    (found,) = set(model.sent)
    assert found[12:16] == b"\x81\0\0\x07"
    assert internet_checksum(found[18:38]) == 0
    assert internet_checksum(pseudo + found[38:]) == 0
    model.arrive(found)
    model.arrive(found[:-1] + b"\xee")
    good, bad = nic.receive_described(2)
    assert (good.ip_good, good.transport_good, good.vlan) == (True, True, 7)
    assert (bad.ip_good, bad.transport_good) == (True, False)
    model.arrive(found[:-1] + b"\xee")
    assert taken(nic) == []
    assert nic.receive_counts.bad_checksums == 1


def test_the_ip_checksum_alone(model: E1000eCard, nic: E1000e) -> None:
    complete = udp_frame()
    sent = complete[:24] + b"\0\0" + complete[26:]
    nic.send([sent], checksums=InsertChecksums(ip=14, transport=None))
    nic.flush()
    assert model.sent == [complete.ljust(60, b"\0")]


def test_offsets_that_the_card_cannot_take(model: E1000eCard, nic: E1000e) -> None:
    for ip, transport, tcp, right in (
        (246, None, False, "0 to 245, not 246"),
        (-1, None, False, "0 to 245, not -1"),
        (None, 250, False, "0 to 249, not 250"),
        (14, 240, True, "34 to 239, not 240"),
        (14, 33, False, "34 to 249, not 33"),
    ):
        with pytest.raises(ValueError, match=right):
            nic.send([frame()], checksums=InsertChecksums(ip, transport, tcp))
    nic.flush()
    assert model.sent == []
    for checksums in (InsertChecksums(245, None), InsertChecksums(None, 249), InsertChecksums(14, 239, tcp=True)):
        nic.send([frame(300)], checksums=checksums)


def test_checksums_that_are_not_checked(model: E1000eCard, nic: E1000e) -> None:
    """Part of a datagram has no checksum of its own, and 0 in UDP says that there is none."""
    for arrives in (udp_frame(checksum=0), udp_frame(checksum=5, fragment=0x2000), udp_frame(checksum=5, fragment=9)):
        model.arrive(arrives)
        (found,) = nic.receive_described(1, 0.01)
        assert (bytes(found.frame), found.ip_good, found.transport_good) == (arrives, True, None)
    for cut in (udp_frame()[:14], udp_frame()[:33]):
        model.arrive(cut)
        (found,) = nic.receive_described(1, 0.01)
        assert (bytes(found.frame), found.ip_good, found.transport_good) == (cut, None, None)


@pytest.mark.parametrize("longest", [1518, 9018])
def test_the_longest_frames_with_a_tag(longest: int) -> None:
    models = E1000eCard(MAC), E1000eCard(OTHER_MAC)
    connect(*models)
    one, other = (E1000e(pyuio.model.open(model), longest=longest, vlan=True) for model in models)
    with one, other:
        sent = frame(longest - 4, 0, OTHER_MAC)
        for frames in ([sent], [sent] * 2):
            one.send(frames, vlan=5)
            one.flush()
            found = [each for _ in frames for each in other.receive_described(1, 0.01)]
            assert [(bytes(each.frame), each.vlan) for each in found] == [(sent, 5)] * len(frames)
        with pytest.raises(ValueError, match=f"14 to {longest - 4} bytes, not {longest - 3}"):
            one.send([sent + b"x"], vlan=5)
        one.send([sent + b"tail"])


def test_long_frames(model: E1000eCard) -> None:
    with E1000e(pyuio.model.open(model), longest=9018) as nic:
        for size in (2048, 2049, 4096, 9018, 60) * 100:  # twice round the ring
            nic.send([frame(size, size)])
            nic.flush()
            assert model.sent[-1] == frame(size, size)
            model.arrive(frame(size, size))
            assert taken(nic) == [frame(size, size)]


def test_removal(model: E1000eCard, nic: E1000e) -> None:
    model.after(0.5, model.remove)
    with pytest.raises(pyuio.DeviceRemovedError):
        nic.receive(1, 5)
    with pytest.raises(pyuio.DeviceRemovedError):
        nic.send([frame()] * 1000)
    with pytest.raises(pyuio.DeviceRemovedError):
        collections.deque((nic.receive(1, 0) for _ in range(10_000)), maxlen=0)


def test_removal_while_it_sleeps(model: E1000eCard) -> None:
    with E1000e(pyuio.model.open(model), by_interrupt=True) as nic:
        model.after(0.5, model.remove)
        with pytest.raises(pyuio.DeviceRemovedError):
            nic.receive(1, None)


def test_the_model_complains(model: E1000eCard, nic: E1000e) -> None:
    with pytest.raises(Complaint, match="TDT is 512, and the ring has 512"):
        nic.registers.tdt.write(ENTRIES)
    with pytest.raises(Complaint, match="RDT is 556"):
        nic.registers.rdt.write(ENTRIES + 44)
    model.complaints.clear()


def test_the_checksum() -> None:
    # RFC 1071, section 3: an example.
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert internet_checksum(b"\x01") == 0xFEFF
    assert internet_checksum(b"") == 0xFFFF
