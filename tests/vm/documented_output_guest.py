# SPDX-License-Identifier: MIT
"""Runs the commands of a JSON file in a guest for test_documented_output.py, and prints each one's output as JSON.

Under emulation each command takes 2 s to start Python and to import. So pyuio's own commands run in forks of this
program, which has done the imports. Each command still has an interpreter of its own, and ends by itself.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyuio_drivers.edu  # most commands import it

import pyuio
from pyuio.claim import binding
from pyuio.kernel.drivers import GENERIC_DRIVERS

LIMIT = 180  # seconds for one command


def become(command: list[str]) -> int:
    """Run a command in this process, a fork of its own; return its exit status, or raise SystemExit."""
    program, *arguments = command
    if program == "python" and arguments[0].endswith(".py"):
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")
        return 0
    sys.argv = command
    if program == "pyuio":
        from pyuio import cli

        cli.main()
        return 0
    if program == "pytest":
        import pytest

        sys.path[0] = ""
        # pytest would warn that pyuio, whose plugin it loads, is imported in this fork already.
        return int(pytest.main([*arguments, "-W", "ignore::pytest.PytestAssertRewriteWarning"]))
    return subprocess.run(command, check=False).returncode


def finished(child: int, output: int) -> tuple[int, str]:
    """Wait for a child; return its exit status and what it printed."""
    deadline, data = time.monotonic() + LIMIT, b""
    while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        more = os.read(output, 65536)
        data += more
        if not more:
            break
    else:
        os.kill(child, signal.SIGKILL)
    os.close(output)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, data.decode(errors="replace")


def give_back() -> None:
    """Unbind what a command left bound, and clear what it left in edu: as documented, the next has a new guest."""
    for device in pyuio.devices():
        if device.address and device.driver in GENERIC_DRIVERS:
            binding.unbind(device.address)
        if device.ids == "1234:11e8":
            with pyuio_drivers.edu.Edu.open(device) as edu:
                edu.registers.dma_source.write(0)


# Set PATH as in an activated virtual environment, so that a shell finds its programs, too.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
jobs = json.loads(Path(sys.argv[1]).read_text())
if any(command[0] == "pyuio" for _, command in jobs):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.guest.support import load_command

    load_command()
results = []
for directory, command in jobs:
    output, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(end, 1)
        os.dup2(end, 2)
        os.close(end)
        os.close(output)
        os.chdir(directory)
        sys.exit(become(command))  # so it ends as any program does: threads, buffers, atexit
    os.close(end)
    results.append(finished(child, output))
    give_back()
print(json.dumps(results))
