# SPDX-License-Identifier: MIT
"""The process that pyuio starts QEMU in, with another program in QEMU's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SHOW = """
from pathlib import Path
from pyuio.vm.process import Process

with Process(["sleep", "100"], []) as process:
    print(Path(f"/proc/{process.pid}/autogroup").read_text())
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroup")
@pytest.mark.parametrize("nice", [0, 3])
def test_its_session_is_as_nice_as_this_program(nice: int) -> None:
    command = ["nice", "-n", str(nice), sys.executable, "-c", SHOW]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before = int(subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout)
    assert shown.split()[1:] == ["nice", str(min(19, before + nice))]
