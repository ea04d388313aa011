# SPDX-License-Identifier: MIT
"""A guest that stands still is noticed, and a report says what its kernel and QEMU were at."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyuio.vm import machine
from pyuio.vm.monitor import Monitor

from .conftest import LIMIT, PYUIO, Vm

# The limits of real use are half a minute and more.
QUICK = """
import sys
from pyuio.cli import main
from pyuio.vm import hang_report, session
session.HEARTBEAT, session.SILENCE_LIMIT, hang_report.KERNEL_TIME = 1, 4.0, 1.0
sys.argv[0] = "pyuio"
main()
"""
# What tells the host that the guest is alive is stopped. This takes no processor time.
SILENT = """
port=$(readlink -f /run/pyuio/port.heartbeat)
for process in $(cat /proc/1/task/1/children); do
    [ "$(readlink /proc/$process/fd/1)" = "$port" ] && kill -STOP $process
done
echo started
exec sleep 1000
"""
# Nothing but these two runs any more: they have the highest priority, and no limit on their share of the processors.
# Linux 6.12 and later leave ordinary programs a share of their own.
BUSY = """
import os, time
from pathlib import Path
Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
for share in Path("/sys/kernel/debug/sched/fair_server").glob("cpu*/runtime"):
    share.write_text("0")
print("started", flush=True)
time.sleep(1)
parent = os.fork()
os.sched_setaffinity(0, {1 if parent else 0})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
while True:
    pass
"""


def quick(vm: Vm, *words: str) -> list[str]:
    """Return the command for a guest, with shorter limits."""
    return [sys.executable, "-c", QUICK, *vm.command(*words)[len(PYUIO) :]]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("command", "state"),
    [
        pytest.param(["sh", "-c", SILENT], "S", id="silent"),
        # The host notices it in the same way.
        pytest.param([sys.executable, "-I", "-c", BUSY], "R", id="busy", marks=pytest.mark.long),
    ],
)
def test_a_guest_that_stands_still(vm: Vm, command: list[str], state: str) -> None:
    done = run(quick(vm, "--", *command))
    assert (done.returncode, done.stdout) == (121, "started\n"), done.stderr
    assert "pyuio: the guest stood still for 4 s" in done.stderr
    assert "Show Blocked State" in done.stderr  # sysrq w: the kernel itself was well
    assert "NMI backtrace for cpu 1" in done.stderr  # sysrq l
    assert done.stderr.count("CPU#1") == 2  # registers, twice
    assert "ISR" in done.stderr  # the local interrupt controllers
    assert f"qemu-system-x86: {state}" in done.stderr  # a thread of QEMU


def test_where_qemu_loses_interrupts_one_thread_does_all() -> None:
    qemu = machine.find_qemu()
    ports = machine.Options(devices=("pcie-root-port,id=slot,chassis=1", "edu,bus=slot"))
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    old = "version 7." in version or "version 8.0" in version or "version 8.1" in version
    assert machine.needs_one_thread(qemu, "tcg", ports) is old
    assert not machine.needs_one_thread(qemu, "tcg", machine.Options())
    assert not machine.needs_one_thread(qemu, "kvm", ports)
    assert machine.needs_one_thread(qemu, "tcg", machine.Options(one_thread=True))
    assert not machine.needs_one_thread(qemu, "kvm", machine.Options(one_thread=True))
    assert "tcg,thread=single" in machine.base(qemu, "tcg", ports, {}, one_thread=True)


def test_qemu_that_stands_still(vm: Vm) -> None:
    command = quick(vm, "--", "sh", "-c", "echo started; exec sleep 1000")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"started\n", process.stderr.read()
        os.kill(vm.wait_for_qemu(), signal.SIGSTOP)
        assert process.wait(LIMIT) == 121
        said = process.stderr.read().decode()
    assert "QEMU's monitor did not answer within" in said
    assert "qemu-system-x86: T" in said


@pytest.mark.long
def test_a_command_that_kills_what_it_can(vm: Vm) -> None:
    done = run(quick(vm, "--", "sh", "-c", "kill -9 -1; sleep 8; exit 4"))
    assert done.returncode == 4, done.stderr


@pytest.mark.long
def test_a_pause_of_this_program_is_none_of_the_guest(vm: Vm) -> None:
    command = quick(vm, "--", "sh", "-c", "echo started; sleep 10; exit 5")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        process.send_signal(signal.SIGCONT)
        assert process.wait(LIMIT) == 5


@pytest.mark.long
def test_a_guest_that_somebody_stopped_is_let_alone(vm: Vm, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    command = quick(
        vm, f"--qemu=-qmp unix:{path},server=on,wait=off", "--", "sh", "-c", "echo started; sleep 2; exit 6"
    )
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            monitor = Monitor(connection)
            monitor.ask("stop")
            time.sleep(5)
            monitor.ask("cont")
            assert process.wait(LIMIT) == 6
