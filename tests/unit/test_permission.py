# SPDX-License-Identifier: MIT
"""The text of the files that ``pyuio setup`` writes; tests/guest/commands/test_setup.py shows their effect."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.claim import SetupError, permission
from pyuio.claim.permission import NodePermission, Permission, checked_group, group_of
from pyuio.errors import PermissionDeniedError

WANTED = Permission("0000:00:04.0", "1234", "11e8", "lab")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(permission, "RULES", tmp_path / "rules.d")
    monkeypatch.setattr(permission, "LIMITS", tmp_path / "limits.d")
    monkeypatch.setattr(permission, "_make_group", lambda name: None)
    monkeypatch.setattr(permission, "_reload_rules", lambda: None)
    return tmp_path


def test_it_is_for_one_card_and_one_group() -> None:
    rule = WANTED.rule()
    for line in (line for line in rule.splitlines() if not line.startswith("#")):
        assert '=="0000:00:04.0"' in line
        assert '{vendor}=="0x1234"' in line
        assert '{device}=="0x11e8"' in line
    assert group_of(rule) == "lab"
    assert WANTED.rule_path.name == "70-pyuio-0000:00:04.0.rules"
    assert "@lab - rtprio 89\n@lab - memlock unlimited\n" in WANTED.limits()


def test_it_is_for_nodes_of_one_name() -> None:
    wanted = NodePermission.of("fpga-regs 2", "lab")
    (line,) = (line for line in wanted.rule().splitlines() if not line.startswith("#"))
    assert line == 'SUBSYSTEM=="uio", ATTR{name}=="fpga-regs 2", GROUP="lab", MODE="0660"'
    assert group_of(wanted.rule()) == "lab"
    assert (wanted.key, wanted.rule_path.name) == ("fpga-regs 2", "70-pyuio-fpga-regs 2.rules")
    assert "CAP_SYS_ADMIN" not in wanted.unit()


@pytest.mark.parametrize(
    "name", ["", "CIF_???", 'a"b', "a*", "a/b", "../x", "a|b", "[a]", "a\nb", "0000:00:04.0", "x" * 200]
)
def test_a_name_that_no_rule_can_have(name: str) -> None:
    with pytest.raises(SetupError, match="a udev rule cannot go by the node's name"):
        NodePermission.of(name, "lab")


@pytest.mark.parametrize("name", ["uio_pci_generic", "igb_uio"])
def test_a_name_that_cards_have(name: str) -> None:
    with pytest.raises(SetupError, match="would give away all"):
        NodePermission.of(name, "lab")


def test_by_vfio_it_is_nodes_of_vfio() -> None:
    by_vfio = replace(WANTED, driver="vfio-pci")
    rule = by_vfio.rule()
    for line in (line for line in rule.splitlines() if not line.startswith("#")):
        assert line.count('=="0000:00:04.0"') == line.count('{vendor}=="0x1234"') == 1
        assert "resource" not in line
        assert "/dev/vfio/" in line or line.startswith('SUBSYSTEM=="vfio-dev", ')
    assert group_of(rule) == "lab"
    assert "CAP_SYS_ADMIN" not in by_vfio.unit()
    assert "LimitMEMLOCK=infinity\n" in by_vfio.unit()
    with pytest.raises(ValueError, match="not by igb_uio"):
        Permission.of("0000:00:04.0", "lab", "igb_uio")


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic"])
def test_what_a_rule_gives(places: Path, driver: str) -> None:
    wanted = replace(WANTED, driver=driver)
    assert permission.present(WANTED.address) is None
    wanted.write()
    assert permission.present(WANTED.address) == wanted
    wanted.rule_path.write_text("something else")
    assert permission.present(WANTED.address) is None


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "card.service"
    text = WANTED.unit().replace("User=somebody", "User=root") + "ExecStart=/bin/true\n"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "card.service" not in done.stderr, done.stderr
    unit.write_text(text + "NoSuchSetting=1\n")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "NoSuchSetting" in done.stderr, "it looks at what it is given"


@given(st.text())
def test_a_group_that_is_taken_goes_into_a_rule_as_it_is(name: str) -> None:
    try:
        checked_group(name)
    except ValueError:
        return
    assert group_of(Permission("0000:00:04.0", "1234", "11e8", name).rule()) == name
    assert name.replace("_", "a").replace("-", "a").isalnum()


@pytest.mark.parametrize("name", ["", "root", "a b", "../x", "-x", 'x"', "x\n", "X", "é", "a" * 32, "%p", "$x"])
def test_what_cannot_be_a_group(name: str) -> None:
    with pytest.raises(ValueError, match="group"):
        checked_group(name)


def test_twice_and_back(places: Path) -> None:
    other = Permission("0000:00:05.0", "1234", "11e8", "lab")
    assert WANTED.write() == [WANTED.rule_path, WANTED.limits_path]
    assert WANTED.write() == []
    assert other.write() == [other.rule_path]
    WANTED.rule_path.write_text("something else")
    assert WANTED.write() == [WANTED.rule_path]
    assert WANTED.rule_path.read_text() == WANTED.rule()
    assert WANTED.rule_path.stat().st_mode & 0o777 == 0o644
    assert permission.undo("0000:00:04.0") == [WANTED.rule_path], "the other card needs the limits"
    assert permission.undo("0000:00:04.0") == []
    assert permission.undo("0000:00:05.0") == [other.rule_path, other.limits_path]
    for address in ("0000:00:04.0", "0000:00:05.0"):
        assert permission.is_unfinished(address)
        permission.finish(address)
        assert not permission.is_unfinished(address)
    assert [path for path in places.rglob("*") if path.is_file()] == []


def test_a_set_up_ends_an_undo_that_did_not_come_to_its_end(places: Path) -> None:
    WANTED.write()
    permission.undo("0000:00:04.0")
    WANTED.write()
    assert not permission.is_unfinished("0000:00:04.0")
    assert permission.undo("0000:00:04.0") == [WANTED.rule_path, WANTED.limits_path]


def test_a_directory_that_is_in_the_way(places: Path) -> None:
    (places / "rules.d").write_text("a file")
    with pytest.raises((SetupError, PermissionDeniedError), match=r"writing .*rules\.d"):
        WANTED.write()
    assert not WANTED.limits_path.exists()


def test_what_an_administrators_program_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match="there is no no-such-program on this machine"):
        permission._run("no-such-program", "x")
    with pytest.raises(SetupError, match="sh -c echo no >&2; exit 3: no"):
        permission._run("sh", "-c", "echo no >&2; exit 3")
    permission._run("true")
