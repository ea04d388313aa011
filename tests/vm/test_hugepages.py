# SPDX-License-Identifier: MIT
"""DMA memory in a guest with hugepages of another size than the usual one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long  # a guest of 4 GiB
def test_a_hugepage_of_1_gib(vm: Vm) -> None:
    vm.append = "hugepagesz=1G hugepages=1"
    command = [sys.executable, "-m", "tests.vm.hugepages_guest"]
    result = vm.run(
        "--memory", "4G", "--device", '{"driver":"edu","dma_mask":18446744073709551615}', "--", *command, cwd=ROOT
    )
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert "no memory for DMA of 8589934592 bytes" in output
    assert output.endswith("all is well\n")
