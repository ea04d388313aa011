# SPDX-License-Identifier: MIT
"""What is known of a device's presence, and what its registers then do. Real devices go in tests/vm/test_removal.py."""

from __future__ import annotations

import errno
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyuio import Field, Register, RegisterMap, errors
from pyuio._native._access import Presence, Window
from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE, VERBS, WIDTHS

ARGUMENTS = {"read": (), "write": (1,), "update": (1, 1), "set": (1,), "clear": (1,)}


class Status(Register):
    busy = Field(0)
    mode = Field(7, 4)


class Registers(RegisterMap):
    status = Status(0)
    zero = Register(8)


@pytest.fixture
def presence() -> Presence:
    return Presence("0000:00:04.0")


@pytest.fixture(params=[Region, PortRegion])
def region(request: pytest.FixtureRequest, path: Path, presence: Presence) -> Any:
    with request.param(path, SIZE, name=NAME, presence=presence) as made:
        yield made


def refused(use: Any) -> bool:
    try:
        use()
    except errors.DeviceRemovedError as error:
        return error.errno == errno.ENODEV
    return False


def test_every_access_raises_once_the_device_is_known_to_be_gone(region: Any, presence: Presence) -> None:
    registers = Registers(region)
    registers.status.busy = True
    assert region.presence is presence
    assert not presence.gone
    presence.note_gone()
    assert presence.gone
    assert presence.is_gone()
    assert refused(presence.require)
    widths = [bits for bits in WIDTHS if bits < 64 or isinstance(region, Region)]
    for verb in VERBS:
        for bits in widths:
            assert refused(lambda verb=verb, bits=bits: getattr(region, f"{verb}{bits}")(0, *ARGUMENTS[verb]))
    for use in (
        lambda: region.read(0, 8),
        lambda: region.write(0, bytes(8)),
        lambda: region.poll32(0, 0, 0, None),
        registers.status.read,
        lambda: registers.status.write(1),
        lambda: registers.status.busy,
        lambda: setattr(registers.status, "mode", 3),
        lambda: registers.status.poll(lambda status: True, None),
        lambda: str(registers.status),
    ):
        assert refused(use)
    region.close()
    with pytest.raises(errors.ClosedError):
        region.read32(0)


def test_a_region_made_too_late_raises(path: Path, presence: Presence) -> None:
    presence.note_gone()
    with Region(path, SIZE, presence=presence) as region:
        assert refused(lambda: region.read32(0))


def test_a_wait_ends(region: Any, presence: Presence) -> None:
    timer = threading.Timer(0.05, presence.note_gone)
    timer.start()
    assert refused(lambda: region.poll32(0, 0xFFFFFFFF, 0, None))
    timer.join()


def test_a_wait_by_name_ends(region: Any, presence: Presence) -> None:
    timer = threading.Timer(0.05, presence.note_gone)
    timer.start()
    assert refused(lambda: Registers(region).status.poll(lambda status: False, None))
    timer.join()


def test_nothing_changes_without_a_device(path: Path) -> None:
    with Region(path, SIZE) as region, PortRegion(path, SIZE) as ports:
        assert region.presence is ports.presence is None
        region.write(0, bytes(8) + b"\xff" * 8)
        for one in (region, ports):
            assert [one.read32(offset) for offset in (0, 8)] == [0, 0xFFFFFFFF]


def header(vendor: int, rest: int) -> bytes:
    """The first 64 bytes of a configuration space."""
    return vendor.to_bytes(4, "little") + bytes([rest]) * 60


@pytest.mark.parametrize(
    ("config", "there"),
    [
        (header(0x11E81234, 0), True),
        (header(0xFFFFFFFF, 0xFF), False),  # pulled out
        (header(0xFFFFFFFF, 0x02), True),  # a virtual function: SR-IOV 1.1, section 3.4.1.1
        (b"", False),
    ],
)
def test_doubtful_values_are_checked(tmp_path: Path, path: Path, config: bytes, there: bool) -> None:
    """Reads of 0 and of all ones, by what the configuration space says, which is then believed for good."""
    recorded = tmp_path / "config"
    recorded.write_bytes(config)
    for ones in (False, True):
        path.write_bytes((b"\xff" if ones else b"\0") * SIZE)
        for bits in WIDTHS:
            full = (1 << bits) - 1 if ones else 0
            for use in (
                lambda region, bits=bits: getattr(region, f"read{bits}")(8),
                lambda region, bits=bits: int.from_bytes(region.read(0, 16, bits // 8)[-bits // 8 :], "little"),
            ):
                presence = Presence("a card")
                with recorded.open("rb") as file, Region(path, SIZE, presence=presence) as region:
                    presence.ask_config(file.fileno())
                    if there:
                        assert use(region) == full
                    else:
                        assert refused(lambda use=use, region=region: use(region))
                    assert presence.gone is not there
                presence.close()


def test_what_is_doubtful_is_not_written_back(tmp_path: Path, path: Path) -> None:
    recorded = tmp_path / "config"
    recorded.write_bytes(b"\xff" * 64)
    path.write_bytes(bytes(SIZE))
    for use in (
        lambda region: region.set32(0, 1),
        lambda region: region.update16(0, 3, 1),
        lambda region: setattr(Registers(region).status, "mode", 3),
    ):
        presence = Presence("a card")
        with recorded.open("rb") as file, Region(path, SIZE, presence=presence) as region:
            presence.ask_config(file.fileno())
            assert refused(lambda use=use, region=region: use(region))
        assert path.read_bytes() == bytes(SIZE)


def test_plausible_values_are_believed_without_asking(tmp_path: Path, path: Path) -> None:
    recorded = tmp_path / "config"
    recorded.write_bytes(b"\xff" * 64)
    path.write_bytes(bytes(range(1, 17)) * (SIZE // 16))
    presence = Presence("a card")
    with recorded.open("rb") as file, Region(path, SIZE, presence=presence) as region:
        presence.ask_config(file.fileno())
        assert region.read32(0) == 0x04030201
        assert not presence.gone
        assert refused(lambda: region.poll32(0, 1, 0, None))  # which looks whatever it reads


def test_descriptors_are_its_own_and_closed_once(path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    presence = Presence("a card")
    with path.open("rb") as file:
        for _ in range(3):
            presence.ask_config(file.fileno())
            presence.ask_node(file.fileno())
        assert len(os.listdir("/proc/self/fd")) == len(before) + 3  # noqa: PTH208
    assert not presence.is_gone()
    presence.close()
    presence.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208
    with pytest.raises(ValueError, match="negative"):
        presence.ask_node(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        presence.ask_config(99_999)
    wrong: Any
    for wrong in ("a name", None, 1.5):
        with pytest.raises(TypeError):
            presence.ask_config(wrong)


@pytest.fixture(scope="module")
def little_garbage() -> Iterator[None]:
    """Leave what other tests imported out of the collections of garbage, which would take most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("little_garbage")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["open", "close", "forget", "twice"]), st.integers(0, 7)), max_size=40))
def test_regions_come_and_go_in_any_order(steps: list[tuple[str, int]]) -> None:
    presence = Presence("a card")
    memory = bytearray(b"\x01" * 64)
    windows: dict[int, Window] = {}
    for step, number in steps:
        if step == "open":
            windows[number] = Window(memory, offset=0, size=64, name="window", endian="little")
            windows[number]._join(presence)
        elif number in windows and step == "close":
            windows[number].close()
        elif number in windows and step == "twice" and not windows[number].closed:
            windows[number]._join(presence)
        elif step == "forget":
            windows.pop(number, None)
    open_ones = [window for window in windows.values() if not window.closed]
    assert all(window.read32(0) == 0x01010101 for window in open_ones)
    presence.note_gone()
    assert all(refused(lambda window=window: window.read32(0)) for window in open_ones)
    windows.clear()
    gc.collect()


def test_only_a_presence_is_joined(path: Path) -> None:
    wrong: Any = "a card"
    with pytest.raises(TypeError, match="a Presence is wanted, not str"):
        Region(path, SIZE, presence=wrong)
    with pytest.raises(TypeError):
        Presence(wrong, 1)  # type: ignore[call-arg]
