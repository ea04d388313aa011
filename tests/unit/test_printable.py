# SPDX-License-Identifier: MIT
"""Text of others never reaches a terminal as an escape sequence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from pyuio.cli import output
from pyuio.process.printable import printable, printable_name
from pyuio.vm.process import Lines

EVIL = "\x1b]0;owned\x07\x9b31m\u202e\r\x7f"
SHOWN = r"\x1b]0;owned\x07\x9b31m\u202e\r\x7f"
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def test_what_is_shown() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("two\nlines\tof \N{EURO SIGN}") == "two\nlines\tof \N{EURO SIGN}"


@given(st.text())
def test_any_text(text: str) -> None:
    assert not CONTROL.search(printable(text))


def test_a_name_is_no_line_of_its_own() -> None:
    assert printable_name("a\nb\t\x1b") == r"a\nb\t\x1b"


def test_every_way_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    table = output.columns("name")
    table.add_row(Text(EVIL))
    output.console().print(table)
    output.console().print(Text(EVIL), soft_wrap=True)
    output.print_line(EVIL)
    output.print_styled(EVIL, "bold")
    output.print_json({"name": EVIL})
    output.say(EVIL)
    printed = capsys.readouterr()
    # rich itself drops some of them.
    assert not CONTROL.search(printed.out)
    assert printed.out.count(r"\x1b]0;owned") == 4
    assert printed.err == f"pyuio: {SHOWN}\n"


@pytest.mark.parametrize("text", ["[/red]", "[red]x", "[link=x.org]x[/link]", "[bold", ":smile:", "a\\[b]"])
def test_text_is_no_markup(capsys: pytest.CaptureFixture[str], text: str) -> None:
    table = output.columns(text)
    table.title = text
    table.add_row(text)
    output.console().print(table)
    output.console().print(text)
    assert capsys.readouterr().out.split() == [text] * 4


def test_what_a_guest_says() -> None:
    lines = Lines()
    assert lines.feed(b"\x1b[2J here\r\nrest\x9b") == [r"\x1b[2J here"]
    assert not CONTROL.search("".join(lines.last(2)))


def test_an_error_of_a_command(tmp_path: Path) -> None:
    missing = str(tmp_path / "\x1bmissing")
    command = [sys.executable, "-m", "pyuio.cli", "bench", "compare", missing, missing]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert r"/\x1bmissing: cannot be read" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
