# SPDX-License-Identifier: MIT
"""The commands on a device that has several UIO nodes."""

from __future__ import annotations

import json

import pyuio
from tests.guest.support import PCI_TESTDEV, Cards, pyuio_command
from tests.guest.test_several_nodes import fire


def test_the_commands_tell_of_each(several_nodes: None, cards: Cards) -> None:
    (address,) = cards(PCI_TESTDEV)
    entries = [found for found in pyuio.devices() if found.device_name == address]
    listed = json.loads(pyuio_command("list", "--json").stdout)["devices"]
    assert [one["uio"] for one in listed if one["name"] == entries[0].device_name] == [one.uio for one in entries]
    second = str(entries[1].uio)
    shown = pyuio_command("info", second)
    assert f"/dev/{second} (unit-b)" in shown.stdout, shown.stderr
    assert f"beside {entries[0].uio}" in shown.stdout
    fire(entries[0], 1)
    assert pyuio_command("irq", str(entries[0].uio), "--count", "1", "--timeout", "0.2").returncode == 1
    shown = pyuio_command("info", address)
    assert f"{', '.join(entries[0].nodes)}; name one to see it" in shown.stdout, shown.stderr
    assert "several_nodes" in pyuio_command("doctor", address).stdout
