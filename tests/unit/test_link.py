# SPDX-License-Identifier: MIT
"""The attributes of a link, in the kernel's form."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pyuio.pci.link import Link, parse_speed, parse_width, read_link


def write(directory: Path, **attributes: str) -> Path:
    for name, text in attributes.items():
        (directory / name).write_text(text + "\n")
    return directory


def test_a_link(tmp_path: Path) -> None:
    directory = write(
        tmp_path,
        max_link_speed="16.0 GT/s PCIe",
        max_link_width="16",
        current_link_speed="8 GT/s",  # before Linux 5.8
        current_link_width="4",
    )
    link = read_link(directory)
    assert link == Link(speed=8.0, width=4, maximum_speed=16.0, maximum_width=16)
    assert str(link) == "8 GT/s x4 (maximum 16 GT/s x16)"


def test_a_link_that_is_down(tmp_path: Path) -> None:
    directory = write(
        tmp_path,
        max_link_speed="2.5 GT/s PCIe",
        max_link_width="1",
        current_link_speed="Unknown",
        current_link_width="0",
    )
    link = read_link(directory)
    assert link == Link(speed=None, width=None, maximum_speed=2.5, maximum_width=1)
    assert str(link) == "down (maximum 2.5 GT/s x1)"


def test_no_link(tmp_path: Path) -> None:
    assert read_link(tmp_path) is None
    # A root complex integrated endpoint.
    assert read_link(write(tmp_path, max_link_speed="Unknown", max_link_width="255")) is None


@given(st.text())
def test_no_text_whatever_breaks_the_parsers(text: str) -> None:
    assert parse_speed(text) is None or "GT/s" in text
    width = parse_width(text)
    assert width is None or width > 0
