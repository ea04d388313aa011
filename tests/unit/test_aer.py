# SPDX-License-Identifier: MIT
"""Counters of errors on links, in the kernel's form, and what the doctor makes of them and of a link."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pyuio.doctor import device
from pyuio.pci.aer import Errors, LinkErrors, fatal_errors, parse_errors, ports_above, read_link_errors
from pyuio.pci.bars import Bar, lost_bars
from pyuio.pci.config_image import ConfigImage
from pyuio.pci.link import Link

TEXT = "RxErr 0\nBadTLP 2\nRollover 1\nTOTAL_ERR_COR 2\n"
NOTHING = "Undefined 0\nDLP 0\nTOTAL_ERR_FATAL 0\n"


def function(directory: Path, fatal: int = 0) -> Path:
    directory.mkdir(parents=True)
    (directory / "vendor").touch()
    (directory / "aer_dev_correctable").write_text(TEXT)
    (directory / "aer_dev_nonfatal").write_text(NOTHING)
    (directory / "aer_dev_fatal").write_text(f"DLP {fatal}\nTOTAL_ERR_FATAL {fatal}\n")
    return directory


def test_counters(tmp_path: Path) -> None:
    assert read_link_errors(tmp_path) is None
    errors = read_link_errors(function(tmp_path / "0000:01:00.0"))
    assert errors == LinkErrors(correctable=Errors(2, {"BadTLP": 2, "Rollover": 1}))
    assert str(errors) == "correctable 2 (BadTLP 2, Rollover 1)"
    assert (bool(LinkErrors()), str(LinkErrors())) == (False, "none")
    assert parse_errors("Bad TLP 1\nReplay Timer Timeout 3\nTOTAL_ERR_COR 4") == Errors(
        4, {"Bad TLP": 1, "Replay Timer Timeout": 3}
    )


def test_what_came_since() -> None:
    before, now = Errors(2, {"BadTLP": 2}), Errors(5, {"BadTLP": 2, "RxErr": 3})
    assert now.since(before) == Errors(3, {"RxErr": 3})
    assert before.since(now) == before, "the counters have begun anew"
    assert not LinkErrors(fatal=now).since(LinkErrors(fatal=now))


def test_fatal_errors_are_those_of_the_whole_link(tmp_path: Path) -> None:
    port = function(tmp_path / "pci0000:00/0000:00:01.0", fatal=1)
    card = function(port / "0000:01:00.0", fatal=2)
    function(port / "0000:01:00.1", fatal=4)
    function(tmp_path / "pci0000:00/0000:00:02.0", fatal=8)
    assert list(ports_above(card)) == [port]
    assert fatal_errors(card) == 7
    assert fatal_errors(port) == 1


@given(st.text())
def test_no_text_whatever_breaks_the_parser(text: str) -> None:
    assert all(count > 0 for count in parse_errors(text).by_name.values())


def test_the_doctor_on_errors() -> None:
    none, some = LinkErrors(), LinkErrors(correctable=Errors(3, {"BadTLP": 3}))
    fatal = LinkErrors(fatal=Errors(1, {"DLP": 1}))
    assert device.judge_link_errors({"card": none}, counted=False).state == "unknown"
    assert device.judge_link_errors({"card": none, "port": none}, counted=True).state == "good"
    answer = device.judge_link_errors({"card": none, "port": some}, counted=True)
    assert (answer.state, answer.found) == ("advice", "port: correctable 3 (BadTLP 3)")
    assert "rescan" not in answer.remedy
    assert "rescan" in device.judge_link_errors({"card": fatal}, counted=True).remedy


def test_the_doctor_on_a_link() -> None:
    slow, port = Link(5.0, 4, 16.0, 8), Link(5.0, 4, 8.0, 4)
    assert device.judge_link("card", Link(8.0, 4, 16.0, 8), "port", port).state == "good"
    answer = device.judge_link("card", slow, "port", port)
    assert answer.state == "advice"
    assert "both ends can do 8 GT/s x4" in answer.remedy
    assert device.judge_link("card", Link(None, None, 16.0, 8), "port", port).state == "blocks"
    assert device.judge_link("card", Link(16.0, 8, 16.0, 8), "", None).state == "good"


def test_bars_that_the_device_has_lost() -> None:
    image = bytearray(64)
    there = (Bar(0, "memory", 32, False, 0xFEA00000, 4096), Bar(2, "memory", 64, True, 1 << 33, 4096))
    assert lost_bars(ConfigImage(bytes(image), "d"), there) == list(there)
    image[0x10:0x14] = (0xFEA00000).to_bytes(4, "little")
    image[0x18:0x20] = ((1 << 33) | 0xC).to_bytes(8, "little")
    assert lost_bars(ConfigImage(bytes(image), "d"), there) == []
    image[0x18:0x20] = (0xC).to_bytes(8, "little")
    assert lost_bars(ConfigImage(bytes(image), "d"), there) == [there[1]]
    assert lost_bars(ConfigImage(b"\xff" * 64, "d"), there) == [], "it is gone"
    assert lost_bars(ConfigImage(bytes(image), "d"), (Bar(0, "memory", 32, False, 0, 4096),)) == []
