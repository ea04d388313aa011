# SPDX-License-Identifier: MIT
"""Cards in Python in a guest: ``pyuio vm run --card``. card_guest.py runs there; cards.py has the cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pyuio.vm import cache
from tests import debian_qemu
from tests.guest.support import pyuio_command

from .conftest import LIMIT, Vm, by_proxy, igb_uio_module

pytestmark = pytest.mark.usefixtures("qemu_with_cards")

ROOT = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).with_name("card_guest.py")
EDU = "pyuio_drivers.models.edu:EduCard"


LIMIT_OF_ALL = 600  # seconds for what takes 50 on a machine that does nothing else


both_ways = pytest.mark.parametrize("way", ["proxy", "vfio-user"])


def run(
    vm: Vm, cards: list[str], *words: str, limit: float = LIMIT, way: str = "proxy", machine: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a part of card_guest.py in a guest with these cards, by this machine's QEMU, or by one with vfio-user."""
    environment = dict(os.environ)
    if way == "vfio-user":
        environment["PATH"] = f"{debian_qemu.fetch(cache.root() / 'qemu')}:{environment['PATH']}"
    options = [f"--card={card if ':' in card else f'tests.vm.cards:{card}'}" for card in cards]
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, str(GUEST), *words]
    return vm.run(*options, *machine, f"--timeout={limit}", "--", *command, cwd=ROOT, env=environment, limit=limit + 20)


def found(result: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr.decode()
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def use(way: str, *, tests: bool) -> dict[str, Any]:
    """Return what card_guest.py found of four cards in one guest, with or without the tests of edu."""
    module = igb_uio_module()
    vm = Vm()
    cards = [EDU, "Raiser", "MsixRaiser", "MsiRaiser"]
    words = ["cards", str(module), *(["tests"] if tests else [])]
    report = found(run(vm, cards, *words, way=way, limit=LIMIT_OF_ALL))
    assert not vm.left()
    return report


@pytest.fixture(scope="module")
def used(qemu_with_cards: None) -> dict[str, Any]:
    return use("proxy", tests=False)


@pytest.mark.timeout(LIMIT_OF_ALL + 60)
def test_a_driver_works_unchanged(used: dict[str, Any]) -> None:
    assert used["edu"] == {"factorials": [1, 720], "data": "some data"}


@pytest.mark.long  # to start pytest in the guest takes longer than all the rest
@pytest.mark.timeout(2 * LIMIT_OF_ALL + 60)
@both_ways
def test_all_does_the_same(used: dict[str, Any], way: str) -> None:
    """The tests of edu pass unchanged, too."""
    other = use(way, tests=True)
    assert other.pop("tests").split(" in ")[0] == "10 passed"
    assert other == used


@pytest.mark.timeout(LIMIT_OF_ALL + 60)
def test_accesses_arrive_as_they_were_made(used: dict[str, Any]) -> None:
    accesses = used["accesses"]
    assert accesses["registers"] == [0xA5, 0xBEEF, 0x0123456789ABCDEF]
    assert accesses["words"] == bytes(range(64)).hex()
    assert accesses["memory"] == bytes(range(256)).hex()
    assert accesses["ports"] == 0x12340000
    assert accesses["BARs"] == [[0, "memory", 4096], [2, "memory", 4096], [4, "io", 16]]


@pytest.mark.timeout(LIMIT_OF_ALL + 60)
@pytest.mark.parametrize(("kind", "number"), [("INTx", 100), ("msix", 30), ("msi", 30)])
def test_each_interrupt_is_taken_once(used: dict[str, Any], kind: str, number: int) -> None:
    require_each_once(used[kind], number, messages=kind != "INTx")


def require_each_once(report: dict[str, Any], number: int, *, messages: bool) -> None:
    # A card in another process lowers its line a little later: on a busy machine, the kernel may look once more.
    assert report["unhandled"] <= (0 if messages else number // 20)
    expected = {"raised": number, "taken": number, "more": False, "messages": int(messages)}
    assert {**report, "unhandled": 0} == {**expected, "unhandled": 0}


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("way", "number"), [("proxy", 100_000), ("vfio-user", 10_000)])
def test_many_interrupts(vm: Vm, way: str, number: int) -> None:
    taken = found(run(vm, ["Raiser"], "interrupts", str(number), limit=1200, way=way))
    require_each_once(taken, number, messages=False)


@pytest.mark.long
def test_vectors_are_told_apart(vm: Vm) -> None:
    """By vfio-user: of a card behind the proxy, no message passes the IOMMU of the guest."""
    vm.append = "intel_iommu=on"
    machine = ["-M", "q35,kernel-irqchip=split", "--qemu=-device intel-iommu,intremap=on,caching-mode=on"]
    report = found(run(vm, ["MsixRaiser"], "vectors", limit=200, way="vfio-user", machine=machine))
    assert report["vectors"] == [[vector, 1, *[False] * 4] for vector in (2, 0, 3, 1, 1)]


@pytest.mark.long
def test_a_bar_beyond_4_gib(vm: Vm) -> None:
    report = found(run(vm, ["WideCard"], "wide", way="vfio-user"))
    assert report["size"] == 8 << 30
    assert report["address"] >= 1 << 32
    assert report["last"] == 0xFEEDF00D


@pytest.mark.long
@both_ways
def test_cards_come_and_go(vm: Vm, way: str) -> None:
    report = found(run(vm, ["Leaving,hotplug", "Raiser"], "hotplug", way=way))
    assert report["factorials"] == [720, 720]
    assert report["data"] == ["some data"] * 2
    assert report["wait"] == ["DeviceRemovedError"] * 2
    assert report["unplugged"] == [True, True]
    already, root_bus, none = report["refusals"]
    assert already == "card 0 is plugged in already"
    assert "card 1 is on the root bus" in root_bus
    assert "there is no card 9" in none
    assert report["pulled out"] == "DeviceRemovedError"


@pytest.mark.long
@pytest.mark.parametrize(
    ("card", "part", "said"),
    [
        ("Raising", "provoke", "by zero, at a 32-bit write of 0x0"),
        ("Hanging", "provoke", "CardHangError: a call of the card did not return within 5 s"),
        ("Dying", "provoke", "its process ended with status 3"),
        ("Speaking", "complain", "Complaint: Speaking: an 8-bit read at offset 0x18 of BAR 0"),
    ],
)
@both_ways
def test_a_card_that_fails_ends_the_run(vm: Vm, card: str, part: str, said: str, way: str) -> None:
    """The guest sees that the card is gone, and COMMAND has time to say what it saw."""
    result = run(vm, [card], part, way=way)
    errors = result.stderr.decode()
    assert result.returncode == 120, errors
    assert said in errors
    assert json.loads(result.stdout) == {"driver": "DeviceRemovedError"}
    lines = [line for line in errors.splitlines() if line.startswith("  File")]
    if card in ("Raising", "Hanging"):
        assert "cards.py" in lines[0]  # the traceback begins with the card's own lines
        assert "in on_write_lower" in lines[0]
    else:
        assert lines == []
    assert ("lower 7\n" in errors) == (card == "Speaking")  # what a card prints


@pytest.mark.parametrize(
    ("card", "status", "said"),
    [
        ("no_such_module:Card", 125, "there is no module no_such_module"),
        ("tests.vm.cards:Nothing", 125, "tests.vm.cards has no Nothing; its cards: "),
        ("tests.vm.cards:NO_CARD", 125, "no class that derives from pyuio.model.Card: 5"),
        pytest.param("tests.vm.cards:WideCard", 125, "BAR 0 has an address of 64 bits", marks=by_proxy),
        ("broken:Card", 125, "ZeroDivisionError: division by zero"),
        ("wrong:Odd", 125, "the size of a BAR is a power of two"),
        ("missing:Card", 125, "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("ends:Card", 125, "SystemExit: 0"),
        ("dies:Card", 125, "its process ended with status 4"),
        ("EduCard", 2, "a card must be MODULE:CLASS"),
        ("a:b,c", 2, "a card must be MODULE:CLASS"),
    ],
)
def test_bad_cards_are_refused_before_the_guest_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str, status: int, said: str
) -> None:
    files = {
        "broken": "1 / 0",
        "wrong": "import pyuio.model\nclass Odd(pyuio.model.Card):\n    bars = {0: 3000}",
        "missing": "import no_such_thing",
        "ends": "import sys\nsys.exit(0)",
        "dies": "import os\nos._exit(4)",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = pyuio_command("vm", "run", "-v", f"--card={card}", "--", "true")
    assert result.returncode == status, result.stderr
    assert said in result.stderr
    assert "-nodefaults" not in result.stderr  # QEMU's command line


@pytest.mark.parametrize(("version", "says"), [("8.2.0", "8.2"), ("10.0.13", "10.0"), ("5.2.0", "5.2")])
def test_a_qemu_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, says: str) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho QEMU emulator version {version}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    result = pyuio_command("vm", "run", f"--card={EDU}", "--", "true")
    assert result.returncode == 125
    assert f"this QEMU is {says}, and a card in Python needs 6.2 to 8.1" in result.stderr


@by_proxy
def test_it_needs_the_machine_that_it_knows() -> None:
    result = pyuio_command("vm", "run", f"--card={EDU}", "--machine=pc", "--", "true")
    assert result.returncode == 125
    assert "the machine q35 only: not on pc; QEMU 10.1 and later take it on any" in result.stderr


def test_plugging_outside_of_a_guest() -> None:
    result = pyuio_command("vm", "plug", "0")
    assert result.returncode == 1
    assert "this is no guest of pyuio vm" in result.stderr
