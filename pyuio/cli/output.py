# SPDX-License-Identifier: MIT
"""The output of the commands: tables for people, the same data as JSON for programs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from pyuio.process.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, ConsoleRenderable
    from rich.table import Table

_UNLIMITED = 100_000  # columns
_STYLES = {"bold": "\x1b[1m", "dim": "\x1b[2m"}  # ECMA-48, section 8.3.117
_PLAIN = "\x1b[0m"


def width() -> int:
    """Return the columns of the terminal; in a pipe or a file, lines are as long as necessary."""
    if not sys.stdout.isatty():
        return _UNLIMITED
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() else os.get_terminal_size(sys.stdout.fileno()).columns or 80


def print_styled(text: str, style: str) -> None:
    """Print lines to standard output, "bold" or "dim" ("" for neither) where `console` would print them so.

    A command that prints no table is done with it before rich is imported.
    """
    text = printable(text)
    forced = os.environ.get("FORCE_COLOR")
    styled = sys.stdout.isatty() if forced is None else forced != ""
    if style and styled and os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        text = "\n".join(f"{_STYLES[style]}{line}{_PLAIN}" for line in text.split("\n"))
    print(text)


def console() -> Console:
    """Return a console on standard output that colours only what the caller colours, and shows control characters.

    Text is text: what looks like rich's markup or emoji in it, which may be text of a file or a device, stays as it is.
    It wraps lines at a terminal's width; in a pipe or a file, lines are as long as necessary and without colour.
    """
    from rich.console import Console, RenderHook
    from rich.segment import Segment

    class Printable(RenderHook):
        """Passes on what is printed with each text made printable."""

        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [Shown(renderable) for renderable in renderables]

    class Shown:
        def __init__(self, renderable: ConsoleRenderable) -> None:
            self._renderable = renderable

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
            for segment in console.render(self._renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    made = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else _UNLIMITED)
    made.push_render_hook(Printable())
    return made


def columns(*headings: str) -> Table:
    """Return a table without a frame, for `console`: a line of headings, if any, and a line for each row."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_json(data: Any) -> None:
    """Print JSON to standard output for programs: never coloured, never wrapped."""
    import json

    print(json.dumps(data, indent=2))


def print_line(text: str) -> None:
    """Print a line to standard output and flush it, so that it appears at once also in a pipe."""
    print(printable(text), flush=True)


def say(text: object) -> None:
    """Print a message of pyuio's to standard error."""
    print(f"pyuio: {printable(text)}", file=sys.stderr)
