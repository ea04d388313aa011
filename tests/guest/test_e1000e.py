# SPDX-License-Identifier: MIT
"""The driver of the Intel 82574L, on two cards that QEMU joins by a hub: what one sends, the other receives."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Iterator

import pytest
from pyuio_drivers.e1000e import E1000e, E1000eError, EepromError, InsertChecksums, PhyError, internet_checksum
from pyuio_drivers.e1000e.basic import ENTRIES, BasicE1000e
from pyuio_drivers.e1000e.registers import E1000eRegisters, EepromRead

import pyuio
from tests.guest.support import DRIVER, PATIENCE

TYPE = b"\x88\xb5"  # of an experiment: IEEE 802, section 9.2.3
GROUP, OTHER_GROUP, STRANGER = (bytes.fromhex(text) for text in ("01005e0000fb", "01005e000001", "525400000077"))
Pair = tuple[E1000e, E1000e]


opened: list[pyuio.Device] = []
"""The two cards, which the tests share: to open one takes a second under emulation."""
pairs: dict[bool, Pair] = {}
"""The drivers on them, by whether they interrupt."""
last_used: list[tuple[bool, int] | None] = [None]
"""Which of them the last test used, and how many tests had failed by then."""


@pytest.fixture(scope="module")
def devices(network_cards: list[str]) -> Iterator[list[pyuio.Device]]:
    opened.extend(pyuio.open(address, bind=DRIVER) for address in network_cards)
    yield opened
    pairs.clear()
    while opened:
        opened.pop().close()


def driven(request: pytest.FixtureRequest, devices: list[pyuio.Device], by_interrupt: bool) -> Pair:
    """Return drivers of both cards, which are reset where another test used the others, or failed."""
    if by_interrupt not in pairs:
        first, second = (E1000e(device, by_interrupt=by_interrupt, vlan=True) for device in devices)
        pairs[by_interrupt] = first, second
    state = by_interrupt, request.session.testsfailed
    if last_used[0] != state:
        last_used[0] = state
        for nic in pairs[by_interrupt]:
            nic.filters.vlans(None)
            nic.reset()
            nic.start()
    return pairs[by_interrupt]


@pytest.fixture(
    scope="module", params=[pytest.param(False, marks=pytest.mark.long), True], ids=["polling", "interrupt"]
)
def by_interrupt(request: pytest.FixtureRequest) -> bool:
    """Let pytest run all tests that poll, then those that sleep."""
    return bool(request.param)


@pytest.fixture
def pair(request: pytest.FixtureRequest, devices: list[pyuio.Device], by_interrupt: bool) -> Pair:
    return driven(request, devices, by_interrupt)


@pytest.fixture
def polling(request: pytest.FixtureRequest, devices: list[pyuio.Device]) -> Pair:
    return driven(request, devices, by_interrupt=False)


def frame(sender: E1000e, destination: bytes, size: int = 60, content: int = 0) -> bytes:
    """Return a frame of so many bytes, whose content differs by `content`."""
    return (destination + sender.mac + TYPE + random.Random(content).randbytes(size))[:size]


def received(nic: E1000e, number: int) -> list[bytes]:
    """Return so many frames, and check that no more come."""
    found: list[bytes] = []
    while len(found) < number:
        frames = nic.receive(64, PATIENCE)
        assert frames, f"{len(found)} frames came, and {number} should"
        found += map(bytes, frames)
    assert not nic.receive(64, 0)
    assert len(found) == number
    return found


def test_single_frames_by_the_first_file(devices: list[pyuio.Device]) -> None:
    last_used[0] = None
    first, second = (BasicE1000e(device) for device in devices)
    assert first.mac != second.mac
    for index in range(ENTRIES + 10):
        sent = second.mac + first.mac + TYPE + index.to_bytes(2, "big") * (25 + index)
        first.send_frame(sent)
        assert second.receive_frame() == sent
    second.send_frame(first.mac + second.mac + TYPE)
    assert first.receive_frame() == (first.mac + second.mac + TYPE).ljust(60, b"\0")
    with pytest.raises(TimeoutError, match="receiving a frame"):
        first.receive_frame(0.01)
    with pytest.raises(ValueError, match="14 to 1518"):
        first.send_frame(bytes(1519))


def test_every_size_both_ways(pair: Pair) -> None:
    for one, other in (pair, pair[::-1]):
        sizes = [*range(14, 130), *range(130, 1518, 77), 1517, 1518]
        sent = [frame(one, other.mac, size, size) for size in sizes]
        one.send(sent)
        assert received(other, len(sent)) == [each.ljust(60, b"\0") for each in sent]


@pytest.mark.parametrize("number", [1, 200, *(pytest.param(number, marks=pytest.mark.long) for number in (63, 129))])
def test_batches_round_the_ring(pair: Pair, number: int) -> None:
    one, other = pair
    for turn in range(3):
        sent = [frame(one, other.mac, 60 if turn else 60 + index % 50, index) for index in range(number)]
        one.send([memoryview(each) for each in sent])
        assert received(other, number) == sent


def test_a_view_is_valid_until_the_next_call(polling: Pair) -> None:
    one, other = polling
    sent = [frame(one, other.mac, 60, index) for index in range(3 * ENTRIES)]
    for start in range(0, len(sent), 48):
        one.send(sent[start : start + 48])
        first = other.receive(48)
        one.send(sent[:20])  # into other descriptors than those of `first`
        assert [bytes(view) for view in first] == sent[start : start + len(first)]
        while other.receive(64, 0):
            pass


def test_more_than_the_ring_holds(pair: Pair) -> None:
    """Nobody takes the frames: QEMU keeps what finds no descriptor, a card drops and counts it. None comes twice."""
    one, other = pair
    before = other.statistics.read().missed
    sent = [frame(one, other.mac, 100, index) for index in range(2 * ENTRIES + 88)]
    one.send(sent)
    one.flush()
    found: list[bytes] = []
    while frames := other.receive(64, 0.3):
        found += map(bytes, frames)
    missed = other.statistics.read().missed - before
    assert len(found) + missed == len(sent)
    assert found == sent or (missed and set(found) < set(sent))


def test_nothing_comes(pair: Pair) -> None:
    assert pair[0].receive(64, 0) == []
    assert pair[0].receive(64, 0.02) == []
    with pytest.raises(TimeoutError):
        pair[0].receive_frame(0.01)


def test_filters(polling: Pair) -> None:
    one, other = polling

    def passes(destination: bytes) -> bool:
        one.send([frame(one, destination), frame(one, other.mac, 61)])
        sizes = [len(each) for each in (bytes(each) for each in other.receive(1, PATIENCE))]
        if sizes == [60]:
            assert len(other.receive_frame(PATIENCE)) == 61
        return sizes == [60]

    assert passes(b"\xff" * 6)
    assert not passes(STRANGER)
    assert not passes(GROUP)
    other.filters.unicast([STRANGER])
    assert passes(STRANGER)
    other.filters.unicast([])
    assert not passes(STRANGER)
    other.filters.multicast({GROUP})
    assert passes(GROUP)
    assert not passes(OTHER_GROUP)
    other.filters.promiscuous(False, all_multicast=True)
    assert passes(OTHER_GROUP)
    assert not passes(STRANGER)
    other.filters.promiscuous(True)
    assert passes(STRANGER)
    other.reset()
    other.start()
    assert passes(STRANGER), "a reset does not change the filters"
    other.filters.promiscuous(False)
    other.filters.multicast(())
    assert not passes(GROUP)


def test_vlan_tags(polling: Pair) -> None:
    one, other = polling
    sent = frame(one, other.mac, 100)
    one.send([sent], vlan=0x6005)
    (found,) = other.receive_described(1, PATIENCE)
    assert (bytes(found.frame), found.vlan) == (sent, 0x6005)
    other.filters.vlans({5, 4095})
    one.send([sent], vlan=6)
    one.send([sent], vlan=4095)
    one.send([sent])
    assert [each.vlan for _ in range(2) for each in other.receive_described(1, PATIENCE)] == [4095, None]
    for wrong in (-1, 1 << 16):
        with pytest.raises(ValueError, match="0 to 65535"):
            one.send([sent], vlan=wrong)
    with pytest.raises(ValueError, match="0 to 4095"):
        other.filters.vlans({4096})
    other.filters.vlans(None)


def ip_frame(one: E1000e, other: E1000e, tcp: bool, *, complete: bool) -> bytes:
    """Return a frame of IPv4 with UDP or TCP, with its checksums, or ready for the card to insert them."""
    payload = bytes(range(41))
    size = (20 if tcp else 8) + len(payload)
    pseudo = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + struct.pack(">BBH", 0, 6 if tcp else 17, size)
    if tcp:
        transport = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 0, 5 << 4, 2, 100, 0, 0) + payload
    else:
        transport = struct.pack(">HHHH", 1000, 2000, size, 0) + payload
    place = 16 if tcp else 6
    checksum = internet_checksum(pseudo + transport) if complete else ~internet_checksum(pseudo) & 0xFFFF
    transport = transport[:place] + checksum.to_bytes(2, "big") + transport[place + 2 :]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 7, 0, 64, 6 if tcp else 17, 0) + pseudo[:8]
    if complete:
        ip = ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:]
    return other.mac + one.mac + b"\x08\x00" + ip + transport


@pytest.mark.parametrize("tcp", [False, True], ids=["UDP", "TCP"])
def test_checksums(polling: Pair, tcp: bool) -> None:
    one, other = polling
    right = ip_frame(one, other, tcp, complete=True)
    insert = InsertChecksums(ip=14, transport=34, tcp=tcp)
    for _ in range(3):
        one.send([ip_frame(one, other, tcp, complete=False)] * 2, checksums=insert)
        one.send([right])
        assert received(other, 3) == [right] * 3
    one.send([right])
    (found,) = other.receive_described(1, PATIENCE)
    assert (found.ip_good, found.transport_good) == (True, True)
    before = other.receive_counts.bad_checksums
    damaged = [right[:24] + b"\0\0" + right[26:], right[:-1] + b"\xff"]
    one.send([*damaged, right])
    assert received(other, 1) == [right]
    assert other.receive_counts.bad_checksums == before + 2
    one.send(damaged)
    found_damaged = [each for _ in range(2) for each in other.receive_described(1, PATIENCE)]
    assert [(each.ip_good, each.transport_good) for each in found_damaged] == [(False, True), (True, False)]


def test_long_frames(devices: list[pyuio.Device], polling: Pair) -> None:
    one, other = polling
    before = other.statistics.read().oversize
    one.longest = 9018
    try:
        sent = [frame(one, other.mac, size, size) for size in (9018, 60, 2049, 2048, 4096, 1523)]
        one.send(sent)
        assert received(other, 1) == [sent[1]], "a card drops what is longer than its buffers"
        assert other.statistics.read().oversize == before + 5
        other.longest = 9018
        other.reset()
        other.start()
        for _ in range(ENTRIES // 10):
            one.send(sent)
            assert received(other, len(sent)) == sent
        with pytest.raises(ValueError, match="14 to 9018 bytes, not 9019"):
            one.send([bytes(9019)])
    finally:
        one.longest = other.longest = 1518
        last_used[0] = None


def test_bad_frames_are_not_sent(polling: Pair) -> None:
    one, other = polling
    for wrong in (bytes(13), bytes(1519), b""):
        with pytest.raises(ValueError, match=f"14 to 1518 bytes, not {len(wrong)}"):
            one.send([frame(one, other.mac), wrong])
    with pytest.raises(TypeError):
        one.send(["text"])  # type: ignore[list-item]
    one.send([])
    one.send([memoryview(frame(one, other.mac, 64)).cast("Q")])
    assert received(other, 1) == [frame(one, other.mac, 64)]


def test_statistics(polling: Pair) -> None:
    one, other = polling
    before = one.statistics.read(), other.statistics.read()
    one.send([frame(one, other.mac)] * 5 + [frame(one, b"\xff" * 6)] * 2)
    received(other, 7)
    sent, got = one.statistics.read(), other.statistics.read()
    assert sent.transmitted - before[0].transmitted == 7
    assert got.received - before[1].received == 7
    assert got.received_octets - before[1].received_octets == 7 * 64
    assert got.broadcasts_received - before[1].broadcasts_received == 2


def test_link(pair: Pair) -> None:
    one, other = pair
    assert one.wait_for_link()
    assert one.link() == (True, 1000, True)
    assert one.phy.identifier == 0x01410CB1
    with pytest.raises(PhyError, match="register 31: there is none"):
        one.phy.read(31)
    changes = one.irqs.link_changes if one.irqs else 0
    one.phy.restart_autonegotiation()
    assert not one.link().up
    assert one.wait_for_link(PATIENCE)
    assert one.irqs is None or one.irqs.link_changes > changes
    other.send([frame(other, one.mac)])
    assert received(one, 1) == [frame(other, one.mac)]


@pytest.mark.parametrize("by_interrupt", [True], ids=["interrupt"], indirect=True, scope="module")
def test_throttling(pair: Pair) -> None:
    one, other = pair
    assert other.irqs is not None
    other.irqs.throttle(0.001)
    for index in range(5):
        one.send([frame(one, other.mac, 60, index)])
        assert received(other, 1) == [frame(one, other.mac, 60, index)]
    with pytest.raises(ValueError, match="0 to"):
        other.irqs.throttle(1)
    other.irqs.throttle(0)


def test_asyncio(pair: Pair) -> None:
    one, other = pair
    if other.irqs is None:
        with pytest.raises(E1000eError, match="by_interrupt=True"):
            asyncio.run(other.receive_async())
        return

    async def echo() -> int:
        for index in range(10):
            for each in await other.receive_async():
                assert each[-1] == index
                other.send([one.mac + other.mac + bytes(each[12:])])
        return 10

    async def ask() -> list[bytes]:
        answers = []
        for index in range(10):
            one.send([frame(one, other.mac, 59) + bytes([index])])
            answers += [bytes(each) for each in await one.receive_async(timeout=PATIENCE)]
        return answers

    async def both() -> tuple[int, list[bytes]]:
        return await asyncio.gather(echo(), ask())

    _, answers = asyncio.run(both())
    assert [answer[-1] for answer in answers] == [*range(10)]
    assert asyncio.run(other.receive_async(timeout=0.01)) == []


def test_a_damaged_eeprom(devices: list[pyuio.Device]) -> None:
    last_used[0] = None
    registers = E1000eRegisters(devices[0].bar(0))
    mac = E1000e(devices[0]).mac

    def change_word(address: int) -> None:
        registers.eerd.write(EepromRead.value(start=True, addr=address))
        word = registers.eerd.poll(lambda eerd: eerd.done, PATIENCE).data ^ 0x100
        registers.eewr.write(word << 16 | EepromRead.mask("start") | address << 2)

    change_word(0x10)
    try:
        with pytest.raises(EepromError, match=r"is damaged.*mac="):
            E1000e(devices[0])
        nic, other = E1000e(devices[0], mac=STRANGER), E1000e(devices[1])
        other.send([frame(other, STRANGER), frame(other, mac)])
        assert received(nic, 1) == [frame(other, STRANGER)]
    finally:
        change_word(0x10)
    assert E1000e(devices[0]).mac == mac
