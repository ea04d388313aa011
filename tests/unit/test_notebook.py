# SPDX-License-Identifier: MIT
"""What notebooks show of registers, maps, configuration space, devices and buffers."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from pyuio_drivers.models.edu import EduCard

import pyuio.model
from pyuio import Device, Field, Register, RegisterMap
from pyuio.pci import ConfigImage
from pyuio.registers.python_text import classes
from tests.unit.register_support import Plain

ATTACK = "</td><script>alert(1)</script>&\x1b[2J"


class Cells(HTMLParser):
    """The texts of the cells of tables, row by row, and the names of all elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.names: set[str] = set()
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.names.add(tag)
        self._open = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self._open:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


class Events(Register, access="rc"):
    """What happened."""

    full = Field(0)


class Control(Register):
    enable = Field(0, doc=ATTACK)
    level = Field(7, 4)


class Card(RegisterMap):
    control = Control(0x0)
    events = Events(0x4)
    command = Register(0x8, access="wo", doc=ATTACK)


def cells(shown: Any) -> Cells:
    text: str = shown._repr_html_()
    assert "\x1b" not in text
    return Cells(text)


def test_a_map() -> None:
    plain = Plain(bytes([0x31, 0, 0, 0] * 3))
    found = cells(Card(plain))
    assert found.rows == [
        ["offset", "register", "value", "fields", "access", "description"],
        ["0x0000", "control", "0x00000031", "enable=1 level=3", "rw", ""],
        ["0x0004", "events", "not read, as that has an effect", "", "rc", "What happened."],
        ["0x0008", "command", "write-only", "", "wo", ATTACK.replace("\x1b", "\\x1b")],
    ]
    assert found.names == {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert plain.log == [("read", 0, 32)], "what reading changes was read"
    plain.log.clear()
    assert cells(Card.at(0)).rows[1] == ["0x0000", "control", "", "enable[0] level[7:4]", "rw", ""]
    assert plain.log == []


def test_a_register() -> None:
    plain = Plain(bytes([0x31, 0, 0, 0] * 3))
    card = Card(plain)
    found = cells(card.control)
    assert found.rows[1:] == [
        ["[0]", "enable", "1", "rw", ATTACK.replace("\x1b", "\\x1b")],
        ["[7:4]", "level", "3", "rw", ""],
    ]
    assert "script" not in found.names
    assert plain.log == [("read", 0, 32)]
    plain.log.clear()
    assert cells(card.events).rows[1] == ["[0]", "full", "", "rc", ""]
    assert "was not read, as that has an effect" in card.events._repr_html_()
    assert cells(card.command).rows == []
    assert cells(Card.control).rows[1][2] == ""
    assert plain.log == []
    assert cells(card.events.snapshot()).rows[1] == ["[0]", "full", "1", "rc", ""]
    assert plain.log == [("read", 4, 32)]


def test_a_large_map_is_cut_off() -> None:
    lines = "".join(f"    r{place} = Register({4 * place:#x})\n" for place in range(600))
    text = f"from pyuio import Register\nclass Large(DescribedMap):\n{lines}"
    plain = Plain(bytes(2400))
    found = cells(classes(text, "large", "large")["Large"](plain))
    assert len(found.rows) == 501
    assert len(plain.log) == 500


def test_names_of_others_are_text() -> None:
    image = bytearray(256)
    image[0:4] = b"\x34\x12\xe8\x11"
    image[6], image[0x34], image[0x40], image[0x3D] = 0x10, 0x40, 0x05, 9
    found = cells(ConfigImage(bytes(image), ATTACK))
    assert "script" not in found.names
    assert ["vendor and device", "1234:11e8, revision 0x00"] in found.rows
    assert ["interrupt pin", "9"] in found.rows
    assert found.rows[-1] == ["0x040", "0x05", "MSI"]


@pytest.fixture
def device() -> Iterator[Device]:
    with pyuio.model.open(EduCard()) as opened:
        yield opened


def test_a_device(device: Device) -> None:
    assert ["interrupt", "not used yet"] in cells(device).rows
    assert ["BAR 0", "memory at 0x80000000, 0x100000 bytes, 32-bit"] in cells(device).rows
    assert device.interrupt.kind == "INTx"
    assert ["interrupt", "INTx"] in cells(device).rows
    assert ["class", "0x00ff00"] in cells(device.config).rows
    device.close()
    assert cells(device).rows == [["state", "closed"]]


def test_a_device_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    card = EduCard()
    with pyuio.model.open(card) as device:
        card.remove()
        assert cells(device).rows == [["state", "removed"]]


def test_a_buffer(device: Device) -> None:
    with device.dma.alloc(200) as buffer:
        buffer[:11] = b"Hello, <b>!"
        assert cells(buffer).rows[0] == [
            "0x0000",
            "48 65 6c 6c 6f 2c 20 3c 62 3e 21 00 00 00 00 00",
            "Hello, <b>!.....",
        ]
        assert len(cells(buffer).rows) == 8
        assert "and 72 more bytes" in buffer._repr_html_()
        assert cells(buffer[:20]).rows[1][1] == "00 00 00 00"
    assert cells(buffer).rows == []
    with device.dma.scatter(100) as scattered:
        assert len(cells(scattered).rows) == 7
