# SPDX-License-Identifier: MIT
"""Saved states of devices: what is taken, the file, what differs, what is written back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio._native._access import Window
from pyuio.inspect import state
from pyuio.inspect.location import Location
from pyuio.registers import Field, Register, RegisterMap
from pyuio.registers.snapshot import Snapshot

CONFIG = bytes.fromhex("34 12 e8 11 07 01 10 00 10 00 ff 00 00 00 00 00") + bytes(240)


class Control(Register):
    enable = Field(0)
    mode = Field(7, 4)
    done = Field(8, access="ro")


class Events(Register):
    overrun = Field(0, access="w1c")
    enabled = Field(8)


class Registers(RegisterMap):
    control = Control(0x00)
    events = Events(0x04)
    queue = Register(0x08, access="rc")
    doorbell = Register(0x0C, access="wo")
    small = Register(0x10, width=8)


MAPS = {"bar0": Registers}


class Device:
    """The parts of an `Inspection` that states use, on memory."""

    name, address, ids, uio_name, has_config = "0000:00:04.0", "0000:00:04.0", "1234:11e8", None, True

    def __init__(self) -> None:
        self.memory = bytearray(0x20)
        self.image = bytearray(CONFIG)
        self.config = self
        self.size = len(CONFIG)
        self.region = Window(self.memory, offset=0, size=0x20, name="BAR 0", endian="little")

    def registers(self, place: Location) -> Window:
        assert place.bar == 0
        return self.region

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.image[offset : offset + length])


@pytest.fixture
def device() -> Any:
    return Device()


def differences(saved: state.State, device: Any) -> list[str]:
    return [str(one) for one in state.compare(saved, device, MAPS)[0]]


def test_a_snapshot_is_what_was_read() -> None:
    registers = Registers(bytearray(0x20))
    registers.control.write(0x31)
    before = registers.snapshot()
    assert dict(before) == {"control": 0x31, "events": 0, "small": 0}
    assert list(registers.snapshot(every=True)) == ["control", "events", "queue", "small"]
    registers.control.write(0x130)
    registers.small.write(7)
    changes = before.diff(registers.snapshot())
    assert list(map(str, changes)) == [
        "control 0x00000031 -> 0x00000130  enable 1 -> 0, done 0 -> 1",
        "small 0x00 -> 0x07",
    ]
    assert changes[0].fields == {"enable": (1, 0), "done": (0, 1)}
    assert (changes[0].path, changes[0].before, changes[0].after) == ("control", 0x31, 0x130)
    assert before["control"] == 0x31, "a snapshot does not change"
    assert not before.diff(before)
    assert not before.diff(Snapshot({}))
    wrong: Any = {"control": 1}
    with pytest.raises(TypeError, match=r"compared with another snapshot\(\), not with a dict"):
        before.diff(wrong)
    with pytest.raises(TypeError, match="is a declaration"):
        Registers.at(0).snapshot()


def test_a_snapshot_of_a_map_in_a_region() -> None:
    class Both(RegisterMap):
        one = Registers.at(0)
        two = Registers.at(0x20)

    both = Both(bytearray(0x40))
    before = both.two.snapshot()
    both.two.small.write(1)
    assert list(map(str, before.diff(both.two.snapshot()))) == ["small 0x00 -> 0x01"]
    assert both.snapshot()["two.small"] == 1


def test_there_and_back(device: Any) -> None:
    device.memory[0:4] = b"\x31\x00\x00\x00"
    taken = state.take(device, MAPS)
    text = state.text_of(taken)
    assert text == (
        "format: 1\ndevice: 1234:11e8\nregisters:\n  bar0:\n    control: 0x31\n    events: 0x0\n    small: 0x0\n"
        "config:\n  size: 0x100\n  bytes:\n    0x0: 34 12 e8 11 07 01 10 00 10 00 ff 00 00 00 00 00\n"
    )
    assert state.parse(text.encode(), "card.yaml") == taken
    assert not differences(taken, device)


def test_what_differs(device: Any) -> None:
    taken = state.take(device, MAPS)
    device.memory[0:4] = b"\x11\x00\x00\x00"
    device.memory[4] = 1
    device.image[4] = 3
    device.image[0x44] = 0x80
    assert differences(taken, device) == [
        "bar0.control 0x00000000 -> 0x00000011  enable 0 -> 1, mode 0 -> 1",
        "bar0.events 0x00000000 -> 0x00000001  overrun 0 -> 1",
        "config.command 0x0107 -> 0x0103  bus_master 1 -> 0",
        "config+0x44 0x00000000 -> 0x00000080",
    ]
    found, _unread = state.compare(taken, device, MAPS)
    assert found[0].data() == {
        "place": "bar0.control",
        "saved": 0,
        "present": 0x11,
        "fields": {"enable": {"saved": 0, "present": 1}, "mode": {"saved": 0, "present": 1}},
    }
    assert "fields" not in found[3].data()


def test_registers_are_put_back(device: Any) -> None:
    device.memory[0:4] = b"\x21\x00\x00\x00"
    taken = state.take(device, MAPS)
    device.memory[0:4] = b"\x00\x01\x00\x00"  # done, which cannot be written
    device.memory[4:6] = b"\x01\x01"  # an event, which a write would clear
    device.image[4] = 3
    found, _unread = state.compare(taken, device, MAPS)
    assert [str(one.place) for one in found if one.restorable] == ["bar0.control"]
    assert str(found[0].reversed()) == (
        "bar0.control 0x00000100 -> 0x00000021  enable 0 -> 1, mode 0 -> 2, done 1 -> 0"
    )
    assert state.put_back(device, found[0])
    assert device.memory[0:6] == b"\x21\x01\x00\x00\x01\x01"
    device.memory[0] = 0
    device.memory[1] = 0
    device.memory[4:6] = b"\x00\x00"
    device.image[4] = 7
    assert [one.restorable for one in state.compare(taken, device, MAPS)[0]] == [True]
    device.memory[0:2] = b"\x21\x01"  # only what cannot be written differs
    assert [one.restorable for one in state.compare(taken, device, MAPS)[0]] == [False]


def test_registers_with_effects_of_reading(device: Any) -> None:
    device.memory[8] = 5
    taken = state.take(device, MAPS, every=True)
    assert taken.registers["bar0"]["queue"] == 5
    device.memory[8] = 6
    found, unread = state.compare(taken, device, MAPS)
    assert (found, [str(one) for one in unread]) == ([], ["bar0.queue"])
    found, unread = state.compare(taken, device, MAPS, every=True)
    assert ([str(one.place) for one in found], unread) == (["bar0.queue"], [])


def test_differences_are_in_the_order_of_offsets(device: Any) -> None:
    saved = state.State("1234:11e8", {"bar0": {"events": 1, "control": 1}}, None)
    assert [one.split()[0] for one in differences(saved, device)] == ["bar0.control", "bar0.events"]


def test_another_kind_of_device(device: Any) -> None:
    taken = state.take(device, MAPS)
    device.ids = "8086:10d3"
    with pytest.raises(pyuio.StateFileError, match=r"that of a 1234:11e8, and 0000:00:04\.0 is 8086:10d3"):
        state.compare(taken, device, MAPS)


@pytest.mark.parametrize(
    ("registers", "reason"),
    [
        ({"bar1": {"control": 0}}, "registers of bar1; there are names for: bar0"),
        ({"bar0": {"contrl": 0}}, "the map has no register contrl; there is control"),
        ({"bar0": {"control.mode": 0}}, "control.mode, which is a field"),
        ({"bar0": {"doorbell": 0}}, "doorbell, which is write-only"),
        ({"bar0": {"small": 256}}, "0x100 for bar0.small, which has 8 bits"),
    ],
)
def test_registers_that_do_not_fit(device: Any, registers: dict[str, dict[str, int]], reason: str) -> None:
    before = bytes(device.memory)
    with pytest.raises(pyuio.StateFileError, match=re.escape(reason)):
        state.compare(state.State("1234:11e8", registers, None), device, MAPS)
    assert device.memory == before


GOOD = "format: 1\ndevice: 1234:11e8\nregisters: {bar0: {control: 1}}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file: a mapping is needed"),
        ("[1, 2]", "the file: a mapping is needed"),
        ("format: 2\n", "its format is 2; this version of pyuio reads format 1"),
        ("format: true\n", "'format' is 'true', not a number"),
        ("format: 1\n", "'registers' is missing"),
        (GOOD.replace("1234:11e8", "17"), "'device' is 17, not text"),
        (GOOD.replace("1}", "-1}"), "'control' is -1, which is below 0"),
        (GOOD.replace("1}", "1.5}"), "'control' is '1.5', not a number"),
        (GOOD.replace("1}", "on}"), "'control' is 'on', not a number"),
        (GOOD.replace("1}", "1, control: 2}"), "card.yaml, line 3: control comes twice"),
        (GOOD.replace("control", "7"), "bar0: 7 is not a name"),
        (GOOD.replace("{control: 1}", "[]"), "'bar0' is [], not a mapping"),
        (GOOD + "more: 1\n", "'more' is not a part of a saved state"),
        (GOOD + "config: {size: 100, bytes: {}}\n", "the size is 0x40, 0x100 or 0x1000, not 0x64"),
        (GOOD + "config: {size: 64, bytes: {1: ''}}\n", "a row begins at a multiple of 16 below 0x40, not at 1"),
        (GOOD + "config: {size: 64, bytes: {64: ''}}\n", "a row begins at a multiple of 16 below 0x40, not at 64"),
        (GOOD + "config: {size: 64, bytes: {0: '00 11'}}\n", "row 0x0 is not 16 bytes in hexadecimal"),
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases are not for this file"),
        ("!!python/object/apply:os.system ['true']\n", "line 1: tags are not for this file"),
        ("a: {<<: {b: 1}}", "'format' is missing"),
        ("{", "card.yaml, line 1: "),
        ("a: 2001-99-99", "card.yaml: "),
        ("{[1]: 2}", "card.yaml, line 1: found unhashable key"),
        ("[" * 5000, "nested too deeply"),
        ("\x00", "card.yaml: "),
    ],
)
def test_files_that_are_no_saved_state(text: str, reason: str) -> None:
    with pytest.raises(pyuio.StateFileError) as caught:
        state.parse(text.encode(), "card.yaml")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("card.yaml")
    assert len(str(caught.value)) < 400


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pyuio.StateFileError, match="No such file"):
        state.load(tmp_path / "none.yaml")
    with pytest.raises(pyuio.StateFileError, match="Is a directory"):
        state.load(tmp_path)
    (tmp_path / "card.yaml").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(pyuio.StateFileError, match=r"card\.yaml"):
        state.load(tmp_path / "card.yaml")
    monkeypatch.setattr(state, "_LIMIT", 10)
    (tmp_path / "card.yaml").write_text(GOOD)
    with pytest.raises(pyuio.StateFileError, match="is no saved state"):
        state.load(tmp_path / "card.yaml")


LONG = "f" * 6000


@pytest.mark.parametrize(
    "text",
    [
        f"format: 0x{LONG}",
        f"format: 1\ndevice: x\nregisters: {{bar0: {{a: -0x{LONG}}}}}",
        f"format: 1\ndevice: x\nregisters: {{}}\nconfig: {{? 0x{LONG} : 1}}",
        "format: 1" + ":59" * 100_000,
        "format: 1." + "0:59" * 100_000,
        "".join(f"{number}: 1\n" for number in range(10_000)) * 2,
        "[" * 1_000_000,
        "? " * 10_000,
    ],
    ids=lambda text: f"{text[:20]!r}",
)
def test_nothing_takes_long(text: str) -> None:
    with pytest.raises(pyuio.StateFileError):
        state.parse(text.encode(), "card.yaml")


@pytest.mark.parametrize("value", ["0", "0x0", "12", "010", "0xFFffFFff", "0x" + "f" * 3500])
def test_numbers_are_decimal_or_hexadecimal(value: str) -> None:
    read = state.parse(f"format: 1\ndevice: yes\nregisters: {{bar0: {{on: {value}}}}}".encode(), "card.yaml")
    assert read.device == "yes"
    assert read.registers == {"bar0": {"on": int(value, 16 if "x" in value else 10)}}


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(pyuio.YamlUnavailableError, match=r"pip install 'pyuio-framework\[state\]'"):
        state.parse(GOOD.encode(), "card.yaml")
