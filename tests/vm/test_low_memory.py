# SPDX-License-Identifier: MIT
"""DMA memory for cards with narrow masks, in guests with memory above 4 GiB: 1, 4 and 6 GiB of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]
CARD = '{"driver":"edu","dma_mask":4294967295}'
LIMIT = 240
# The kernel would zero what a search holds, which takes an emulated processor seconds for each GiB.
FAST = "init_on_alloc=0"
WHERE = [
    pytest.param("3G", FAST, "32 28", id="3 GiB"),
    pytest.param("3G", "", "32 31 30 28", id="3 GiB, zeroed"),
    pytest.param("6G", FAST, "32 31 30 28", id="6 GiB, all masks"),
    pytest.param("8G", FAST, "32 31 30 28", id="8 GiB"),
]


def run(vm: Vm, memory: str, parameters: str, words: str, *options: str) -> None:
    vm.append = parameters
    command = [sys.executable, "-m", "tests.vm.low_memory_guest", *words.split()]
    result = vm.run("--memory", memory, *options, "--device", CARD, "--", *command, cwd=ROOT, limit=LIMIT)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert output.endswith("all is well\n")


@pytest.mark.long
@pytest.mark.timeout(LIMIT)
def test_three_quarters_are_above_4_gib(vm: Vm) -> None:
    """In a small guest. With less memory below, a boot on a busy machine left no adjacent hugepages there."""
    run(vm, "2G", FAST, "32", "--machine=q35,max-ram-below-4g=512M")


@pytest.mark.long  # the usual places of so much memory
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize(("memory", "parameters", "bits"), WHERE)
def test_memory_above_4_gib(vm: Vm, memory: str, parameters: str, bits: str) -> None:
    run(vm, memory, parameters, bits)


@pytest.mark.long
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("bits", [30, 31, 32])
@pytest.mark.parametrize("memory", ["3G", "6G", "8G"])
def test_boot_parameters_that_the_message_gives(vm: Vm, memory: str, bits: int) -> None:
    run(vm, memory, f"mem={1 << (bits - 20)}M", f"boot {bits}")


@pytest.mark.long
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("part", ["nothing", "groups"])
def test_searches_that_fail(vm: Vm, part: str) -> None:
    """All low memory is taken; a control group may have little."""
    run(vm, "6G", FAST, part)
