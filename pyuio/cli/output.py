# SPDX-License-Identifier: MIT
"""How the commands print: tables for people, the same data as JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

_UNLIMITED = 100_000  # columns


def console() -> Console:
    """Return a console on standard output, which colours nothing by guessing.

    A terminal's lines are wrapped at its width; in a pipe or a file they are as long as they need be, without colour.
    """
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED)


def columns(*headings: str) -> Table:
    """Return a table without frame: a line of headings, unless there are none, and a line for each row.

    Give its ``add_row`` `rich.text.Text`, or words without brackets, which rich would read as markup.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_json(data: Any) -> None:
    """Print JSON to standard output, as a program reads it: never coloured, never wrapped."""
    print(json.dumps(data, indent=2))


def print_line(text: str) -> None:
    """Print a line to standard output at once, for who watches."""
    print(text, flush=True)
