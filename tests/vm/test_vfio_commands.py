# SPDX-License-Identifier: MIT
"""The commands on devices that VFIO hands out, in a guest with an IOMMU, which runs vfio_commands_guest.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240  # seconds
GUEST = ("-M", "q35,kernel-irqchip=split", "--qemu", "-device intel-iommu,intremap=on,caching-mode=on")


@pytest.mark.timeout(LIMIT + 30)
def test_commands_over_vfio(vm: Vm) -> None:
    vm.append = "intel_iommu=on"
    program = Path(__file__).with_name("vfio_commands_guest.py")
    options = ["--noconftest", "-pno:cacheprovider", "-ppytest_timeout", "--timeout=0"]
    command = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", sys.executable, "-m", "pytest", *options, str(program)]
    devices = ("--device", "edu", "--device", "edu", "--device", "e1000e")
    words = (*GUEST, *devices, f"--timeout={LIMIT}", "--", *command)
    result = vm.run(*words, cwd=ROOT, limit=LIMIT + 20)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert re.search(r"\d+ passed in", output), output
