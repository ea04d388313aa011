# SPDX-License-Identifier: MIT
"""Commands that run in the process of the tests: under emulation a fork takes several times as long as most of them.

A command that asks who has a device, that waits, or that loads a driver from a file belongs in a fork.
"""

from __future__ import annotations

import subprocess
from unittest import mock

from pyuio import installed_drivers
from tests import in_process
from tests.guest.support import known_drivers, load_command


def command_here(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``pyuio`` with these words in this process."""
    load_command()
    with mock.patch.object(installed_drivers, "installed_drivers", known_drivers):
        return in_process.command_here(*words)
