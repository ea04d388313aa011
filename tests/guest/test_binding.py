# SPDX-License-Identifier: MIT
"""Binding by several processes at once, and by one that is killed half way: the former driver gets the device back."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio.claim import binding, binding_record
from pyuio.claim.claim import claim
from pyuio.doctor.device import look_at_pin
from pyuio.kernel import preempt_rt, trusted_file
from pyuio.kernel.drivers import bound_driver, load_driver
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci.discovery import find
from tests.guest.support import PCI_SERIAL, Cards, attribute

UIO = "uio_pci_generic"


@pytest.fixture
def serial(cards: Cards) -> Iterator[str]:
    """The address of a serial port that the kernel's driver has; the fixture gives it back in the end."""
    (address,) = cards(PCI_SERIAL)
    load_driver(UIO)
    yield address
    binding.unbind(address)
    assert is_as_before(address)


def is_as_before(address: str) -> bool:
    held = (bound_driver(address), attribute(address, "driver_override"), binding_record.load(address))
    return held == ("serial", "(null)", None)


def dies_after(steps: int, work: Callable[[], object]) -> bool:
    """Call a function in a forked child that is killed after so many writes of files; return whether it finished."""
    child = os.fork()
    if child == 0:
        left = steps

        def counted(function: Any) -> Any:
            def step(*arguments: object) -> object:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return function(*arguments)

            return step

        binding._write = counted(binding._write)
        binding._remember = counted(binding._remember)
        try:
            work()
        finally:
            os._exit(left >= 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL


def bind_and_undo(address: str) -> None:
    binding.bind(address).undo()


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.long)])
def test_killed_half_way(serial: str, step: int) -> None:
    """Kill a process at a step of binding and giving back; then `unbind`, or bind another driver and undo that."""
    for steps in range(0, 20, step):
        if dies_after(steps, lambda: bind_and_undo(serial)):
            break
        binding.unbind(serial)
        assert is_as_before(serial), f"unbound after {steps} steps"
        assert not dies_after(steps, lambda: bind_and_undo(serial))
        binding.bind(serial).undo()
        binding.unbind(serial)
        assert is_as_before(serial), f"bound again after {steps} steps"
    assert steps == 9


def test_given_back_by_the_next_driver(serial: str) -> None:
    """The process was killed when only the kernel's driver was unbound, or only the override was set."""
    for steps in (3, 4):
        assert not dies_after(steps, lambda: binding.bind(serial))
        assert bound_driver(serial) != UIO
        binding.bind(serial).undo()
        assert is_as_before(serial)


ROUNDS = pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.long)])


def at_once(*works: Callable[[], str]) -> list[str]:
    """Call each function in its own process, all at once; return their results, or the names of what they raise."""
    waiting, go = os.pipe()
    children = []
    for work in works:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(go)
                os.read(waiting, 1)
                try:
                    answer = work()
                except Exception as error:
                    answer = type(error).__name__
                os.write(writing, answer.encode())
            finally:
                os._exit(0)
        os.close(writing)
        children.append((child, reading))
    os.close(waiting)
    os.close(go)
    answers = []
    for child, reading in children:
        with os.fdopen(reading) as file:
            answers.append(file.read())
        os.waitpid(child, 0)
    return answers


@ROUNDS
def test_one_of_several_binds_and_one_gives_back(serial: str, rounds: int) -> None:
    for _ in range(rounds):
        assert sorted(at_once(*[lambda: str(binding.bind(serial).previous)] * 3)) == ["serial", UIO, UIO]
        record = binding_record.load(serial)
        assert record is not None
        assert (record.driver, record.previous, record.previous_override) == (UIO, "serial", "")
        given_back = at_once(*[lambda: str(binding.unbind(serial).given_back)] * 3)
        assert sorted(given_back) == ["False", "False", "True"]
        assert is_as_before(serial)


@ROUNDS
def test_binding_against_giving_back(serial: str, rounds: int) -> None:
    for _ in range(rounds):
        assert "" not in at_once(
            *[lambda: str(binding.bind(serial).previous), lambda: str(binding.unbind(serial).driver)] * 2
        )
        if bound_driver(serial) == UIO:
            record = binding_record.load(serial)
            assert record is not None
            assert (record.previous, record.previous_override) == ("serial", "")
            binding.unbind(serial)
        assert is_as_before(serial)


@ROUNDS
def test_one_of_several_opens(serial: str, rounds: int) -> None:
    """The process that opens the device keeps it until the others have tried."""
    done, undone = os.pipe()

    def open_it() -> str:
        try:
            device = pyuio.open(serial, bind=True)
        finally:
            os.write(undone, b"x")
        for _ in range(3):
            os.read(done, 1)
        device.close()
        return "opened"

    for _ in range(rounds):
        assert sorted(at_once(*[open_it] * 3)) == ["DeviceBusyError", "DeviceBusyError", "opened"]
        assert is_as_before(serial)
    os.close(done)
    os.close(undone)


def test_who_undoes_what_another_did_leaves_it(serial: str) -> None:
    first = binding.bind(serial)
    second = binding.bind(serial)
    second.undo()
    assert bound_driver(serial) == UIO
    first.undo()
    second.undo()
    assert is_as_before(serial)


def test_another_process_that_does_not_let_go(serial: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_LOCK_SECONDS", 0.1)
    path = trusted_file.lock_path(serial)
    with os.fdopen(trusted_file.open_lock(serial), "w") as file:
        assert file.writable()
        fcntl.flock(file, fcntl.LOCK_EX)
        for use in (lambda: binding.bind(serial), lambda: binding.unbind(serial)):
            with pytest.raises(pyuio.DeviceBusyError, match=f"{serial}: another process .*fuser {path} shows which"):
                use()


def test_another_user_locks_nobody_out(serial: str, edu: str) -> None:
    """Whoever can read a file can lock it: a user without any right holds locks of all files that he can open."""
    program = """
import fcntl, os, sys
from pathlib import Path
os.setgid(65534), os.setuid(65534)
held = []
for directory in map(Path, sys.argv[1:]):
    for path in [*directory.rglob("*"), *Path("/run/pyuio").rglob("*")]:
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        held.append(path.name)
print(*held, flush=True)
sys.stdin.read()
"""
    binding.bind(serial).undo()  # makes the files in /run/pyuio
    bridges = (str(one.address) for one in pyuio.devices() if one.class_code == 0x060000 and one.driver is None)
    without_bars = next((one for one in bridges if not [*Path(PCI_DEVICES, one).glob("resource[0-5]")]), None)
    undo = binding.bind(without_bars).undo if without_bars is not None else list
    places = [f"/sys/bus/pci/devices/{address}" for address in (serial, edu, without_bars) if address]
    command = [sys.executable, "-S", "-c", program, *places]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        held = attacker.stdout.readline().split()
        assert {"config", "driver_override"} <= {*held}
        assert "resource0" not in held
        with pyuio.open(edu, bind=True) as device:
            assert device.bar(0).read32(0) == 0x010000ED
        assert bound_driver(edu) is None
        if without_bars is not None:
            with pyuio.open(without_bars) as device:
                assert device.config is not None
                with pytest.raises(pyuio.DeviceBusyError, match="is open already"):
                    pyuio.open(without_bars)
        binding.bind(serial).undo()
        assert is_as_before(serial)
        undo()
        attacker.stdin.close()


def test_what_can_freeze_a_realtime_kernel_is_refused(edu: str, igb_uio: Path) -> None:
    """pyuio refuses to bind igb_uio, and to open its device. Loading it is harmless until its /dev/uioN is opened."""
    if not preempt_rt.is_realtime():
        pytest.skip("this kernel is not PREEMPT_RT: debian-rt is")
    subprocess.run(["modprobe", "uio"], check=True)
    subprocess.run(["insmod", igb_uio], check=True)
    device = Path("/sys/bus/pci/devices", edu)
    try:
        with pytest.raises(pyuio.KernelSupportError, match="igb_uio can freeze a PREEMPT_RT kernel"):
            claim(find(edu), "igb_uio")
        assert bound_driver(edu) is None
        (device / "driver_override").write_text("igb_uio")
        Path("/sys/bus/pci/drivers_probe").write_text(edu)
        assert bound_driver(edu) == "igb_uio"
        with pytest.raises(pyuio.KernelSupportError, match="igb_uio can freeze a PREEMPT_RT kernel"):
            pyuio.open(edu)
        answer = look_at_pin(find(edu))
        assert answer is not None
        assert (answer.state, answer.remedy) == ("blocks", f"pyuio bind {edu} --driver uio_pci_generic")
    finally:
        (device / "driver_override").write_text("\n")
        subprocess.run(["rmmod", "igb_uio"], check=True)
