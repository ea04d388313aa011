# SPDX-License-Identifier: MIT
"""``pyuio read``, ``pyuio write`` and ``pyuio dump`` on real devices."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from pyuio.claim import binding
from pyuio.inspect.inspection import Inspection
from pyuio.kernel.drivers import bound_driver
from pyuio.pci.discovery import find
from tests.guest.commands.in_process import command_here
from tests.guest.support import PATIENCE, PCI_SERIAL, Cards, pyuio_beside, pyuio_command

SCRATCH = "bar0+7"  # the scratch register of a 16550: it keeps the written value, which has no effect


def output(*words: str) -> str:
    """Return what a command prints; it must succeed, without a warning."""
    done = command_here(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def failure(status: int, *words: str) -> str:
    """Return the message of a command; it must fail."""
    done = command_here(*words)
    assert (done.returncode, done.stdout) == (status, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr


def config_bytes(address: str) -> bytes:
    return Path("/sys/bus/pci/devices", address, "config").read_bytes()


def test_a_device_that_is_bound_to_nothing(edu: str) -> None:
    binding.bind(edu).undo()  # without firmware, only a driver switches the card's memory on
    assert output("write", edu, "bar0+0x04", "7") == ""
    assert output("read", edu, "bar0+0x04") == "0xfffffff8\n"
    assert output("read", edu, "bar0", "--count", "2") == "bar0+0x00  0x010000ed\nbar0+0x04  0xfffffff8\n"
    assert json.loads(output("read", edu, "BAR0+4", "--json")) == {
        "format": 1,
        "device": edu,
        "registers": [{"place": "bar0+0x04", "width": 32, "value": 0xFFFFFFF8}],
    }
    assert output("write", edu, "bar0+0x80", "0x123456789a", "--width", "64") == ""
    assert output("read", edu, "bar0+0x80", "--width", "64") == "0x000000123456789a\n"
    assert bound_driver(edu) is None


def test_a_device_that_a_driver_in_user_space_has(edu: str) -> None:
    undo = binding.bind(edu)
    try:
        assert output("read", edu, "bar0") == "0x010000ed\n"
        assert output("write", edu, "bar0+4", "0b1010") == ""
        node = Path("/sys/bus/pci/devices", edu, "uio")
        with Path("/dev", next(node.iterdir()).name).open("rb"):
            done = pyuio_command("write", edu, "bar0+4", "5")
            assert done.returncode == 0
            assert "has /dev/uio0 open, and may not expect writes" in done.stderr
    finally:
        undo.undo()


def test_configuration_space(edu: str) -> None:
    assert output("read", edu, "config", "--width", "16") == "0x1234\n"
    assert output("read", edu, "config+0") == "0x11e81234\n"
    assert output("read", edu, "config+2", "--width", "8", "--count", "2") == "config+0x02  0xe8\nconfig+0x03  0x11\n"
    before = config_bytes(edu)
    assert "would change a BAR" in failure(1, "write", edu, "config+0x10", "0")
    assert failure(1, "write", edu, "config+4", "0", "--width", "16").endswith("insist with --force\n")
    assert config_bytes(edu) == before
    line = before[0x3C]
    assert output("write", edu, "config+0x3c", str(line ^ 1), "--width", "8", "--force") == ""
    assert config_bytes(edu)[0x3C] == line ^ 1
    assert output("write", edu, "config+0x3c", str(line), "--width", "8", "--force") == ""


def test_names(edu: str) -> None:
    assert output("read", edu, "bar0.liveness").split()[0].startswith("0x")
    assert output("write", edu, "bar0.liveness", "7") == ""
    assert output("read", edu, "bar0.liveness").split()[0] == "0xfffffff8"
    register = output("read", edu, "bar0.status")
    assert register.startswith("0x00000000  ")
    assert "computing=0" in register
    assert output("read", edu, "bar0.status.computing") == "0\n"
    answer = json.loads(output("read", edu, "bar0.status", "--json"))["registers"][0]
    assert (answer["place"], answer["width"], answer["value"], answer["fields"]["computing"]) == (
        "bar0.status",
        32,
        0,
        0,
    )
    assert "there is status" in failure(1, "read", edu, "bar0.stauts")
    assert "read-only" in failure(1, "write", edu, "bar0.status.computing", "1")
    assert "their own widths" in failure(2, "read", edu, "bar0.status", "--width", "32")


def test_a_field_is_written_and_the_rest_kept(edu: str) -> None:
    assert output("write", edu, "bar0.status.interrupt_after_factorial", "1") == ""
    assert output("read", edu, "bar0+0x20") == "0x00000080\n"
    assert output("write", edu, "bar0.status.interrupt_after_factorial", "0") == ""
    assert output("read", edu, "bar0+0x20") == "0x00000000\n"
    assert "does not fit the 1 bits" in failure(2, "write", edu, "bar0.status.interrupt_after_factorial", "2")


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("bar0+0xffffc", "--count", "2"), "2 of 32 bits end at 0x100004, and bar0 at 0x100000"),
        (("bar0+2",), "not a multiple of 4; give --width 16"),
        (("config+0", "--width", "64"), "has no 64-bit access"),
        (("bar0", "--interval", "nan"), "--interval"),
    ],
)
def test_wrong_places(edu: str, words: tuple[str, ...], why: str) -> None:
    assert why in " ".join(failure(2, "read", edu, *words).replace("│", " ").split())


def test_beyond_the_end(edu: str) -> None:
    assert "32 bits end at 0x100004, and bar0 at 0x100000" in failure(2, "read", edu, "bar0+0x100000")


@pytest.mark.long
def test_wrong_values(edu: str) -> None:
    assert "does not fit the 8 bits" in failure(2, "write", edu, "bar0+4", "0x100", "--width", "8")
    assert "a number from 0" in failure(2, "write", edu, "bar0+4", "seven")
    assert "a number from 0" in failure(2, "write", edu, "bar0+4", "--", "-1")
    assert "has no BAR 1 with an address; it has: BAR 0" in failure(1, "read", edu, "bar1")


@pytest.mark.parametrize("driver", [None, pytest.param("pci-stub", marks=pytest.mark.long)])
def test_memory_that_is_switched_off(edu: str, driver: str | None) -> None:
    """The advice of the message helps whether a driver has the device or none."""
    command = output("read", edu, "config+4", "--width", "16").strip()
    off = ("write", edu, "config+4", hex(int(command, 16) & ~2), "--width", "16", "--force")
    try:
        output(*off)
        for words in (("write", edu, "bar0+4", "1"), ("dump", edu, "bar0")) if driver else ():
            assert "has no MEMORY_SPACE), and every bit would read as 1" in failure(1, *words)
        undo = binding.bind(edu, driver) if driver else None
        try:
            output(*off)
            said = failure(1, "read", edu, "bar0")
            assert "has no MEMORY_SPACE), and every bit would read as 1" in said
            advice = said.split("as root: ")[1].split()
            assert advice[0] == "pyuio"
            output(*advice[1:])
            assert output("read", edu, "bar0") == "0x010000ed\n"
        finally:
            if undo:
                undo.undo()
    finally:
        output("write", edu, "config+4", command, "--width", "16", "--force")


def test_watching_memory_that_is_switched_off(edu: str) -> None:
    command = output("read", edu, "config+4", "--width", "16").strip()
    output("write", edu, "bar0+4", "1")
    with pyuio_beside("read", edu, "bar0+4", "--watch", "--interval", "0.01") as watcher:
        assert watcher.stdout.readline().split()[-1] == "0xfffffffe"
        try:
            output("write", edu, "config+4", hex(int(command, 16) & ~2), "--width", "16", "--force")
            rest, errors = watcher.communicate(PATIENCE)
        finally:
            output("write", edu, "config+4", command, "--width", "16", "--force")
    assert (watcher.returncode, rest) == (1, "")
    assert "has no MEMORY_SPACE), and every bit would read as 1" in errors


def test_a_device_that_a_kernel_driver_has(cards: Cards) -> None:
    (serial,) = cards(PCI_SERIAL)
    with Inspection(find(serial)) as device:
        ports = device.bar(0)
        ports.write8(7, 0x21)
        said = failure(1, "write", serial, SCRATCH, "0x5a", "--width", "8")
        assert "is held by the kernel driver serial" in said
        assert "--force" in said
        assert ports.read8(7) == 0x21
        done = pyuio_command("read", serial, SCRATCH, "--width", "8")
        assert (done.returncode, done.stdout) == (0, "0x21\n")
        assert f"warning: the kernel driver serial has {serial}" in done.stderr
        assert pyuio_command("read", serial, "bar0.scr").stdout == "0x21\n"
        done = pyuio_command("write", serial, SCRATCH, "0x5a", "--width", "8", "--force")
        assert (done.returncode, ports.read8(7)) == (0, 0x5A)
        assert "warning" in done.stderr
        assert output("read", serial, "config", "--width", "16") == "0x1b36\n"
        assert "I/O ports have no 64-bit access" in failure(2, "read", serial, "bar0", "--width", "64")
    assert bound_driver(serial) == "serial"


def test_dumps(edu: str) -> None:
    lines = output("dump", edu).splitlines()
    expected = config_bytes(edu)
    assert lines[0].startswith("00000000  " + " ".join(f"{byte:02x}" for byte in expected[:16]))
    assert json.loads(output("dump", edu, "config", "--json"))["values"] == list(expected)
    output("write", edu, "bar0+4", "7")
    assert output("dump", edu, "bar0", "--length", "8") == "00000000  010000ed fffffff8\n"
    done = pyuio_command("dump", edu, "bar0")
    assert (done.returncode, done.stderr) == (0, "pyuio: 0x100 of 0x100000 bytes; --length and --offset give others\n")
    assert done.stdout.startswith("00000000  010000ed fffffff8 ")


def test_a_dump_by_name(edu: str) -> None:
    output("write", edu, "bar0+4", "7")
    lines = output("dump", edu, "bar0", "--names").splitlines()
    assert "0x0004  liveness = 0xfffffff8" in [line.split("  (")[0].rstrip() for line in lines]
    assert any(line.endswith("raise_interrupt = write-only") for line in lines)
    registers = {
        entry["place"]: entry for entry in json.loads(output("dump", edu, "bar0", "--names", "--json"))["registers"]
    }
    assert registers["bar0.liveness"]["value"] == 0xFFFFFFF8
    assert registers["bar0.raise_interrupt"]["value"] is None
    assert registers["bar0.status"]["offset"] == 0x20
    output("write", edu, "bar0.status.interrupt_after_factorial", "1")
    done = pyuio_command("dump", edu, "bar0", "--names", "--set")
    assert done.stderr.endswith("more registers are 0, and 2 were not read\n")
    shown = done.stdout.splitlines()
    assert "0x0020  status = 0x00000080  interrupt_after_factorial=1" in shown
    assert not any("= 0x00000000" in line or "write-only" in line for line in shown)
    assert (
        output("dump", edu, "bar0.status") == "0x0020  status = 0x00000080  computing=0 interrupt_after_factorial=1\n"
    )
    output("write", edu, "bar0.status.interrupt_after_factorial", "0")


@pytest.mark.long
def test_other_dumps(edu: str) -> None:
    expected = config_bytes(edu)
    words = json.loads(output("dump", edu, "config", "--width", "32", "--offset", "0x10", "--length", "8", "--json"))
    assert words["values"] == [int.from_bytes(expected[start : start + 4], "little") for start in (0x10, 0x14)]
    assert (words["device"], words["space"], words["offset"], words["width"]) == (edu, "config", 0x10, 32)
    assert output("dump", edu, "bar0+0x80", "--width", "64", "--length", "8").startswith("00000080  00000")
    for words_, why in (
        (("bar0", "--length", "6"), "not one or more accesses of 32 bits"),
        (("bar0", "--length", "0x100004"), "end at 0x100004"),
        (("config", "--names"), "--names goes with a BAR"),
        (("bar0", "--set"), "--set goes with --names"),
        (("bar0.status.computing",), "is a field: pyuio read"),
    ):
        assert why in failure(2, "dump", edu, *words_)


def test_watching(edu: str) -> None:
    output("write", edu, "bar0+4", "0")
    command = ["read", edu, "bar0+4", "--watch", "--interval", "0.01"]
    with (
        Inspection(find(edu)) as device,
        pyuio_beside(*command) as watcher,
        pyuio_beside(*command, "--json") as other,
    ):
        for value in (0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF):
            device.bar(0).write32(4, value ^ 0xFFFFFFFF)
            words = watcher.stdout.readline().split()
            assert words[1:] == ["bar0+0x04", f"{value:#010x}"]
            answer = json.loads(other.stdout.readline())
            assert (answer["place"], answer["value"]) == ("bar0+0x04", value)
            assert answer["time"] > 1e9
        watcher.send_signal(signal.SIGINT)
        assert (watcher.wait(PATIENCE), watcher.stdout.read()) == (130, "")
        # A reader that closes the pipe ends it, too.
        other.stdout.close()
        device.bar(0).write32(4, 2)
        assert other.wait(PATIENCE) == 1
