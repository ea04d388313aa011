# SPDX-License-Identifier: MIT
"""The commands on a device that has several UIO nodes."""

from __future__ import annotations

import json

import pytest

import pyuio
from tests.guest.commands.in_process import command_here
from tests.guest.support import PCI_TESTDEV, Cards
from tests.guest.test_several_nodes import fire


@pytest.mark.long
def test_the_commands_tell_of_each(several_nodes: None, cards: Cards) -> None:
    (address,) = cards(PCI_TESTDEV)
    entries = [found for found in pyuio.devices() if found.device_name == address]
    listed = json.loads(command_here("list", "--json").stdout)["devices"]
    assert [one["uio"] for one in listed if one["name"] == entries[0].device_name] == [one.uio for one in entries]
    second = str(entries[1].uio)
    shown = command_here("info", second)
    assert f"/dev/{second} (unit-b)" in shown.stdout, shown.stderr
    assert f"beside {entries[0].uio}" in shown.stdout
    fire(entries[0], 1)
    assert command_here("irq", str(entries[0].uio), "--count", "1", "--timeout", "0.2").returncode == 1
    shown = command_here("info", address)
    assert f"{', '.join(entries[0].nodes)}; name one to see it" in shown.stdout, shown.stderr
    assert "several_nodes" in command_here("doctor", address).stdout
