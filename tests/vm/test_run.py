# SPDX-License-Identifier: MIT
"""The environment of COMMAND in the guest, and what the host gets back from it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import LIMIT, Vm

ARGUMENTS = ["", "a b", "it's", '"$HOME"', "`x`", "new\nline", "\\", "*", "-v", "--", "ä", "\udcff\udc80", "!", "#"]
INPUT = os.urandom(1 << 18)
OUTPUT = bytes(range(256)) * 256 * 4


@dataclass
class Finished:
    """Return the result of the one run that most tests here check."""

    result: subprocess.CompletedProcess[bytes]
    report: dict[str, Any]
    output: bytes
    directory: Path
    out: Path
    environment: dict[str, str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    vm = Vm()
    directory = tmp_path_factory.mktemp("working dir, with 'odd' name")
    out = tmp_path_factory.mktemp("out,put")
    odd = {"ODD NAME": "x", "MULTI": "a\nb'c\"", "BYTES": "\udcfe", "BASH_FUNC_f%%": "() { :; }", "OUT": str(out)}
    environment = {**os.environ, **odd}
    words = ["--out", str(out)]
    words += ["--device", "edu", "--device", "edu,dma_mask=0xffffffffffffffff,id=second"]
    report = Path(__file__).with_name("guest_report.py")
    result = vm.run(*words, "--", sys.executable, str(report), *ARGUMENTS, stdin=INPUT, cwd=directory, env=environment)
    assert result.returncode == 7, result.stderr
    line, _, output = result.stdout.partition(b"\n")
    assert not vm.left()
    return Finished(result, json.loads(line), output, directory, out, environment)


def test_streams_stay_separate_and_complete(finished: Finished) -> None:
    assert finished.result.stderr == b"this is standard error\n"
    assert finished.output == OUTPUT
    assert finished.report["stdin"] == hashlib.sha256(INPUT).hexdigest()
    assert finished.report["terminals"] == []


def test_arguments_arrive_byte_by_byte(finished: Finished) -> None:
    assert [bytes.fromhex(word) for word in finished.report["arguments"]] == [os.fsencode(word) for word in ARGUMENTS]


def test_environment_is_the_callers(finished: Finished) -> None:
    got = {bytes.fromhex(k): bytes.fromhex(v) for k, v in finished.report["environment"].items()}
    wanted = {os.fsencode(k): os.fsencode(v) for k, v in finished.environment.items()}
    for variables in (got, wanted):
        variables.pop(b"LC_CTYPE", None)  # Python sets it itself in the C locale (PEP 538)
        variables.pop(b"PWD", None)
        variables.pop(b"OLDPWD", None)
    assert got == wanted


def test_signals_are_not_ignored(finished: Finished) -> None:
    interrupt, *others = finished.report["signals"]
    assert "default_int_handler" in interrupt
    assert others == [str(signal.SIG_DFL)] * 2


def test_directory_and_python_are_the_callers(finished: Finished) -> None:
    assert finished.report["directory"] == str(finished.directory)
    assert finished.report["python"] == sys.executable


def test_kernel_is_the_guests_with_its_modules(finished: Finished, kernel: Path) -> None:
    release = finished.report["release"]
    assert (kernel / "lib/modules" / release).is_dir()
    assert finished.report["modprobe"] == [0, ""]
    assert finished.report["uio"]


def test_devices_are_those_asked_for(finished: Finished) -> None:
    assert finished.report["ids"].count("1234:11e8") == 2


def test_guest_is_a_complete_system(finished: Finished) -> None:
    assert all(finished.report["links"])
    assert finished.report["udev"] == [0, ""]
    assert finished.report["clock"] in ("tsc", "kvm-clock", "arch_sys_counter")
    assert finished.report["loopback"] == "unknown"  # the state of a loopback interface that is up


def test_only_out_is_written(finished: Finished) -> None:
    assert list(finished.directory.iterdir()) == []
    assert (finished.out / "carried").read_text() == "back"


def test_default_device_signal_status_and_a_program_with_an_equals_sign(vm: Vm, tmp_path: Path) -> None:
    vm.one_thread = False
    program = tmp_path / "a=b"
    script = "readlink /proc/$$/exe; echo $0; grep -l 0x11e8 /sys/bus/pci/devices/*/device; kill -9 $$"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    result = vm.run("--", "./a=b", cwd=tmp_path)
    assert result.returncode == 128 + 9
    shell, name, *devices = result.stdout.decode().splitlines()
    assert shell == str(Path(shutil.which("sh") or "").resolve())  # the host's, not one of busybox's applets
    assert name == "./a=b"
    assert len(devices) == 1


def test_programs_beside_pyuio_are_found_without_activation(vm: Vm) -> None:
    elsewhere = {**os.environ, "PATH": "/usr/bin:/bin"}
    result = vm.run("--", "python", "-ISc", "import sys; print(sys.executable)", env=elsewhere)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode().strip() == str(Path(sys.executable).with_name("python"))


def test_no_device_and_command_not_found(vm: Vm) -> None:
    result = vm.run("--device", "none", "-v", "no-such-program", "-v", "--memory")
    assert result.returncode == 127
    assert b"no-such-program" in result.stderr
    assert b"-device edu" not in result.stderr
    assert b"s from start to COMMAND" in result.stderr
    assert (b"-accel tcg,thread=single" in result.stderr) == (b"-accel tcg" in result.stderr)
    assert b"acceleration: " in result.stderr


def test_a_boot_shows_the_kernels_lines(vm: Vm) -> None:
    with vm.start("--boot", "-v", "--", "true") as process:
        assert process.stderr is not None
        said = b""
        while b"Linux version" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.terminate()  # the rest of a boot takes seconds
        process.stderr.read()
        assert process.wait(10) == 128 + signal.SIGTERM
    assert b"boots: --boot" in said


def test_reader_that_goes_away_ends_it_quietly(vm: Vm) -> None:
    with vm.start("--", "yes") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_directory_that_the_guest_does_not_see(vm: Vm) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        result = vm.run("--", "true", cwd=Path(directory))
    assert result.returncode == 125
    assert f"the guest does not see {directory}".encode() in result.stderr


@pytest.mark.long
def test_closed_and_full_streams(vm: Vm) -> None:
    command = shlex.join(vm.command("--", "sh", "-c", "cat; echo output; echo error >&2"))
    result = subprocess.run(["sh", "-c", f"{command} <&- >/dev/full"], capture_output=True, timeout=LIMIT, check=False)
    assert result.returncode == 125
    assert b"COMMAND's output cannot be written: No space left on device" in result.stderr
