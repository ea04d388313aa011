# SPDX-License-Identifier: MIT
"""test_doctor.py runs this program in a guest: it tests settings that only a boot can make, or that are final."""

import subprocess
import sys
from pathlib import Path

import pyuio
from pyuio.doctor import Finding, examine, something_blocks

address = next(device.address for device in pyuio.devices() if device.ids == "1234:11e8")
assert address is not None
sysfs = Path("/sys/bus/pci/devices", address)


def finding(name: str, device: str | None = None) -> Finding:
    (found,) = [each for each in examine(device) if each.name == name]
    print(f"{found.name}: {found.state}: {found.found} -> {found.remedy}")
    return found


# The IOMMU translates until the remedy is applied. That is in the way of UIO, and not of VFIO.
kind = (sysfs / "iommu_group/type").read_text().strip()
assert finding("iommu").state == finding("iommu", address).state == "good"
assert "bind=True takes vfio-pci (an IOMMU translates for the device)" in finding("ways", address).found
assert not something_blocks(examine(address))
with pyuio.open(address, bind="uio_pci_generic"):
    translated = finding("iommu", address)
    assert translated.state == "blocks"
    assert f"type {kind}" in translated.found
    assert translated.remedy.startswith(f"pyuio bind {address} --driver vfio-pci; ")
    assert something_blocks(examine(address))
assert not something_blocks(examine())
subprocess.run(["sh", "-ec", translated.remedy.split("bound to the group: ")[1]], check=True)
assert finding("iommu", address).state == "good"

# CPU 1 is isolated, and keeps its tick.
isolated = finding("isolated_cpus")
assert (isolated.state, isolated.found) == ("good", "isolated: 1")
assert finding("tickless_cpus").state == "advice"
callbacks = finding("rcu_callbacks")
assert (callbacks.state, callbacks.found) == ("good", "rcu_nocbs=1")
with pyuio.open(address, bind=True):
    irq = (sysfs / "irq").read_text().strip()
    lists = {
        int(path.parent.name): path.read_text().strip() for path in Path("/proc/irq").glob("*/effective_affinity_list")
    }
    found = finding("interrupt_cpus", address)
    busy = sorted(number for number, cpus in lists.items() if cpus == "1" and str(number) != irq)
    assert busy, "nothing goes to CPU 1, so nothing is shown"
    assert found.state == "advice"

# Lockdown is unknown until its file is there, and it cannot be undone.
assert finding("lockdown").state == "unknown"
subprocess.run(["sh", "-ec", finding("lockdown").remedy.split(", as root")[0]], check=True)
assert finding("lockdown").state == "good"
Path("/sys/kernel/security/lockdown").write_text("integrity")
locked = finding("lockdown")
assert locked.state == "good"  # because of the IOMMU
assert "(integrity)" in locked.found
assert "VFIO is the way" in locked.found
assert "bind=True takes vfio-pci (the kernel is locked down)" in finding("ways", address).found
with pyuio.open(address, bind=True) as device:
    assert (device.driver, device.bar(0).read32(0)) == ("vfio-pci", 0x010000ED)
try:
    with (sysfs / "config").open("r+b", buffering=0) as config:
        config.seek(4)
        config.write(b"\0\0")
except PermissionError as error:
    print(f"the kernel agrees: {error}")
else:
    sys.exit("the kernel let configuration space be written")

# The kernel loads no more modules until the next boot; the loaded one stays.
subprocess.run(["modprobe", "-r", "uio_pci_generic"], check=True)
assert finding("uio_pci_generic").state == "good"
Path("/proc/sys/kernel/modules_disabled").write_text("1")
assert finding("uio_pci_generic").state == "blocks"
assert subprocess.run(["modprobe", "uio_pci_generic"], capture_output=True).returncode != 0
print("all as it should be")
