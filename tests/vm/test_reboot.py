# SPDX-License-Identifier: MIT
"""``pyuio setup`` and the next start of the machine: two guests, and between them what a disk would keep.

A guest has no systemd. So the second one does what its units do at a start: udev begins with the rules that are there
(systemd-udevd.service), and looks at all devices that are present (systemd-udev-trigger.service).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]
CARDS = ("edu", "e1000e,mac=52:54:00:00:00:01", "e1000e,mac=52:54:00:00:00:02")


@pytest.mark.long
def test_a_card_is_the_groups_after_a_reboot(vm: Vm, tmp_path: Path) -> None:
    vm.append = "intel_iommu=on"
    machine = ["-M", "q35,kernel-irqchip=split", "--qemu=-device intel-iommu,intremap=on,caching-mode=on"]
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    for boot in ("first", "second"):
        command = [sys.executable, "-m", "tests.vm.reboot_guest", boot, str(disk)]
        cards = [f"--device={card}" for card in CARDS]
        result = vm.run(*machine, *cards, "--out", str(disk), "--timeout=200", "--", *command, cwd=ROOT, limit=220)
        output = result.stdout.decode()
        assert result.returncode == 0, output + result.stderr.decode()
    assert output.splitlines()[-3:] == [
        "alice: 5040 by INTx, 1 by MSI, by DMA: after the reboot",
        "alice: the second network card is there",
        "alice: the first network card is not hers",
    ]
