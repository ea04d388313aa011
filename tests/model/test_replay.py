# SPDX-License-Identifier: MIT
"""Recording what a driver does on a card, and replaying it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.edu import EduCard

import pyuio.model
from pyuio.interrupt import Interrupt
from pyuio.model import Card, Replay, ReplayDifference
from pyuio.registers import Array, Field, Memory, Register, RegisterMap


def drive(edu: Edu, number: int = 5) -> None:
    assert edu.factorial_by_interrupt(number) == [1, 1, 2, 6, 24, 120, 720][number]
    edu.to_device(b"abc" * 100, by_interrupt=True)
    with pytest.raises(TimeoutError):
        edu.wait_for_interrupt(0.5)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    device = pyuio.model.open(EduCard())
    device.trace_registers(Edu.register_maps, file=tmp_path / "edu.trace")
    with Edu(device) as edu:
        drive(edu)
    return tmp_path / "edu.trace"


def test_a_driver_that_does_the_same_gets_the_same(recording: Path) -> None:
    replay = Replay(recording)
    assert (replay.vendor, replay.device, replay.function.bars[0].size) == (0x1234, 0x11E8, 1 << 20)
    with Edu(pyuio.model.open(replay)) as edu:
        drive(edu)
    replay.check()


def test_addresses_of_buffers_may_differ(recording: Path) -> None:
    text = recording.read_text()
    address = next(line.split()[1] for line in text.splitlines() if line.startswith("dma "))
    moved = int(address, 16) + 0x10_0000
    recording.write_text(text.replace(f"{int(address, 16):016x}", f"{moved:016x}").replace(address, f"{moved:#x}"))
    replay = Replay(recording)
    with Edu(pyuio.model.open(replay)) as edu:
        drive(edu)
    replay.check()


def test_another_value_is_shown_by_name(recording: Path) -> None:
    replay = Replay(recording)
    with pytest.raises(ReplayDifference) as caught, Edu(pyuio.model.open(replay)) as edu:
        drive(edu, 6)
    shown = str(caught.value).splitlines()
    assert "-bar0 write32 0x008 factorial = 0x00000005" in shown
    assert "+bar0 write32 0x008 factorial = 0x00000006" in shown
    assert any("edu.py" in line and "registers.factorial.write(n)" in line for line in shown)


def left_out(edu: Edu) -> None:
    edu.factorial_by_interrupt(5)


def one_more(edu: Edu) -> None:
    drive(edu)
    edu.liveness(1)


@pytest.mark.parametrize(("change", "shown"), [(left_out, "status"), (one_more, "+bar0 write32 0x004")])
def test_accesses_left_out_and_added_are_told(recording: Path, change: Callable[[Edu], None], shown: str) -> None:
    with pytest.raises(ReplayDifference) as caught, Edu(pyuio.model.open(Replay(recording))) as edu:
        change(edu)
    assert shown in str(caught.value)


def test_what_the_driver_did_not_come_to_is_told(recording: Path) -> None:
    replay = Replay(recording)
    device = pyuio.model.open(replay)
    assert device.bar(0).read32(0) == 0x0100_00ED
    device.close()
    with pytest.raises(ReplayDifference, match="has not done"):
        replay.check()


class MemoryCard(Card):
    """A card without registers, whose BAR is memory, not all 0."""

    vendor, device, bars = 1, 2, {0: 64}

    def reset(self) -> None:
        super().reset()
        self.write_bar(0, 0x10, 2, 0x2001)
        self.write_bar(0, 0x18, 4, 1)


def use_halves(device: pyuio.Device) -> tuple[int, list[int]]:
    """Return the address of a buffer, and what was read."""
    bar = device.bar(0)
    with device.dma.alloc(64) as buffer:
        bar.write32(0, buffer.address & 0xFFFF_FFFF)
        bar.write32(4, buffer.address >> 32)
        bar.write64(8, buffer.address)
        bar.write32(0x20, 1)
        read = [bar.read16(0x10), bar.read32(0x18), bar.read32(0x20)]
        return buffer.address, [*read, *map(bar.read32, (0, 4, 8, 12)), bar.read64(0)]


def test_only_what_is_an_address_moves(tmp_path: Path) -> None:
    device = pyuio.model.open(MemoryCard)
    device.trace_registers(file=tmp_path / "trace")
    with device:
        address = use_halves(device)[0]
    # As if the recorded buffer had been above 4 GiB: its high half is 1, and its low 16 bits are 0x2000.
    before, text = address + 0x1_0000_2000, (tmp_path / "trace").read_text()
    for digits in ("016x", "08x", "x"):
        text = text.replace(
            f"0x{address:{digits}}", f"0x{before & 0xFFFF_FFFF if digits == '08x' else before:{digits}}"
        )
    for place in ("write32 0x004", "read32 0x004", "read32 0x00c"):
        text = text.replace(f"{place} = 0x00000000", f"{place} = 0x00000001")
    (tmp_path / "trace").write_text(text)
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as again:
        address, read = use_halves(again)
    assert read == [0x2001, 1, 1, address, 0, address, 0, address]
    replay.check()


class Wide(Register):
    low = Field(3, 0)
    high = Field(31, 28)


class Channel(RegisterMap):
    count = Register(0, width=16)


class Everything(RegisterMap):
    wide = Wide(0)
    channel = Array(Channel.at(0x10), 2)
    words = Memory(Register(0x20), 8)


class EverythingCard(Card):
    vendor, device, bars, msix_vectors = 1, 2, {0: 64, 2: 16}, 3
    registers = {0: Everything}  # noqa: RUF012

    def on_write_wide(self, value: int) -> None:
        self.raise_interrupt(2)
        self.raise_interrupt(2)


def use_everything(device: pyuio.Device) -> None:
    vectors = device.vectors(3)
    registers = Everything(device.bar(0))
    registers.wide.high = 5
    assert vectors[2].read(1) == 2
    device.bar(0).set32(0, 1)
    with pytest.raises(TypeError):
        device.bar(0).set32(0, "1")  # type: ignore[arg-type]
    assert vectors[2].read(1) == 2
    registers.channel[1].count.write(7)
    registers.words.write(0, bytes(range(32)))
    assert registers.words.read(4, 4) == bytes([4, 5, 6, 7])
    device.bar(2).write8(3, 9)
    assert device.bar(2).read32(0) == 0x09000000
    with device.dma.alloc(64) as buffer:
        registers.wide.write(buffer.address & 0xFFFF_FFFF)
    with pytest.raises(TimeoutError):
        vectors[1].read(0)


def test_changes_runs_arrays_and_vectors_replay(tmp_path: Path) -> None:
    device = pyuio.model.open(EverythingCard)
    device.trace_registers({0: Everything}, file=tmp_path / "trace")
    with device:
        use_everything(device)
    assert "bar0 write16 0x012 channel[1].count = 0x0007" in (tmp_path / "trace").read_text()
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as again:
        use_everything(again)
    replay.check()


def use_big_endian(device: pyuio.Device) -> None:
    big, little = device.bar(2, endian="big"), device.bar(2)
    big.write32(0, 0x01020304)
    assert big.read16(0) == 0x0102
    assert little.read32(0, endian="big") == 0x01020304
    assert little.read(0, 4) == big.read(0, 4) == bytes([1, 2, 3, 4])
    big.set32(0, 0xF0)
    little.write16(4, 0x0506, endian="big")
    big.write(8, bytes(range(8)))
    with pytest.raises(ValueError, match="0x100000000"):
        big.write32(0, 1 << 32)
    assert little.read32(0) == 0xF4030201
    little.write32(0, 0x01020304, endian="little")


def test_accesses_in_the_other_byte_order_replay(tmp_path: Path) -> None:
    """The recording has what was on the bus."""
    device = pyuio.model.open(EverythingCard)
    device.trace_registers(file=tmp_path / "trace")
    with device:
        use_big_endian(device)
    assert "bar2 write32 0x000 = 0x04030201" in (tmp_path / "trace").read_text()
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as again:
        use_big_endian(again)
    replay.check()


class FourCard(EverythingCard):
    msix_vectors = 4


class FourMsiCard(EverythingCard):
    msi_vectors, msix_vectors = 4, 0


class OneCard(EverythingCard):
    msix_vectors = 1

    def on_write_wide(self, value: int) -> None:
        self.raise_interrupt()


class OneMsiCard(OneCard):
    msi_vectors, msix_vectors = 1, 0


class PinlessCard(OneCard):
    interrupt_pin = 0


def third_of_four(device: pyuio.Device) -> Interrupt:
    return device.vectors(4)[2]


def only_vector(device: pyuio.Device) -> Interrupt:
    return device.vectors(1)[0]


def usual(device: pyuio.Device) -> Interrupt:
    return device.interrupt


@pytest.mark.parametrize(
    ("card", "enable", "line"),
    [
        (FourCard, third_of_four, "vectors 4 MSI-X"),
        (FourMsiCard, third_of_four, "vectors 4 MSI"),
        (OneCard, only_vector, "vectors 1 MSI-X"),
        (OneMsiCard, only_vector, "vectors 1 MSI"),
        (PinlessCard, usual, "vectors 1 MSI-X"),
    ],
)
def test_vectors_replay_also_those_that_were_never_read(
    tmp_path: Path, card: type[Card], enable: Callable[[pyuio.Device], Interrupt], line: str
) -> None:
    def use(device: pyuio.Device) -> tuple[str | None, int]:
        interrupt = enable(device)
        device.bar(0).write32(0, 1)
        device.bar(2).read32(0)
        device.bar(0).write32(0, 1)
        return interrupt.kind, interrupt.read(1)

    device = pyuio.model.open(card)
    device.trace_registers(file=tmp_path / "trace")
    with device:
        before = use(device)
    assert line in (tmp_path / "trace").read_text().splitlines()
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as again:
        assert use(again) == before
    replay.check()


def test_a_recording_without_the_line_for_vectors_replays(tmp_path: Path) -> None:
    """As pyuio wrote it at first."""
    test_changes_runs_arrays_and_vectors_replay(tmp_path)
    text = (tmp_path / "trace").read_text()
    (tmp_path / "trace").write_text(text.replace("vectors 3 MSI-X\n", ""))
    with pyuio.model.open(Replay(tmp_path / "trace")) as again:
        use_everything(again)


BEGIN = "pyuio trace 1\ndevice 1234:5678 class 0x000000\n"


@pytest.mark.parametrize(
    ("enable", "text"),
    [
        (usual, "interrupt = 1\n"),
        (only_vector, "vectors 1 MSI-X\nvector0 = 1\n"),
        (only_vector, "vectors 1 MSI\nvector0 = 1\n"),
        (third_of_four, "vectors 4 MSI\nvector2 = 1\n"),
    ],
)
@pytest.mark.parametrize("before", ["", "bar0 read8 0x000 = 0x05\n"], ids=["first", "after an access"])
def test_an_interrupt_comes_although_it_is_enabled_after_the_last_access(
    tmp_path: Path, enable: Callable[[pyuio.Device], Interrupt], text: str, before: str
) -> None:
    text = f"{BEGIN}bar0 memory 0x10\n{before}{text}bar0 read8 0x001 = 0x06\n"
    (tmp_path / "trace").write_text(text)
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as device:
        if before:
            assert device.bar(0).read8(0) == 5
        interrupt = enable(device)
        assert interrupt.read(1) == 1
        assert device.bar(0).read8(1) == 6
        with pytest.raises(TimeoutError):
            interrupt.read(1)
    replay.check()


def test_a_large_bar_replays(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(f"{BEGIN}bar0 memory 0x400000000\nbar0 read8 0x3ffffffff = 0x05\n")
    replay = Replay(tmp_path / "trace")
    with pyuio.model.open(replay) as device:
        assert device.bar(0).read8(0x3_FFFF_FFFF) == 5
    replay.check()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no recording"),
        ("hello\n", "no recording"),
        ("pyuio trace 1\n", "which device"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 read32 zero\n", "line 3: not a line"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 read8 0x000 = 0x100\n", "line 3: not a line"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 read8 0x000 \x1b]0;x\x07 = 0x1\n", "line 3: not a line"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 read32 0x000 = 0x0123", "line 3: not a line"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nvectors 4", "line 3: not a line"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nvectors 129 MSI-X\n", "msix_vectors"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nvectors 33 MSI\n", "msi_vectors"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 memory 0x3\n", "power of two"),
        ("pyuio trace 1\ndevice 1234:5678 class 0x000000\nbar0 memory 0x10\nvector999 = 1\n", "msix_vectors"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(ValueError, match=said):
        Replay(tmp_path / "bad")


def test_a_recording_that_cannot_be_written_leaves_the_device_as_it_is(tmp_path: Path) -> None:
    with pyuio.model.open(EduCard) as device:
        with pytest.raises(FileNotFoundError):
            device.trace_registers(file=tmp_path / "none/trace")
        assert Edu(device).liveness(1) == 0xFFFF_FFFE
