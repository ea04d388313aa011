# SPDX-License-Identifier: MIT
"""Completion by bash, which splits words at colons.

bash splits ``0000:00:04.0`` into five words, completes the last one and replaces only that. This module joins the
pieces for typer, and removes from typer's answer the part that the shell keeps. zsh and fish do not need it.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, MutableMapping

BASH = "complete_bash"
VARIABLE = "_PYUIO_COMPLETE"  # typer's script sets it to the shell's name


def joined(words: list[str], position: int) -> tuple[list[str], int, str]:
    """Return a command line with the words joined again that bash split at colons.

    Args:
        words: bash's COMP_WORDS.
        position: bash's COMP_CWORD, the index of the word that the cursor is in.

    Returns:
        The words, the index of the word with the cursor, and the part of that word that the shell keeps: all up to and
        with its last colon.
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
    """Run typer's completion for bash with the words joined, and print its answers without the part the shell keeps.

    `app` ends the process by `SystemExit`.
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
