# SPDX-License-Identifier: MIT
"""Text of others on its way to a terminal: names of processes, what a guest says, what a file holds.

A terminal obeys escape sequences in what it shows. Whoever can choose such a text could retitle the window, hide lines,
or answer questions in the reader's name. So each control character is shown as Python would write it.
"""

from __future__ import annotations

# C0 but line feed and tab, DEL, C1 (ISO 6429), and what changes the direction of text (Unicode, UAX 9).
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F]
_TABLE = {code: ascii(chr(code))[1:-1] for code in _CONTROLS if chr(code) not in "\n\t"}


def printable(text: object) -> str:
    r"""Return `text` as it can be shown on a terminal: ``\x1b`` for an escape; line feeds and tabs stay."""
    return str(text).translate(_TABLE)


def printable_name(text: str) -> str:
    r"""Return a name as `printable` does, with ``\n`` and ``\t`` for what could pass for a line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
