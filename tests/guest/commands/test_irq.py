# SPDX-License-Identifier: MIT
"""``pyuio irq`` on the edu card."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers import edu as edu_driver

from pyuio.claim import binding
from pyuio.inspect.inspection import Inspection
from pyuio.pci import Status
from pyuio.pci.discovery import find
from tests.guest.commands.in_process import command_here
from tests.guest.support import (
    INTERRUPT_DISABLE,
    PATIENCE,
    PCI_TESTDEV,
    Beside,
    Cards,
    command_register,
    pyuio_beside,
    pyuio_command,
    wait_until,
)

RAISE = edu_driver.EduRegisters.raise_interrupt.info.offset
ACKNOWLEDGE = edu_driver.EduRegisters.acknowledge_interrupt.info.offset


@pytest.fixture
def bound(edu: str) -> Iterator[str]:
    """An edu card that uio_pci_generic has, and that raises no interrupt."""
    undo = binding.bind(edu)
    yield edu
    undo.undo()


@pytest.fixture
def card(bound: str) -> Iterator[Inspection]:
    """The card's registers, accessed beside the process that has it open."""
    with Inspection(find(bound)) as device:
        device.bar(0).write32(ACKNOWLEDGE, 0xFFFFFFFF)
        yield device
        device.bar(0).write32(ACKNOWLEDGE, 0xFFFFFFFF)


def start(*words: str) -> Beside:
    return pyuio_beside("irq", *words)


def is_raised(card: Inspection) -> bool:
    return Status.INTERRUPT_STATUS in card.config.status


def raise_when_waited_for(card: Inspection) -> None:
    """Raise an interrupt once the command waits; an earlier one may be acknowledged together with the last one."""
    wait_until(lambda: not command_register(card.name) & INTERRUPT_DISABLE)
    card.bar(0).write32(RAISE, 1)


def test_a_known_driver_acknowledges(card: Inspection) -> None:
    with start(card.name, "--count", "3") as process:
        assert process.stdout.readline().split()[:2] == ["total", "count"]
        for number in (1, 2, 3):
            raise_when_waited_for(card)
            total, count, since = process.stdout.readline().split()
            assert (total, count) == (str(number), "1")
            assert (since == "-") == (number == 1)
            wait_until(lambda: not is_raised(card))
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (0, "", "")
    assert command_register(card.name) & INTERRUPT_DISABLE


def test_one_that_comes_right_after_the_acknowledgement(card: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command does not take it for an interrupt that was not acknowledged, for which it would wait for ever.

    The first comes with the making of the driver, which acknowledges what was there before.
    """
    acknowledge = edu_driver.Edu.acknowledge

    def acknowledge_and_raise(driver: edu_driver.Edu) -> None:
        acknowledge(driver)
        driver.raise_interrupt()

    monkeypatch.setattr(edu_driver.Edu, "acknowledge", acknowledge_and_raise)
    with start(card.name, "--count", "5", "--timeout", "30") as process:
        output, errors = process.communicate(PATIENCE)
        assert (process.returncode, errors) == (0, "")
        assert [line.split()[0] for line in output.splitlines()] == ["total", "1", "2", "3", "4", "5"]


def test_a_write_that_does_not_acknowledge(card: Inspection) -> None:
    """Otherwise the command would print lines for ever."""
    with start(card.name, "--acknowledge", "bar0+0x4=1", "--timeout", "0.5") as process:
        raise_when_waited_for(card)
        output, errors = process.communicate(PATIENCE)
        assert process.returncode == 1
        assert "still raises its interrupt: acknowledged 10 times, in vain" in errors
        assert "was not acknowledged within 0.5 s" in errors
        assert output.splitlines()[-1].split()[0] == "10"


def test_without_a_driver_it_waits_to_be_acknowledged(card: Inspection) -> None:
    with start(card.name, "--count", "2", "--no-driver", "--json") as process:
        card.bar(0).write32(RAISE, 1)
        first = json.loads(process.stdout.readline())
        assert (first["total"], first["count"], first["seconds_since_last"]) == (1, 1, None)
        assert "still raises its interrupt: nothing told it that it was seen" in process.stderr.readline()
        assert is_raised(card)
        done = command_here("write", card.name, f"bar0+{ACKNOWLEDGE}", "1")
        assert done.returncode == 0
        assert "open, and may not expect writes" in done.stderr
        raise_when_waited_for(card)
        second = json.loads(process.stdout.readline())
        assert (second["total"], second["count"]) == (2, 1)
        assert second["seconds_since_last"] > 0
        assert process.wait(PATIENCE) == 0
    assert command_register(card.name) & INTERRUPT_DISABLE


def test_writes_that_acknowledge(card: Inspection) -> None:
    writes = ["--acknowledge", "bar0+0x4=0x1234", "--acknowledge", f"bar0+{ACKNOWLEDGE:#x}=0xff"]
    with start(card.name, "--count", "2", *writes) as process:
        process.stdout.readline()
        for number in (1, 2):
            raise_when_waited_for(card)
            assert process.stdout.readline().split()[0] == str(number)
            wait_until(lambda: not is_raised(card))
        assert process.wait(PATIENCE) == 0
    assert card.bar(0).read32(4) == 0xFFFFEDCB, "the inverse of what was written before"


DRIVER = f"""
import pyuio

class Registers(pyuio.RegisterMap):
    inverse = pyuio.Register(0x04)
    acknowledge = pyuio.Register({ACKNOWLEDGE}, access="wo")

class Card(pyuio.Driver):
    ids = ("1234:11e8",)
    register_maps = {{0: Registers}}

    def acknowledge(self):
        Registers(self.device.bar(0)).acknowledge.write(0xFF)

    def quiet(self):
        Registers(self.device.bar(0)).inverse.write(0x1234)

class Other(Card):
    ids = ("1234:dead",)
"""


def test_a_driver_in_a_file(card: Inspection, tmp_path: Path) -> None:
    file = tmp_path / "card_of_this_test.py"
    file.write_text(DRIVER)
    with start(card.name, "--count", "1", "--driver", f"{file}:Card") as process:
        process.stdout.readline()
        raise_when_waited_for(card)
        assert process.stdout.readline().split()[0] == "1"
        wait_until(lambda: not is_raised(card))
        assert process.wait(PATIENCE) == 0
    assert card.bar(0).read32(4) == 0xFFFFEDCB, "the inverse of what the driver's quiet wrote"
    assert pyuio_command("write", card.name, "bar0.inverse", "7", "--driver", f"{file}:Card").returncode == 0
    done = pyuio_command("read", card.name, "bar0.inverse", "--driver", f"{file}:Card")
    assert (done.returncode, done.stdout) == (0, "0xfffffff8\n")


@pytest.mark.long
def test_other_commands_with_a_driver_in_a_file(card: Inspection, tmp_path: Path) -> None:
    file = tmp_path / "card_of_this_test.py"
    file.write_text(DRIVER)
    for words, reason in (
        (("read", card.name, "bar0.inverse", "--driver", f"{file}:Other"), "Other serves 1234:dead"),
        (("irq", card.name, "--driver", f"{file}:Other"), "Other serves 1234:dead"),
        (("dump", card.name, "bar0", "--names", "--driver", f"{file}:None"), "the drivers in it: Card, Other"),
    ):
        done = pyuio_command(*words)
        assert (done.returncode, reason in done.stderr) == (1, True), done
    card.bar(0).write32(4, 7)
    done = pyuio_command("dump", card.name, "bar0", "--names", "--driver", f"{file}:Card")
    assert done.stdout == "0x0004  inverse = 0xfffffff8\n0x0064  acknowledge = write-only\n"
    done = pyuio_command("save", card.name, "--driver", f"{file}:Card")
    assert "\n  bar0:\n    inverse: 0xfffffff8\nconfig:\n" in done.stdout
    for command, place in (("read", "bar0+4"), ("dump", "bar0")):
        assert pyuio_command(command, card.name, place, "--driver", f"{file}:Card").returncode == 2


def test_ctrl_c_ends_it_and_leaves_it_masked(card: Inspection) -> None:
    with start(card.name) as process:
        process.stdout.readline()
        card.bar(0).write32(RAISE, 1)
        assert process.stdout.readline().split()[0] == "1"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (130, "", "")
    assert command_register(card.name) & INTERRUPT_DISABLE


def test_none_in_time(card: Inspection) -> None:
    done = command_here("irq", card.name, "--count", "1", "--timeout", "0.2")
    assert done.returncode == 1
    assert "no interrupt came for 0.2 s; 0 before" in done.stderr


@pytest.mark.long
def test_not_acknowledged_in_time(card: Inspection) -> None:
    with start(card.name, "--no-driver", "--timeout", "0.5") as process:
        process.stdout.readline()
        card.bar(0).write32(RAISE, 1)
        _output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert "was not acknowledged within 0.5 s" in errors


def test_what_is_refused(edu: str, cards: Cards) -> None:
    done = command_here("irq", edu)
    assert (done.returncode, f"first: pyuio bind {edu}" in done.stderr) == (1, True)
    (testdev,) = cards(PCI_TESTDEV)
    undo = binding.bind(testdev)
    try:
        done = command_here("irq", testdev, "--timeout", "1")
        assert (done.returncode, "has no interrupt that uio_pci_generic could deliver" in done.stderr) == (1, True)
    finally:
        undo.undo()


@pytest.mark.long
def test_wrong_usage(bound: str) -> None:
    for words in (
        ["--count", "0"],
        ["--timeout", "nan"],
        ["--acknowledge", "bar0+0x64"],
        ["--acknowledge", "bar0+0x64=0x100000000"],
        ["--acknowledge", "config+4=1"],
        ["--driver", "edu", "--no-driver"],
        ["--driver", "edu", "--acknowledge", "bar0+0x64=1"],
    ):
        done = command_here("irq", bound, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), (words, done)
