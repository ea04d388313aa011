# SPDX-License-Identifier: MIT
"""The commands on a device that is not a PCI function: by the name of its UIO node, and by its maps."""

from __future__ import annotations

import grp
import json
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.claim.permission import LIMITS, RULES
from pyuio.cli.arguments import complete_device
from pyuio.inspect.inspection import Inspection
from pyuio.pci.discovery import find
from pyuio.region import Region
from tests.guest.commands.in_process import command_here
from tests.guest.commands.test_setup import MEMBER, STRANGER, as_user, refusal, run, setup, setup_fails
from tests.guest.conftest import board_loaded
from tests.guest.support import EDU, PATIENCE, Cards, known_drivers, let_go, pyuio_beside, pyuio_command, wait_until

BOUND = Path("/sys/bus/platform/drivers/edu_board")
GROUP = "pyuio-board"
STATUS, RAISE, ACKNOWLEDGE = 0x20, 0x60, 0x64
DRIVER = """
import pyuio
from pyuio_drivers.edu import EduRegisters

class Board(pyuio.Driver):
    uio_names = ("edu-board",)
    register_maps = {"registers": EduRegisters}

    def __init__(self, device):
        super().__init__(device)
        self.registers = EduRegisters(device.map("registers"))

    def acknowledge(self):
        self.registers.acknowledge_interrupt.write(0xFFFFFFFF)
"""

has_udev = pytest.mark.skipif(not Path("/run/udev/control").exists(), reason="no udev runs here")


@pytest.fixture(scope="module", autouse=True)
def board() -> Iterator[None]:
    """The board, for all tests here: to load its module takes as long as several of them."""
    let_go()
    with board_loaded("own"):
        yield


@pytest.fixture(scope="module")
def member() -> Iterator[None]:
    """A user who is in the group, and in no other."""
    run("groupadd", GROUP)
    run("useradd", "--no-create-home", "--shell", "/bin/sh", "--groups", GROUP, MEMBER)
    yield
    run("userdel", MEMBER)
    run("groupdel", GROUP)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that is installed, with a driver for the board."""
    (tmp_path / "acme_board.py").write_text(DRIVER)
    information = tmp_path / "acme_board-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_board\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[pyuio.drivers]\nboard = acme_board:Board\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    known_drivers.cache_clear()
    known_drivers()  # here, because the commands in a fork call it in place of what it calls
    yield
    monkeypatch.undo()
    known_drivers.cache_clear()
    known_drivers()


@pytest.fixture
def registers() -> Iterator[Region]:
    """The board's registers, accessed beside the process that has it open."""
    with Inspection(find("edu-board")) as inspection:
        region = inspection.map("registers")
        assert isinstance(region, Region)
        region.write32(ACKNOWLEDGE, 0xFFFFFFFF)
        yield region
        region.write32(ACKNOWLEDGE, 0xFFFFFFFF)


def output(*words: str) -> str:
    done = command_here(*words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def error(*words: str, status: int = 1) -> str:
    done = command_here(*words)
    assert (done.returncode, done.stdout) == (status, "")
    return done.stderr


def test_read_and_write() -> None:
    assert output("read", "edu-board", "map0") == "0x010000ed\n"
    output("write", "edu-board", "dma-registers+8", "0x40")
    assert output("read", str(find("edu-board").uio), "registers+0x88") == "0x00000040\n"


@pytest.mark.long
def test_other_ways_to_read() -> None:
    assert output("read", "edu-board", "registers+0x0") == "0x010000ed\n"
    assert output("write", "edu-board", "registers+4", "0x12345678") == ""
    assert output("read", "edu-board", "map0", "--count", "2") == "map0+0x00  0x010000ed\nmap0+0x04  0xedcba987\n"
    read = json.loads(output("read", "edu-board", "registers+4", "--json"))
    assert read["device"] == "edu_board.0"
    assert read["registers"] == [{"place": "registers+0x04", "width": 32, "value": 0xEDCBA987}]
    with pyuio.open("edu-board"):
        shown = pyuio_command("read", "edu-board", "map0")
        assert shown.stdout == "0x010000ed\n"
        assert re.search(r"warning: process \d+ \(.*\) has /dev/uio\d+ open, and may not expect reads", shown.stderr)


def test_what_cannot_be_mapped() -> None:
    assert "mmap takes whole pages" in error("read", "edu-board", "unaligned+4")
    one, once = (str(device.uio) for device in pyuio.devices() if device.uio_name == "twin")
    assert "refuses mmap" in error("read", one, "map0")
    with pyuio.open(once):  # it admits one opener
        assert f"opening /dev/{once}: Device or resource busy" in pyuio_command("read", once, "map0").stderr


@pytest.mark.long
def test_what_is_no_place_of_it(edu: str) -> None:
    has = r"it has: map 0 \(registers\) of 0x1000 bytes at 0x[0-9a-f]+; map 1 \(dma-registers\)"
    assert re.search(f"edu_board.0 has no map 'nothing'; {has}", error("read", "edu-board", "nothing+4"))
    assert re.search(f"not a PCI function: it has neither .*; {has}", error("read", "edu-board", "bar0+4"))
    assert "map0+0x1000: 1 of 32 bits end at 0x1004" in error("read", "edu-board", "map0+0x1000", status=2)
    assert "twin names 2 devices" in error("read", "twin", "map0")
    once = str([one.uio for one in pyuio.devices() if one.uio_name == "twin"][-1])
    assert output("read", once, "map0") == "0x010000ed\n"
    assert f"{edu} has no UIO node" in error("read", edu, "map0+4")


def test_dump() -> None:
    first = "00000000  010000ed "
    line = output("dump", "edu-board", "registers", "--length", "16")
    assert (line.startswith(first), len(line)) == (True, len(first) + 3 * 9)
    done = pyuio_command("dump", "edu-board")  # without a second word: there is no configuration space
    assert done.stdout.startswith(first)
    assert "0x100 of 0x1000 bytes; --length and --offset give others" in done.stderr
    assert "no installed driver serves the node edu-board" in error("dump", "edu-board", "map0", "--names")


def test_by_name(driver: None) -> None:
    assert output("read", "edu-board", "registers.identification") == "0x010000ed  major=1 minor=0 card=0xed\n"
    output("write", "edu-board", "registers.status.interrupt_after_factorial", "1")
    with Inspection(find("edu-board")) as inspection:
        registers = inspection.map("registers")
        assert isinstance(registers, Region)
        assert registers.read32(STATUS) == 0x80
        registers.write32(STATUS, 0)
    found = find("edu-board")
    row = rf"^board +acme_board +edu_board.0 +node edu-board +edu_board +{found.uio}$"
    assert re.search(row, output("probe", "edu-board"), re.MULTILINE)


@pytest.mark.long
def test_more_by_name(driver: None) -> None:
    assert output("read", "edu-board", "map0.identification.card") == "0xed\n"
    assert "0x0000  identification = 0x010000ed  major=1 minor=0 card=0xed\n" in output(
        "dump", "edu-board", "registers", "--names"
    )
    assert "Board has no names for dma-registers; it has names for: registers" in error(
        "dump", "edu-board", "dma-registers", "--names"
    )
    assert "no installed driver serves edu_board.1 (edu-memory)" in pyuio_command("probe", "edu-memory").stderr
    (one,) = json.loads(output("probe", "edu-board", "--json"))["drivers"]
    assert (one["uio_names"], one["devices"][0]["uio_name"]) == (["edu-board"], "edu-board")
    assert "pyuio driver   board (acme_board)" in output("info", "edu-board")


def test_list_and_info(cards: Cards) -> None:
    found = find("edu-board")
    with pyuio.open(found) as device:
        line = device.irq
    assert re.search(
        rf"^edu_board\.0 +- +edu_board +{found.uio} +{line} +- +platform device: edu-board$",
        output("list"),
        re.MULTILINE,
    )
    listed = {one["uio_name"]: one for one in json.loads(output("list", "--json"))["devices"] if one["address"] is None}
    assert set(listed) == {"edu-board", "edu-memory", "twin"}
    assert listed["edu-board"]["interrupt"] == {"kind": "line", "pin": None, "numbers": [line], "text": str(line)}
    assert listed["edu-memory"]["interrupt"] is None
    bar = Path("/sys/bus/pci/devices", cards(EDU)[-1], "resource").read_text().split()[0].removeprefix("0x").lstrip("0")
    shown = re.sub(r" *\n", "\n", re.sub(r" +", " ", output("info", "edu-board")))
    assert shown.startswith("edu_board.0 platform device: edu-board\n")
    assert f"\n interrupt {line}\n" in shown
    assert f"\nMaps of /dev/{found.uio}\n map name size address offset\n 0 registers 4 KiB 0x{bar} 0x0\n" in shown
    assert f" 1 dma-registers 4 KiB 0x{bar} 0x80\n" in shown


def test_doctor() -> None:
    findings = {one["name"]: one for one in json.loads(output("doctor", "edu-board", "--json"))["findings"]}
    assert findings["bound_driver"]["state"] == "good"
    with pyuio.open("edu-board") as device:
        line = rf"interrupt {device.irq}, which goes to CPU .*, shared with nobody"
    assert re.match(line, findings["interrupt_line"]["found"])
    assert "interrupt_pin" not in findings


def test_completion() -> None:
    names = dict(complete_device("edu-"))
    assert set(names) == {"edu-board", "edu-memory"}, "two of one name complete nothing"
    found = find("edu-board")
    assert names["edu-board"] == f"{found.uio}, edu_board.0, driver: edu_board"
    assert dict(complete_device("twin")) == {}
    assert str(found.uio) in dict(complete_device("uio"))


def test_irq(registers: Region) -> None:
    with pyuio_beside("irq", "edu-board", "--count", "3", "--acknowledge", "registers+0x64=0xffffffff") as process:
        assert process.stdout.readline().split()[:2] == ["total", "count"]
        for number in ("1", "2", "3"):
            registers.write32(RAISE, 1)
            assert process.stdout.readline().split()[:2] == [number, "1"]
            wait_until(lambda: registers.read32(0x24) == 0)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0


@pytest.mark.long
def test_irq_that_cannot_be() -> None:
    done = pyuio_command("irq", "edu-board", "--timeout", "0.2")
    assert done.returncode == 1
    assert "nothing acknowledges its interrupt; if it comes without end, give --acknowledge" in done.stderr
    assert "no map 'regs'" in error("irq", "edu-board", "--acknowledge", "regs+0=1")
    assert "no interrupt that edu-memory could deliver" in error("irq", "edu-memory", "--timeout", "1")


@pytest.mark.long
def test_irq_with_its_driver(registers: Region, driver: None) -> None:
    with pyuio_beside("irq", "edu-board", "--count", "1") as process:
        registers.write32(RAISE, 1)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (0, "")
        assert output.splitlines()[1].split() == ["1", "1", "-"]
    assert registers.read32(0x24) == 0


def owner(node: Path) -> tuple[int, str]:
    status = node.stat()
    return status.st_gid, stat.filemode(status.st_mode)


@has_udev
@pytest.mark.usefixtures("member")
def test_setup() -> None:
    node = Path("/dev", str(find("edu-board").uio))
    root = owner(node)
    said = setup("edu-board", "--group", GROUP)
    group = grp.getgrnam(GROUP).gr_gid
    try:
        assert f"edu-board is {node}, and members of {GROUP} may drive it\n" in said
        assert "pagemap" not in said
        assert owner(node) == (group, "crw-rw----")
        assert owner(Path("/dev", str(find("edu-memory").uio))) == root

        def drive() -> int:
            with pyuio.open("edu-board") as device:
                region = device.map("registers")
                region.write32(RAISE, 1)
                count = device.interrupt.read(PATIENCE)
                region.write32(ACKNOWLEDGE, 1)
                assert device.irq is not None
                return count

        assert as_user(MEMBER, drive) == 1
        assert str(node) in as_user(STRANGER, lambda: refusal(lambda: pyuio.open("edu-board")))
        # A node that comes later gets it, too.
        (BOUND / "unbind").write_text("edu_board.0")
        (BOUND / "bind").write_text("edu_board.0")
        wait_until(lambda: owner(Path("/dev", str(find("edu-board").uio))) == (group, "crw-rw----"))
    finally:
        said = setup("edu-board", "--undo")
    assert f"removed {RULES}/70-pyuio-edu-board.rules" in said
    assert "edu-board is root's alone again; the group stays" in said
    assert owner(Path("/dev", str(find("edu-board").uio))) == root
    assert not list(RULES.glob("*pyuio*"))
    assert not list(LIMITS.glob("*pyuio*"))


@has_udev
@pytest.mark.long
@pytest.mark.usefixtures("member")
def test_setup_that_changes_nothing() -> None:
    assert "edu-board was not set up: nothing to undo" in setup("edu-board", "--undo")
    setup("edu-board", "--group", GROUP)
    try:
        assert "it was set up already" in setup("edu-board", "--group", GROUP)
    finally:
        setup("edu-board", "--undo")


@has_udev
@pytest.mark.long
def test_setup_that_cannot_be() -> None:
    twin = str(next(one.uio for one in pyuio.devices() if one.uio_name == "twin"))
    assert "have the name 'twin', and a rule by it would give away all" in setup_fails(twin)
    assert "there is no device edu-bored; there is:" in setup_fails("edu-bored", "--undo")
    assert not list(RULES.glob("*pyuio*"))
    shown = setup("edu-board", "--print")
    assert 'SUBSYSTEM=="uio", ATTR{name}=="edu-board", GROUP="pyuio", MODE="0660"' in shown
    assert not list(RULES.glob("*pyuio*"))


@has_udev
@pytest.mark.long
@pytest.mark.usefixtures("member")
def test_undo_of_a_device_that_is_gone() -> None:
    setup("edu-board", "--group", GROUP)
    (BOUND / "unbind").write_text("edu_board.0")
    try:
        assert f"removed {RULES}/70-pyuio-edu-board.rules" in setup("edu-board", "--undo")
    finally:
        (BOUND / "bind").write_text("edu_board.0")
    assert not list(RULES.glob("*pyuio*"))


@has_udev
@pytest.mark.long
@pytest.mark.usefixtures("member")
def test_undo_while_a_user_has_it_open() -> None:
    setup("edu-board", "--group", GROUP)
    node = Path("/dev", str(find("edu-board").uio))
    holder = subprocess.Popen(["sleep", "600"], stdin=node.open("rb"), user=MEMBER)
    try:
        refused = pyuio_command("setup", "edu-board", "--undo")
        assert refused.returncode == 1
        assert f"process {holder.pid} (sleep) has {node}" in refused.stderr
        assert "pyuio setup edu-board --undo --force" in refused.stderr
        assert holder.poll() is None
        done = pyuio_command("setup", "edu-board", "--undo", "--force")
        assert done.returncode == 0, done.stderr
        assert f"killed process {holder.pid}" in done.stderr
        assert holder.wait(PATIENCE) == -9
    finally:
        holder.kill()
        holder.wait(PATIENCE)
        if list(RULES.glob("*pyuio*")):
            pyuio_command("setup", "edu-board", "--undo", "--force")
