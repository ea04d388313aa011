# SPDX-License-Identifier: MIT
"""Every way in which a run can end other than by COMMAND: each has a message and a status, and leaves no QEMU."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.guest.support import pyuio_command

from .conftest import PYUIO, Vm


def test_time_limit(vm: Vm) -> None:
    result = vm.run("--timeout", "4.5", "--", "sh", "-c", "echo started; exec sleep 1000")
    assert result.returncode == 124
    assert result.stdout in (b"started\n", b"")  # a busy machine may still be booting
    assert b"the time limit of 4.5 s passed" in result.stderr


@pytest.mark.long  # test_terminal.py does it at a terminal
def test_ctrl_c_while_command_runs(vm: Vm) -> None:
    with vm.start("--", "sh", "-c", "echo started; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"started\n", process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert b"pyuio: ended by Ctrl-C\n" in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_while_it_boots(vm: Vm, number: signal.Signals) -> None:
    with vm.start("--", "true") as process:
        assert process.stderr is not None
        vm.wait_for_qemu()
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert f"pyuio: ended by {number.name}\n".encode() in process.stderr.read()


def test_killed_outright_takes_qemu_along(vm: Vm) -> None:
    with vm.start("--", "true") as process:
        vm.wait_for_qemu()
        time.sleep(0.3)  # setpriv itself has started
        process.kill()
        process.wait(10)
        assert not vm.left()


def test_kernel_panic(vm: Vm) -> None:
    result = vm.run("--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000")
    assert result.returncode == 123
    assert b"pyuio: the guest's kernel panicked: sysrq triggered crash\n" in result.stderr
    assert b"Call Trace" in result.stderr or b"RIP" in result.stderr  # the last lines


def test_qemu_abort(vm: Vm) -> None:
    with vm.start("--", "sh", "-c", "echo started; exec sleep 1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"started\n", process.stderr.read()
        os.kill(vm.wait_for_qemu(), signal.SIGABRT)
        assert process.wait(10) == 122
        assert b"pyuio: QEMU was ended by signal 6" in process.stderr.read()


def test_guest_that_switches_itself_off(vm: Vm) -> None:
    result = vm.run("--", "sh", "-c", "echo o >/proc/sysrq-trigger; sleep 1000")
    assert result.returncode == 122
    assert b"the guest switched itself off before COMMAND ended" in result.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--device", "nonsuch"], 125, "'nonsuch' is not a valid device model name"),
        (["--device", "edu,bogus=1"], 125, "bogus"),
        (["--device", "-edu"], 2, "a device must be"),
        (["--device", "none", "--device", "edu"], 2, "--device none"),
        (["--memory", "much"], 2, "memory must be"),
        (["--memory", "16M"], 2, "at least 128M"),
        (["--cpus", "0"], 2, "cpus must be from 1 to 255"),
        (["--cpus", "two"], 2, "--cpus"),
        (["--timeout", "0"], 2, "timeout must be more than 0"),
        (["--timeout", "nan"], 2, "timeout must be more than 0"),
        (["--out", "/no/such"], 2, "out must be a directory"),
        (["--out", "/"], 2, "out must be a directory"),
        (["--qemu", "'"], 2, "quotation"),
        (["--qemu", "-nonsense"], 125, "-nonsense"),
        (["-M", "nonsense"], 125, "machine"),
        (["--kernel", "/no/such"], 125, "no kernel '/no/such'"),
        (["--kernel", "/etc/passwd"], 125, "not a Linux kernel"),
        (["--nonsense"], 2, "nonsense"),
    ],
)
def test_bad_input(vm: Vm, words: list[str], status: int, message: str) -> None:
    result = pyuio_command(*vm.command(*words, "--", "true")[len(PYUIO) :])
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
