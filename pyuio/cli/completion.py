# SPDX-License-Identifier: MIT
"""Completion by bash, which takes a colon for the end of a word.

``0000:00:04.0`` arrives as five words, of which the last is to be completed, and only that part is replaced. For typer
the pieces are put together again; what it answers loses the part that the shell keeps. zsh and fish need nothing of
this.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, MutableMapping

BASH = "complete_bash"
VARIABLE = "_PYUIO_COMPLETE"  # what typer's script sets, to the shell


def joined(words: list[str], position: int) -> tuple[list[str], int, str]:
    """Return a command line with what bash took apart at colons put together again.

    Args:
        words: bash's COMP_WORDS.
        position: bash's COMP_CWORD, the index of the word that the cursor is in.

    Returns:
        The words, the index of the word with the cursor, and what the shell keeps of that: all up to its last colon.
    """
    whole: list[str] = []
    cursor = 0
    glue = False
    for index, word in enumerate(words):
        colons = bool(word) and not word.strip(":")
        if whole and (glue or colons):
            whole[-1] += word
        else:
            whole.append(word)
        glue = colons
        if index == position:
            cursor = len(whole) - 1
    if position >= len(words):  # after the last one
        whole.append("")
        cursor = len(whole) - 1
    head, colon, _ = whole[cursor].rpartition(":")
    return whole, cursor, head + colon


def run(app: Callable[[], object], environment: MutableMapping[str, str] = os.environ) -> None:
    """Run the command line, which is to complete for bash, with its words mended and its answer cut.

    The process ends in `app`, by `SystemExit`.
    """
    words, cursor, kept = joined(environment.get("COMP_WORDS", "").split("\n"), int(environment.get("COMP_CWORD", "0")))
    environment["COMP_WORDS"], environment["COMP_CWORD"] = "\n".join(words), str(cursor)
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            app()
    finally:
        for line in answer.getvalue().splitlines():
            print(line.removeprefix(kept))
