# SPDX-License-Identifier: MIT
"""The process that pyuio starts QEMU in, and how its time is counted, with other programs in QEMU's place."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyuio.vm.process import Process
from pyuio.vm.session import Clock

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


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not tell how long threads wait")
def test_time_in_which_others_have_its_processor_counts_less() -> None:
    busy = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), "sh", "-c", "while :; do :; done"]
    with Process(busy, []) as first, Process(busy, []), Process(["sleep", "100"], []) as sleeping:
        busy_clock, sleeping_clock = Clock(first), Clock(sleeping)
        time.sleep(1.5)
        assert 0 < busy_clock.passed() < sleeping_clock.passed()


def test_time_of_a_process_that_is_gone_goes_on() -> None:
    with Process(["true"], []) as process:
        clock = Clock(process)
        process.wait()
        time.sleep(1)
        assert clock.passed() >= 1
        assert process.delays() == {}
