# SPDX-License-Identifier: MIT
"""Commands in the documentation that run on this machine print the output shown, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm.documented_output import HERE, in_markdown, matches, write_files

PROGRAMS = {
    "python": [sys.executable],
    "pyuio": [sys.executable, "-m", "pyuio.cli"],
    "peakrdl": [sys.executable, "-m", "peakrdl"],
}


@pytest.mark.long  # like the other pages of docs/
@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_what_is_shown_is_what_is_printed(page: Path, tmp_path: Path) -> None:
    directory = tmp_path
    commands = [shown for shown in in_markdown(page) if shown.options is None]
    assert commands
    for shown in commands:
        program, *words = shown.command
        if program == "cd":
            directory /= words[0]
            continue
        write_files(directory, shown)
        done = subprocess.run(
            [*PROGRAMS[program], *words],
            cwd=directory,
            env={**os.environ, "PYTEST_ADDOPTS": "-p no:cacheprovider"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        assert matches(shown.output, done.stdout), f"{shown.place} printed:\n{done.stdout}\nshown:\n{shown.output}"
