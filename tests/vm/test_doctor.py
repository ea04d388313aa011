# SPDX-License-Identifier: MIT
"""The doctor in guests with an IOMMU, isolated CPUs, lockdown and several threads per core."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_what_only_a_boot_can_set(vm: Vm) -> None:
    vm.append = "intel_iommu=on isolcpus=managed_irq,domain,1 rcu_nocbs=1"
    iommu = "-device intel-iommu,intremap=on,caching-mode=on"
    command = [sys.executable, "-m", "tests.vm.doctor_guest"]
    result = vm.run("-M", "q35,kernel-irqchip=split", "--qemu", iommu, "--device", "edu", "--", *command, cwd=ROOT)
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert output.endswith("all as it should be\n")


@pytest.mark.long
def test_tickless_and_threads_of_a_core(vm: Vm) -> None:
    vm.append = "nohz_full=1 isolcpus=domain,1 module_blacklist=uio"
    command = [sys.executable, "-m", "pyuio.cli", "doctor", "--json"]
    # On an AMD processor the kernel needs more features than these to see threads.
    threads = "-smp 2,sockets=1,cores=1,threads=2 -cpu max,la57=off,smap=off,vendor=GenuineIntel"
    result = vm.run("--qemu", threads, "--device", "none", "--", *command, cwd=ROOT)
    assert result.returncode == 1, result.stderr.decode()
    answer = json.loads(result.stdout)
    state = {entry["name"]: entry["state"] for entry in answer["findings"]}
    assert (state["tickless_cpus"], state["rcu_callbacks"]) == ("good", "good")
    assert state["smt"] == "advice"
    assert [name for name in state if state[name] == "blocks"] == ["uio_pci_generic"]
