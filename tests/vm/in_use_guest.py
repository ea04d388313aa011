# SPDX-License-Identifier: MIT
"""test_in_use.py runs this program in a guest: pyuio detects each use of a device, and does not take the device."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from pyuio.claim.in_use import uses
from pyuio.claim.nodes_in_use import openers
from pyuio.kernel.drivers import bound_driver
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci.discovery import devices
from tests.guest.support import pyuio_command

failures: list[str] = []


def run(command: str) -> None:
    """Run a shell command that must succeed."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"


def only(ids: str) -> str:
    """Return the address of the one function with these ids."""
    (address,) = [device.address for device in devices() if device.ids == ids]
    assert address is not None
    return address


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"it never came to be so: {what}"
        time.sleep(0.05)


def check(address: str, *patterns: str) -> None:
    """Check that these are the uses of a device, in this order; a device that has just appeared settles first."""
    last: list[str] = []

    def matches() -> bool:
        last[:] = uses(address)
        return len(last) == len(patterns) and all(map(re.fullmatch, patterns, last))

    deadline = time.monotonic() + 10
    while not matches() and time.monotonic() < deadline:
        time.sleep(0.1)
    print(f"{address}: {last}", flush=True)
    if not matches():
        failures.append(f"{address} should have {patterns}, and has {last}")


def interface(address: str) -> str:
    """Return the network interface of a function, once it has its final name."""
    wait_until(lambda: list(PCI_DEVICES.joinpath(address).glob("**/net/en*")), f"{address} has an interface")
    return next(PCI_DEVICES.joinpath(address).glob("**/net/en*")).name


def pyuio(*words: str) -> subprocess.CompletedProcess[str]:
    done = pyuio_command(*words)
    print(f"$ pyuio {' '.join(words)} [{done.returncode}]\n{done.stdout}{done.stderr}", end="", flush=True)
    return done


run("modprobe -a nvme ahci sd_mod virtio_blk virtio_net e1000 e1000e xhci_pci usb_storage ext4 bochs")
run("modprobe -a dm_mod 8021q bridge")
virtio_disk, network, first, second = only("1af4:1001"), only("1af4:1000"), only("8086:10d3"), only("8086:100e")
nvme, shared_nvme = sorted(device.address or "" for device in devices() if device.ids == "1b36:0010")
serial = only("1b36:0002")
ahci, usb, display, root_port = only("8086:2922"), only("1b36:000d"), only("1234:1111"), only("1b36:000c")
edu = only("1234:11e8")
for disk in ("vda", "sda", "sdb", "nvme0n1", "nvme1n1"):
    wait_until(Path("/dev", disk).exists, disk)

# Nothing uses these functions yet.
for address in (edu, virtio_disk, nvme, shared_nvme, ahci, usb, serial):
    check(address)

# Disks: whole, a partition, on a device mapper, over USB, with several controllers, in another mount namespace.
run("mkdir -p '/run/a b' /run/usb /run/dm && mkfs.ext4 -q /dev/vda && mount /dev/vda '/run/a b'")
check(virtio_disk, "/dev/vda is mounted at /run/a b")
run("mount --bind '/run/a b' /run/usb")
check(virtio_disk, "/dev/vda is mounted at /run/a b and 1 more places")
run("umount /run/usb")
run("mkswap -q /dev/nvme0n1p1 && swapon /dev/nvme0n1p1")
check(nvme, "/dev/nvme0n1p1 is swapped on")
run("swapoff /dev/nvme0n1p1")
check(nvme)
run("echo '0 20000 linear /dev/sda 0' | dmsetup create over && mkfs.ext4 -q /dev/mapper/over")
check(ahci, "/dev/sda is claimed: .*")
run("mount /dev/mapper/over /run/dm")
check(ahci, "/dev/dm-0 \\(on /dev/sda\\) is mounted at /run/dm")
run("umount /run/dm && dmsetup remove over")
check(ahci)
run("mkfs.ext4 -q /dev/sdb && mount /dev/sdb /run/usb")
check(usb, "/dev/sdb is mounted at /run/usb")
run("mkfs.ext4 -q /dev/nvme1n1 && mount /dev/nvme1n1 /run/dm")
check(shared_nvme, "/dev/nvme1n1 is mounted at /run/dm")
run("umount /run/dm /run/usb '/run/a b'")
with subprocess.Popen(["unshare", "-m", "sh", "-c", "mount /dev/vda /run/dm && exec sleep 60"]) as elsewhere:
    check(virtio_disk, "/dev/vda is claimed: .*")
    elsewhere.kill()
check(virtio_disk)
with Path("/dev/nvme1n1").open("rb"):
    assert uses(shared_nvme) == [], "this process is no other one"
    with subprocess.Popen(["sleep", "60"], stdin=Path("/dev/nvme1n1").open("rb")) as reader:
        check(shared_nvme, rf"process {reader.pid} \(sleep\) has /dev/nvme1n1 open")
        reader.kill()

# Network: IPv4 and IPv6, another table, a VLAN, a bridge, another namespace.
names = {address: interface(address) for address in (network, first, second)}
run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1")
for address in names:
    check(address)
run(f"ip addr add 10.7.0.1/24 dev {names[network]} && ip link set {names[network]} up")
check(network, f"{names[network]} carries the route 10.7.0.0/24")
run(f"ip route add default via 10.7.0.9 && ip route add 10.9.0.0/16 dev {names[network]} table 77")
check(network, f"{names[network]} carries the route 10.9.0.0/16, default, 10.7.0.0/24")
run(f"ip link set {names[network]} down")
check(network)
run(f"ip link add link {names[first]} name vlan5 type vlan id 5 && ip link set {names[first]} up")
run("sysctl -qw net.ipv6.conf.vlan5.disable_ipv6=0 && ip addr add fd00:7::1/64 dev vlan5 nodad && ip link set vlan5 up")
check(first, f"vlan5 \\(on {names[first]}\\) carries the route fd00:7::/64, fe80::/64")
run(f"ip link add br0 type bridge && ip link set {names[second]} master br0")
check(second, f"{names[second]} belongs to br0")
run("ip addr add 10.8.0.1/24 dev br0 && ip link set br0 up")
check(second, f"{names[second]} belongs to br0", f"br0 \\(on {names[second]}\\) carries the route 10.8.0.0/24")
run(f"ip link del br0 && ip netns add elsewhere && ip link set {names[second]} netns elsewhere")
check(second, "e1000 drives it, but no interface is here; .*")
run(f"ip netns exec elsewhere ip link set {names[second]} netns 1")
check(second)

# Bridges, the display, a terminal that a process has open, and devices that the guest itself needs.
check("0000:00:00.0", "it is a bridge")
check(root_port, "it is a bridge, with 1 functions directly behind it")
assert {"it is the display that the machine started with (boot_vga)", "its fb0 shows the console"} <= set(uses(display))
(terminal,) = PCI_DEVICES.joinpath(serial).glob("tty/*")
with subprocess.Popen(["sleep", "60"], stdin=Path("/dev", terminal.name).open("rb")) as getty:
    check(serial, rf"process {getty.pid} \(sleep\) has /dev/{terminal.name} open")
    getty.kill()
check(only("1af4:1009"), "it serves the file system 'pyuio-root' .*")
assert any("has /dev/vport" in reason for reason in uses(only("1af4:1003")))

# An IOMMU group that VFIO has.
assert pyuio("bind", edu, "--driver", "vfio-pci").returncode == 0
group = Path("/dev/vfio", PCI_DEVICES.joinpath(edu, "iommu_group").resolve().name)
wait_until(group.exists, str(group))
with subprocess.Popen(["sleep", "60"], stdin=group.open("rb+", buffering=0)) as holder:
    check(edu, rf"process {holder.pid} \(sleep\) has {group} open")
    refused = pyuio("unbind", edu)
    assert refused.returncode == 1
    assert "sleep" in refused.stderr
    holder.kill()
assert pyuio("unbind", edu).returncode == 0
assert bound_driver(edu) is None

# The command refuses, takes the device by --force, and gives it back; a second call does nothing.
run("mount /dev/vda '/run/a b'")
refused = pyuio("bind", virtio_disk)
assert refused.returncode == 1
assert f"{virtio_disk} is in use:\n  /dev/vda is mounted at /run/a b\n" in refused.stderr
assert "--force" in refused.stderr
assert bound_driver(virtio_disk) == "virtio-pci"
for address in (first, root_port):
    driver = bound_driver(address)
    assert pyuio("bind", address).returncode == 1
    assert bound_driver(address) == driver
forced = pyuio("bind", first, "--driver", "uio_pci_generic", "--force")
assert forced.returncode == 0
assert "taken all the same" in forced.stderr
assert bound_driver(first) == "uio_pci_generic"
assert openers(PCI_DEVICES.joinpath(first).resolve()) == []
again = pyuio("bind", first)
assert (again.returncode, "already" in again.stdout) == (0, True)
assert pyuio("unbind", first).returncode == 0
assert bound_driver(first) == "e1000e"
assert "nothing to undo" in pyuio("unbind", first).stdout
assert not failures, "\n".join(failures)
print("all as it should be")
