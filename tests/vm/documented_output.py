# SPDX-License-Identifier: MIT
"""Reads from the documentation commands and the output that it shows; test_documented_output.py runs them.

In a Markdown file these fenced blocks count, one after the other:

- ``python`` whose first line is ``# NAME.py``: the file NAME.py. With ``# NAME.py, continued`` it is added to that
  file. NAME may have directories. ``text`` whose first line is ``# NAME.csv`` or ``// NAME.rdl``: that file.
- ``console``: lines ``$ pyuio vm run [OPTION...] -- COMMAND``, each followed by what COMMAND prints. The command finds
  the files as the blocks before have given them. In the pages of `HERE`, other commands run on this machine, one after
  the other; tests/unit/test_documented_output.py runs them.

In an example, an indented block of the docstring has the same form as ``console``.

In the output, ``...`` stands for any text within the line, including none (between two spaces also for none with only
one of the spaces). Alone on a line it stands for any lines. White space at the ends of lines does not count.
"""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|//) ([\w/]+\.(?:py|csv|rdl))(, continued)?\n")
_PROMPT = ["pyuio", "vm", "run"]
HERE = tuple(ROOT / "docs" / name for name in ("latency.md", "model.md", "register-files.md", "xdma.md"))


@dataclass(frozen=True)
class Shown:
    """A command and its output.

    Attributes:
        place: the file and the line that show it.
        options: the options of ``pyuio vm run``; None for a command that runs on this machine.
        command: the command that runs.
        output: the output shown, with wildcards.
        files: names and texts of the files in its directory; None for an example, which runs where it is.
    """

    place: str
    options: tuple[str, ...] | None
    command: tuple[str, ...]
    output: str
    files: tuple[tuple[str, str], ...] | None


def _commands(block: str, place: Path, line: int, files: dict[str, str] | None) -> list[Shown]:
    found = []
    for part in re.split(r"^(?=\$ )", textwrap.dedent(block), flags=re.MULTILINE):
        if part.startswith("$ "):
            first, _, output = part.partition("\n")
            words = shlex.split(first[2:])
            where = f"{place.relative_to(ROOT)}:{line}"
            kept = None if files is None else tuple(files.items())
            if words[:3] == _PROMPT and "--" in words:
                end = words.index("--")
                found.append(Shown(where, tuple(words[3:end]), tuple(words[end + 1 :]), output.rstrip(), kept))
            elif place in HERE:
                found.append(Shown(where, None, tuple(words), output.rstrip(), kept))
            else:
                raise ValueError(f"{where}: {first!r} is not $ pyuio vm run ... -- COMMAND, and cannot be tested")
        line += part.count("\n")
    return found


def in_markdown(path: Path) -> list[Shown]:
    """Return the commands that a Markdown file shows."""
    text, files, found = path.read_text(), dict[str, str](), list[Shown]()
    for match in _BLOCK.finditer(text):
        language, block = match[1], match[2]
        if language == "console":
            found += _commands(block, path, text.count("\n", 0, match.start(2)) + 1, files)
        elif language in ("python", "text") and (named := _FILE.match(block)):
            name, continued = named.groups()
            added = "\n" + block[named.end() :].lstrip("\n")
            files[name] = files[name] + added if continued else block
    return found


def in_example(path: Path) -> list[Shown]:
    """Return the commands that the docstring of a program shows."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if line.startswith("    $ ")), None)
    if start is None:
        return []
    # The first line is the licence; the docstring follows.
    return _commands("".join(lines[start:]), path, start + 2, None)


def write_files(directory: Path, shown: Shown) -> None:
    """Write the files that a command finds."""
    for name, text in shown.files or ():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def matches(wanted: str, printed: str) -> bool:
    """Return whether the output equals the expected output, which may contain wildcards."""
    pattern = ""
    for line in wanted.rstrip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            parts = (".*?".join(map(re.escape, part.split("..."))) for part in line.rstrip().split(" ... "))
            pattern += "(?: | .*? )".join(parts) + r"\n"
    lines = "".join(f"{line.rstrip()}\n" for line in printed.rstrip().splitlines())
    return re.fullmatch(pattern, lines) is not None
