# SPDX-License-Identifier: MIT
"""Commands that run in the process of the tests: under emulation a fork takes several times as long as most of them.

A command that asks who has a device, that waits, or that loads a driver from a file belongs in a fork.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from unittest import mock

from pyuio import cli, installed_drivers
from tests.guest.support import known_drivers, load_command


def command_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``pyuio`` with these words in this process."""
    load_command()
    status: object = 0
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        mock.patch.object(sys, "argv", ["pyuio", *words]),
        mock.patch.object(installed_drivers, "installed_drivers", known_drivers),
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
