# SPDX-License-Identifier: MIT
"""Tables in HTML, for notebooks and reports. All text is escaped: of a card, of a file, of another program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pyuio.process.printable import printable


def text(value: object) -> str:
    """Return what is shown as this text, and is nothing else: no element, no control character."""
    return escape(printable(value))


def table(title: str, rows: Iterable[Sequence[object]], headings: Sequence[str] = (), note: str = "") -> str:
    """Return a table; notebooks show it with styles of their own.

    Args:
        title: shown above it.
        rows: the cells of each row.
        headings: of the columns; none for pairs of a name and a value.
        note: shown below it.
    """
    lines = [f'<p style="margin: 0"><b>{text(title)}</b></p>', "<table>"]
    if headings:
        lines.append("<thead><tr>" + "".join(f"<th>{text(one)}</th>" for one in headings) + "</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        cells = "".join(f'<td style="text-align: left; white-space: pre">{text(one)}</td>' for one in row)
        lines.append(f"<tr>{cells}</tr>")
    lines += ["</tbody>", "</table>"]
    if note:
        lines.append(f"<p>{text(note)}</p>")
    return "\n".join(lines)
