# SPDX-License-Identifier: MIT
"""test_reboot.py runs this program in two guests: it sets cards up, and drives them as a user after the next start.

``reboot_guest.py first|second DIRECTORY``: the directory is the disk, which both guests see.
"""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.kernel.drivers import bound_driver

ETC = Path("/etc")
KEPT = ("group", "gshadow", "passwd", "shadow", "udev/rules.d", "security/limits.d")
(EDU,) = (str(device.address) for device in pyuio.devices() if device.ids == "1234:11e8")
ONE, OTHER = sorted(str(device.address) for device in pyuio.devices() if device.ids == "8086:10d3")


def first(disk: Path) -> None:
    """Set two cards up, and make a user who may drive them."""
    subprocess.run(["useradd", "--shell", "/bin/sh", "alice"], check=True)
    for address in (EDU, OTHER):
        subprocess.run([sys.executable, "-m", "pyuio.cli", "setup", address, "--driver", "vfio-pci"], check=True)
    subprocess.run(["usermod", "--append", "--groups", "pyuio", "alice"], check=True)
    for name in KEPT:
        if (ETC / name).is_dir():
            shutil.copytree(ETC / name, disk / name)
        else:
            (disk / name).parent.mkdir(exist_ok=True)
            shutil.copy(ETC / name, disk / name)


def second(disk: Path) -> None:
    """Start as a machine does that has all this on its disk; then be the user."""
    assert not list(ETC.glob("udev/rules.d/*pyuio*"))
    assert {bound_driver(address) for address in (EDU, ONE, OTHER)} == {None}
    # An initramfs has no rule of pyuio's, and may have the module of the kernel's own driver.
    subprocess.run(["udevadm", "trigger", "--settle", "--action=add", f"/sys/bus/pci/devices/{ONE}"], check=True)
    subprocess.run(["udevadm", "control", "--exit"], check=True)
    shutil.copytree(disk, ETC, dirs_exist_ok=True)
    subprocess.run(["/lib/systemd/systemd-udevd", "--daemon"], check=True)
    at_start = ["--type=all", "--action=add", "--prioritized-subsystem=module,block,tpmrm,net,tty,input"]
    subprocess.run(["udevadm", "trigger", *at_start], check=True)
    subprocess.run(["udevadm", "settle", "--timeout=60"], check=True)
    drivers = [bound_driver(address) for address in (EDU, ONE, OTHER)]
    assert drivers == ["vfio-pci", "e1000e", "e1000e"], drivers
    setup = [sys.executable, "-m", "pyuio.cli", "setup", OTHER, "--driver", "vfio-pci"]
    done = subprocess.run(setup, check=True, stdout=subprocess.PIPE, text=True)
    assert "has a driver of its own for it, e1000e. If that is loaded before" in done.stdout, done.stdout
    for directory in {*Path(sys.executable).parents, *Path(sys.executable).resolve().parents, Path.cwd()}:
        directory.chmod(directory.stat().st_mode | 0o055)  # Python may be in root's home
    command = f"{sys.executable} -m tests.vm.reboot_guest alice {disk}"
    subprocess.run(["su", "alice", "--command", command], check=True)


def alice(_: Path) -> None:
    """Drive what is hers, by her login alone."""
    assert os.getuid() >= 1000
    status = Path("/proc/self/status").read_text()
    assert "CapEff:\t0000000000000000" in status, status
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (resource.RLIM_INFINITY,) * 2
    with Edu.open(EDU) as card:
        by_line = f"{card.factorial_by_interrupt(7)} by {card.device.interrupt.kind}"
        card.to_device(b"after the reboot")
        by_dma = card.from_device(16).decode()
    with pyuio.open(EDU) as device:
        (vector,) = device.vectors(1)
        Edu(device).raise_interrupt(1)
        print(f"alice: {by_line}, {vector.read(20)} by {vector.kind}, by DMA: {by_dma}")
    with pyuio.open(OTHER) as device:
        assert device.bar(0).read32(0x5400) == 0x00005452, "the first half of its address"
        print("alice: the second network card is there")
    with contextlib.suppress(pyuio.DeviceBusyError), pytest.raises(pyuio.PermissionDeniedError):
        pyuio.open(ONE, bind=True)
    print("alice: the first network card is not hers")


if __name__ == "__main__":
    part, directory = sys.argv[1:]
    globals()[part](Path(directory))
