# SPDX-License-Identifier: MIT
"""Uses of devices, in a guest with disks, network cards, bridges, a display and a terminal of its own."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from .conftest import Vm

ROOT = Path(__file__).resolve().parents[2]
DEVICES = (
    "edu",
    "virtio-blk-pci,drive=d0",
    "nvme,serial=alone,drive=d1",
    "ide-hd,bus=ide.0,drive=d2",
    "qemu-xhci,id=usb",
    "usb-storage,bus=usb.0,drive=d3",
    # One disk of an NVMe subsystem, which could have several controllers.
    "nvme-subsys,id=subsystem",
    "nvme,serial=shared,subsys=subsystem,id=controller",
    "nvme-ns,bus=controller,shared=on,drive=d4",
    "virtio-net-pci,netdev=n0",
    "pcie-root-port,id=rp1",
    "e1000e,bus=rp1,netdev=n1",
    "e1000,netdev=n2",
    "pci-serial,chardev=c0",
    "VGA",
)
# A master boot record with one partition, of Linux swap, of 16384 sectors from sector 2048.
PARTITIONED = bytes(446) + struct.pack("<B3xB3xII", 0, 0x82, 2048, 16384) + bytes(48) + b"\x55\xaa"


@pytest.mark.long
def test_what_the_machine_uses_is_not_taken(vm: Vm, tmp_path: Path) -> None:
    vm.append = "intel_iommu=on"
    backends = ["-device intel-iommu,intremap=on,caching-mode=on"]
    backends += [f"-netdev user,id=n{number},restrict=on" for number in range(3)]
    backends.append("-chardev null,id=c0")
    for number in range(5):
        image = tmp_path / f"disk{number}"
        image.touch()
        with image.open("r+b") as file:
            file.truncate(32 << 20)
            if number == 1:
                file.write(PARTITIONED)
        backends.append(f"-drive if=none,format=raw,id=d{number},file={image}")
    devices = [f"--device={device}" for device in DEVICES]
    command = [sys.executable, "-m", "tests.vm.in_use_guest"]
    # About 40 s; several times longer on a busy machine.
    result = vm.run(
        "-M", "q35,kernel-irqchip=split", *devices, "--qemu", " ".join(backends), "--", *command, cwd=ROOT, limit=240
    )
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert output.endswith("all as it should be\n")
