# SPDX-License-Identifier: MIT
"""``pyuio save``, ``diff`` and ``restore`` on an edu card."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml  # noqa: F401 - once, before the commands fork: under emulation it takes seconds

import pyuio
from pyuio.inspect import state  # noqa: F401 - likewise
from pyuio.kernel.drivers import UIO_PCI_GENERIC
from pyuio.pci.config_image import Command
from tests.guest.support import BUS_MASTER, PCI_SERIAL, Cards, command_register, keep_bound, pyuio_command

LIVENESS, STATUS, SOURCE = 0x04, 0x20, 0x80


def test_a_card_is_saved_compared_and_restored(edu: str, tmp_path: Path) -> None:
    keep_bound(edu, UIO_PCI_GENERIC)
    file = tmp_path / "card.yaml"
    with pyuio.open(edu) as device:
        bar = device.bar(0)
        for offset in (STATUS, SOURCE):
            bar.write32(offset, 0)
        saved = pyuio_command("save", edu)
        assert saved.returncode == 0
        assert f"warning: process {os.getpid()} (" in saved.stderr
        assert "registers were not read, because they are write-only or a read has an effect" in saved.stderr
        file.write_text(saved.stdout)
        assert (pyuio_command("diff", str(file), edu).returncode, command_register(edu) & BUS_MASTER) == (0, 0)
        bar.write32(STATUS, 0x80)
        bar.write32(SOURCE, 0x1234)
        before = command_register(edu)  # what the firmware has switched on, if there is one, stays on
        device.config.change_command(set=Command.BUS_MASTER)
        expected = [
            "bar0.status 0x00000000 -> 0x00000080  interrupt_after_factorial 0 -> 1",
            "bar0.dma_source 0x0000000000000000 -> 0x0000000000001234",
            f"config.command {before:#06x} -> {before | BUS_MASTER:#06x}  bus_master 0 -> 1",
        ]
        done = pyuio_command("diff", str(file), edu)
        assert (done.returncode, done.stdout.splitlines()) == (3, expected)
        done = pyuio_command("restore", str(file), edu, "--dry-run")
        assert (done.returncode, bar.read32(SOURCE)) == (0, 0x1234)
        again = pyuio_command("restore", str(file), edu)
        assert (again.returncode, again.stdout) == (0, done.stdout)
        assert again.stdout.startswith("bar0.status 0x00000080 -> 0x00000000  interrupt_after_factorial 1 -> 0\n")
        assert f"not written: {expected[2]}\n" in again.stderr
        assert (bar.read32(STATUS), bar.read32(SOURCE)) == (0, 0)
        assert command_register(edu) & BUS_MASTER


@pytest.mark.long
def test_differences_as_json(edu: str, tmp_path: Path) -> None:
    keep_bound(edu, UIO_PCI_GENERIC)
    file = tmp_path / "card.yaml"
    with pyuio.open(edu) as device:
        device.bar(0).write32(SOURCE, 0)
        file.write_text(pyuio_command("save", edu).stdout)
        device.bar(0).write32(SOURCE, 0x1234)
        done = pyuio_command("diff", str(file), edu, "--json")
        assert [one["place"] for one in json.loads(done.stdout)["differences"]] == ["bar0.dma_source"]


@pytest.mark.long
def test_what_does_not_go_together(edu: str, cards: Cards, tmp_path: Path) -> None:
    (serial,) = cards(PCI_SERIAL)
    saved = pyuio_command("save", serial)
    assert saved.returncode == 0
    file = tmp_path / "serial.yaml"
    file.write_text(saved.stdout)
    done = pyuio_command("diff", str(file), edu)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"pyuio: the state is that of a {PCI_SERIAL}, and {edu} is 1234:11e8\n"
    done = pyuio_command("restore", str(file), serial)
    assert (done.returncode, f"{serial} is held by the kernel driver serial" in done.stderr) == (1, True)
    file.write_text("{")
    done = pyuio_command("restore", str(file), edu)
    assert (done.returncode, done.stderr.startswith(f"pyuio: {file}, line 1: ")) == (1, True)
    assert len(done.stderr.splitlines()) == 1
