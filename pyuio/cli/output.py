# SPDX-License-Identifier: MIT
"""The output of the commands: tables for people, the same data as JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

_UNLIMITED = 100_000  # columns


def console() -> Console:
    """Return a console on standard output that colours only what the caller colours.

    It wraps lines at a terminal's width; in a pipe or a file, lines are as long as necessary and without colour.
    """
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED)


def columns(*headings: str) -> Table:
    """Return a table without a frame: a line of headings, if any, and a line for each row.

    Give ``add_row`` a `rich.text.Text`, or words without brackets: rich reads brackets as markup.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_json(data: Any) -> None:
    """Print JSON to standard output for programs: never coloured, never wrapped."""
    print(json.dumps(data, indent=2))


def print_line(text: str) -> None:
    """Print a line to standard output and flush it, so that it appears at once also in a pipe."""
    print(text, flush=True)
