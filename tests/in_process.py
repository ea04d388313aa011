# SPDX-License-Identifier: MIT
"""The command ``pyuio`` in the process of the tests: to start Python, and import what a command needs, takes longer.

What is about a process (signals, its end, its memory) needs one of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from unittest import mock

from pyuio import cli


def command_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``pyuio`` with these words to its end."""
    status: object = 0
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        mock.patch.object(sys, "argv", ["pyuio", *words]),
    ):
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code or 0
        for file in (output, errors):
            file.seek(0)
        assert isinstance(status, int)
        return subprocess.CompletedProcess(words, status, output.read(), errors.read())
